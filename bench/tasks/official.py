"""The official TSV files: the folders of the GLUE zip, XNLI-1.0 and XNLI-MT-1.0. A line is a row, and quotes are text.

Columns and rows are those of `nyu-mll/glue` and `facebook/xnli`.
"""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.errors import DataError, MissingData
from bench.settings.schema import TaskConfig

log = logging.getLogger("bench")
# Splits of the hub's GLUE and the names of their files in the zip.
PARTS = ("", "_matched", "_mismatched")
STEMS = {"train": "train"} | {
    f"{hub}{part}": f"{file}{part}"
    for hub, file in (("validation", "dev"), ("test", "test"))
    for part in PARTS
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
    """Where a task's rows are. A column has several names where the files of its splits disagree."""

    folders: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]  # the hub's name -> names in the header
    headless: tuple[str, ...] = ()  # names of the columns of train and validation if they have no header
    drop_short: bool = False  # the release has rows torn by a line break, which the hub's version leaves out
    # split -> file names, where STEMS has none
    stems: dict[str, tuple[str, ...]] = field(default_factory=dict)


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


def exists(task: TaskConfig, root: Path) -> bool:
    """Return whether `root` holds official files of the task."""
    layout = LAYOUTS.get(_key(task))
    return layout is not None and bool(_present(layout, root))


def _present(layout: Layout, root: Path) -> list[Path]:
    """Return the text files of the task's folders, without hidden files of a Mac or an editor."""
    paths = (path for folder in layout.folders for path in (root / folder).rglob("*.t[sx][vt]"))
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


def files(task: TaskConfig, root: Path, split: str, language: str | None, shown: str) -> list[Path]:
    """Return the files that hold the split; raises MissingData, which lists the files that exist."""
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
    raise MissingData(
        f"data.root ({root}) has no {looked} for {shown}: "
        f"{'there are ' + ', '.join(there) if there else 'nothing of this task is there'}; "
        f"the official splits are {', '.join(task.official_rows or STEMS)}."
    )


def _mrpc_files(folder: Path, split: str) -> list[Path]:
    """Return Microsoft's file and, for train and validation, the ids that GLUE set aside for validation."""
    if split == "test":
        return [folder / MRPC_SOURCE[split]]
    ids = folder / "mrpc_dev_ids.tsv"
    return [folder / MRPC_SOURCE[split], ids if ids.is_file() else folder / "dev_ids.tsv"]


def read(task: TaskConfig, root: Path, split: str, language: str | None, shown: str) -> pa.Table:
    """Return the split with text columns, label (the file's words; -1 where it has none) and idx."""
    import pyarrow.compute as pc  # takes a tenth of a second, and only this source needs it

    layout, paths = layout_of(task), files(task, root, split, language, shown)
    headless = layout.headless if split != "test" else ()
    table = _lines(paths[0], headless, layout.drop_short)
    if len(paths) > 1:
        table = _mrpc_rows(paths, table, split, shown)

    # Keep the rows of the language, and drop torn rows.
    if "language" in table.column_names:
        table = table.filter(pc.equal(_column(paths[0], table, ("language",), shown), language))
    if layout.drop_short and layout.columns["label"][0] in table.column_names:
        table = table.filter(pc.not_equal(_column(paths[0], table, layout.columns["label"], shown), ""))

    # Rename the columns as the hub does.
    columns = {
        name: _column(paths[0], table, aliases, shown)
        for name, aliases in layout.columns.items()
        if name != "label" or {*aliases} & {*table.column_names}
    }
    if "label" in columns:
        # XNLI-MT has another word.
        columns["label"] = pc.replace_substring(columns["label"], "contradictory", "contradiction")
    else:
        columns["label"] = pa.array(np.full(table.num_rows, -1))
    columns["idx"] = table["idx"]
    return pa.table(columns | {name: table[name] for name in task.groups if name in table.column_names})


def _mrpc_rows(paths: list[Path], table: pa.Table, split: str, shown: str) -> pa.Table:
    """Return MRPC's rows of a split. Train and validation share a file; ids of the two sentences separate them."""
    import pyarrow.compute as pc

    ids = ("#1 ID", "#2 ID")
    rows, held_out = (
        pc.binary_join_element_wise(*(_column(path, part, (name,), shown) for name in ids), " ")
        for path, part in ((paths[0], table), (paths[1], _lines(paths[1], ids, drop_short=False)))
    )
    mask = pc.is_in(rows, value_set=held_out.combine_chunks())
    return table.filter(mask if split == "validation" else pc.invert(mask))


def _column(path: Path, table: pa.Table, names: tuple[str, ...], shown: str) -> pa.ChunkedArray:
    """Return the column under the first of its names in the header; raises DataError where it is missing or doubled."""
    header = table.drop_columns("idx").column_names
    here, listed = next((name for name in names if name in header), None), ", ".join(header)[:200]
    if here and header.count(here) == 1:
        return table[here]
    if here:
        raise DataError(
            f"{path} has more than one column {here} for {shown}: its header is {listed}; keep the right one."
        )
    cause = "is its first line a header?"
    if len(header) == 1:
        cause = "no tab separates the columns; save it with tabs."
    elif any(name.strip("'\"") in names for name in header):
        cause = "the names are in quotes; save it without quotes."
    raise DataError(f"{path} has no column {' or '.join(names)} for {shown}: it has {listed}: {cause}")


def _lines(path: Path, names: tuple[str, ...], drop_short: bool) -> pa.Table:
    """Return the file as strings, with idx = the row's number in the file; `names` are for a file without a header.

    Raises DataError for a row with another number of fields than the header, as a tab inside a text would shift the
    columns. With `drop_short`, rows with too few fields are left out.
    """
    from pyarrow import csv

    wrong: list[csv.InvalidRow] = []

    def invalid(row: csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    header, with_header = _header(path, names)
    try:
        table = csv.read_csv(
            path,
            csv.ReadOptions(
                use_threads=False, column_names=header, skip_rows=int(with_header), block_size=1 << 24
            ),
            csv.ParseOptions(
                delimiter="\t", quote_char=False, double_quote=False, invalid_row_handler=invalid
            ),
            csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=[name for name in header if "parse" not in name and name != "idx"],
            ),
        )
    except pa.ArrowException as error:
        raise DataError(
            f"{path} cannot be read as UTF-8 text with tabs: {_undecodable(path) or str(error).splitlines()[0]}."
        ) from error
    bad = [row for row in wrong if not (drop_short and row.actual_columns < row.expected_columns)]
    if bad:
        cause = "a tab within a text, or a half-downloaded file: get the file again"
        if re.search(rb"\r(?!\n)", path.read_bytes()):
            cause = "a carriage return within a text ends a line: take it out"
        raise DataError(
            f"{path}: {len(bad)} rows have a wrong number of fields, first row {bad[0].number} ('{bad[0].text[:60]}') "
            f"with {bad[0].actual_columns} in place of {bad[0].expected_columns}: {cause}."
        )
    if wrong:
        log.info("%s: %d torn rows are left out, as the hub's version does.", path, len(wrong))
    numbers = np.arange(table.num_rows + len(wrong))
    idx = np.delete(numbers, [row.number - 2 for row in wrong])  # row 1 is the header
    return table.append_column("idx", pa.array(idx, pa.int32()))


def _header(path: Path, names: tuple[str, ...]) -> tuple[list[str], bool]:
    """Return the columns' names, and whether the first line holds them; raises DataError for a file in UTF-16.

    A file that should have no header has one nevertheless if its first line holds two of the `names`, as in some
    copies of CoLA.
    """
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(200):
                raise DataError(f"{path} is in UTF-16 or no text at all: save it as UTF-8.")
        with path.open(encoding="utf-8-sig", errors="replace") as text:
            first = text.readline().rstrip("\n").split("\t")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its rights.") from error
    if names and len({*names} & {*first}) < 2:
        return [*names], False
    return first, True


def _undecodable(path: Path) -> str | None:
    """Return where the file is not UTF-8, or None for UTF-8."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"line {line} has the byte 0x{content[error.start]:02x}, as in Latin-1 or Windows-1252; save it as UTF-8"
    return None
