"""The official files: the folders of the GLUE zip, XNLI-1.0 and XNLI-MT-1.0. One line is one row and quotes are text.

Columns and rows come out as `nyu-mll/glue` and `facebook/xnli` have them.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.config import TaskConfig
from bench.errors import DataError

log = logging.getLogger("bench")
# Splits of the hub's GLUE and their file's name in the zip.
STEMS = {
    name: name.replace("validation", "dev")
    for name in (
        "train",
        "validation",
        "validation_matched",
        "validation_mismatched",
        "test",
        "test_matched",
        "test_mismatched",
    )
}
MRPC_SOURCE = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
XNLI = {
    "train": "XNLI-MT-1.0/multinli/multinli.train.{language}.tsv",
    "validation": "XNLI-1.0/xnli.dev.tsv",
    "test": "XNLI-1.0/xnli.test.tsv",
}


@dataclass(frozen=True)
class Layout:
    """Where a task's rows are; a column has several names where the files of its splits disagree."""

    folders: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]  # the hub's name -> names in the header
    headless: tuple[str, ...] = ()  # names of the columns of train and validation, where those have no header
    drop_short: bool = False  # the release has rows torn by a line break, which the hub's version leaves out
    stems: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # split -> file names, where STEMS does not say


_PAIR: dict[str, tuple[str, ...]] = {"sentence1": ("sentence1",), "sentence2": ("sentence2",)}
_NLI: dict[str, tuple[str, ...]] = {
    "premise": ("sentence1", "premise", "Premise"),
    "hypothesis": ("sentence2", "hypo", "Hypothesis"),
}
LAYOUTS = {
    "cola": Layout(
        ("CoLA",),
        {"sentence": ("sentence",), "label": ("label",)},
        headless=("source", "label", "star", "sentence"),
    ),
    "sst2": Layout(("SST-2",), {"sentence": ("sentence",), "label": ("label",)}),
    "mrpc": Layout(
        ("MRPC",), {"sentence1": ("#1 String",), "sentence2": ("#2 String",), "label": ("Quality",)}
    ),
    "stsb": Layout(("STS-B",), _PAIR | {"label": ("score",)}),
    "qqp": Layout(
        ("QQP",),
        {"question1": ("question1",), "question2": ("question2",), "label": ("is_duplicate",)},
        drop_short=True,
    ),
    "mnli": Layout(("MNLI",), _NLI | {"label": ("gold_label",)}),
    "qnli": Layout(("QNLI",), {"question": ("question",), "sentence": ("sentence",), "label": ("label",)}),
    "rte": Layout(("RTE",), _PAIR | {"label": ("label",)}),
    "wnli": Layout(("WNLI",), _PAIR | {"label": ("label",)}),
    # The full file has labels and linguistic categories; AX.tsv, the leaderboard's, has neither.
    "ax": Layout(
        ("AX", "diagnostic", "diagnostics"),
        _NLI | {"label": ("Label", "label")},
        stems={"test": ("diagnostic-full", "AX", "diagnostic")},
    ),
    "xnli": Layout(("XNLI-1.0", "XNLI-MT-1.0"), _NLI | {"label": ("gold_label", "label")}),
}


def layout_of(task: TaskConfig) -> Layout:
    """Return the task's layout; raises DataError for a task without official files."""
    if (name := _key(task)) not in LAYOUTS:
        raise DataError(f"data.source=official knows no files of {task.name}: it reads {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def _key(task: TaskConfig) -> str:
    return "xnli" if task.suite == "xnli" else task.hub_config or task.name


def found(task: TaskConfig, root: Path) -> bool:
    """Return whether `root` holds the task's folder as the official release has it."""
    layout = LAYOUTS.get(_key(task))
    return layout is not None and bool(_present(layout, root))


def _present(layout: Layout, root: Path) -> list[Path]:
    return [path for folder in layout.folders for path in (root / folder).rglob("*.t[sx][vt]")]


def files(task: TaskConfig, root: Path, split: str, language: str | None, asked: str) -> list[Path]:
    """Return the files that hold the split. Raises DataError, naming what is there, where one is missing."""
    layout = layout_of(task)
    if _key(task) == "xnli":
        candidates = [[root / XNLI[split].format(language=language)]] if split in XNLI else []
    else:
        stems = layout.stems.get(split) or ((STEMS[split],) if split in STEMS else ())
        candidates = [[root / folder / f"{stem}.tsv"] for stem in stems for folder in layout.folders]
        if _key(task) == "mrpc" and split in MRPC_SOURCE:
            candidates.insert(0, _mrpc_files(root / layout.folders[0], split))
    for paths in candidates:
        if all(path.is_file() for path in paths):
            return paths
    there = sorted(str(path.relative_to(root)) for path in _present(layout, root))
    looked = " or ".join(str(paths[0].relative_to(root)) for paths in candidates) or "an official split"
    raise DataError(
        f"data.root ({root}) has no {looked} for {asked}: "
        f"{'there are ' + ', '.join(there) if there else 'nothing of this task is there'}; "
        f"the official splits are {', '.join(layout.stems or (XNLI if _key(task) == 'xnli' else STEMS))}."
    )


def _mrpc_files(folder: Path, split: str) -> list[Path]:
    """Return Microsoft's own file and, for train and validation, the ids that GLUE set aside from it."""
    if split == "test":
        return [folder / MRPC_SOURCE[split]]
    ids = folder / "mrpc_dev_ids.tsv"
    return [folder / MRPC_SOURCE[split], ids if ids.is_file() else folder / "dev_ids.tsv"]


def read(task: TaskConfig, root: Path, split: str, language: str | None, asked: str) -> pa.Table:
    """Return the split with text columns, label (code, or float for a regression; -1 where hidden) and idx."""
    import pyarrow.compute as pc  # a tenth of a second, which other sources' rows do not need

    layout, paths = layout_of(task), files(task, root, split, language, asked)
    headless = layout.headless if split != "test" else ()
    table = _lines(paths[0], headless, layout.drop_short)
    if len(paths) > 1:  # MRPC: rows of one file, told apart by the ids of their two sentences
        held_out = _lines(paths[1], ("#1 ID", "#2 ID"), drop_short=False)
        pairs = [pc.binary_join_element_wise(t["#1 ID"], t["#2 ID"], " ") for t in (table, held_out)]
        mask = pc.is_in(pairs[0], value_set=pairs[1].combine_chunks())
        table = table.filter(mask if split == "validation" else pc.invert(mask))
    if "language" in table.column_names:
        table = table.filter(pc.equal(table["language"], language))
    if layout.drop_short and layout.columns["label"][0] in table.column_names:
        table = table.filter(pc.not_equal(table[layout.columns["label"][0]], ""))
    columns = {}
    for name, aliases in layout.columns.items():
        here = next((alias for alias in aliases if alias in table.column_names), None)
        if here is not None:
            columns[name] = table[here]
        elif name != "label":
            names = ", ".join(table.column_names)
            raise DataError(f"{paths[0]} has no column {' or '.join(aliases)} for {asked}: it has {names}.")
    columns["label"] = _labels(columns.get("label"), task, table.num_rows, paths[0])
    columns["idx"] = table["idx"]
    return pa.table(columns | {name: table[name] for name in task.groups if name in table.column_names})


def _lines(path: Path, names: tuple[str, ...], drop_short: bool) -> pa.Table:
    """Return the file as strings, with idx = the row's place in the file.

    A row with another number of fields than the header is an error (a tab inside a text would shift the columns), but
    one with too few is left out where `drop_short` says so.
    """
    from pyarrow import csv

    wrong: list[csv.InvalidRow] = []

    def invalid(row: csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        header = [*names] or file.readline().rstrip("\r\n").split("\t")
    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(
                use_threads=False, column_names=header, skip_rows=0 if names else 1, block_size=1 << 24
            ),
            csv.ParseOptions(
                delimiter="\t", quote_char=False, double_quote=False, invalid_row_handler=invalid
            ),
            csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=[name for name in header if "parse" not in name],
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as UTF-8 text with tabs: {str(error).splitlines()[0]}."
        ) from error
    bad = [row for row in wrong if not (drop_short and row.actual_columns < row.expected_columns)]
    if bad:
        raise DataError(
            f"{path}: {len(bad)} rows have a wrong number of fields, first row {bad[0].number} ('{bad[0].text[:60]}') "
            f"with {bad[0].actual_columns} in place of {bad[0].expected_columns}: a tab within a text, or a "
            "half-downloaded file; get the file again."
        )
    if wrong:
        log.info("%s: %d torn rows are left out, as the hub's version does.", path, len(wrong))
    numbers = np.arange(table.num_rows + len(wrong))
    idx = np.delete(numbers, [row.number - 2 for row in wrong])  # row 1 is the header
    return table.append_column("idx", pa.array(idx, pa.int32()))


def _labels(column: pa.ChunkedArray | None, task: TaskConfig, rows: int, path: Path) -> pa.ChunkedArray:
    """Return codes or numbers from the file's words; -1 where it has no labels. Raises DataError for other words."""
    import pyarrow.compute as pc

    if column is None:
        return pa.array(np.full(rows, -1), pa.int64() if task.labels else pa.float32())
    try:
        if task.labels is None:
            return pc.cast(column, pa.float32())
        words = pc.replace_substring(column, "contradictory", "contradiction")  # XNLI-MT's word
        codes = pc.index_in(words, value_set=pa.array(task.labels))
        return pc.coalesce(
            pc.cast(codes, pa.int64()), pc.cast(pc.if_else(pc.is_valid(codes), None, words), pa.int64())
        )
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: a label is not one of {', '.join(task.labels or ['the numbers'])} ({reason}): check the columns."
        ) from error
