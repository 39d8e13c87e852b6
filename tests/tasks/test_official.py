"""The official TSV files have the same rows as parquet, and a message names every fault."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import DataError
from bench.settings.schema import DataConfig
from bench.tasks.data import Rows, data_identity, load_split, resolve_source
from bench.tasks.specs import read_task

Row = dict[str, Any]
Cells = Callable[[int, Row, str], list[Any]]  # place in the file, row, label as the file writes it -> fields


def lines(path: Path, header: str, rows: list[list[Any]], *, start: bytes = b"", end: str = "\n") -> Path:
    """Write one line a row, without quoting, as the official files are."""
    text = [header.replace(" ", "\t").replace("_", " ") if header else None]
    text += ["\t".join(map(str, row)) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + "".join(line + end for line in text if line is not None).encode())
    return path


# Header of the labelled and of the unlabelled files ('_' for a blank), and the fields of a row.
PAIR: Cells = lambda n, r, y: [n, r["sentence1"], r["sentence2"], y]  # noqa: E731
MNLI = (
    "index promptID pairID genre sentence1\x1fbinary\x1fparse sentence2\x1fbinary\x1fparse sentence1\x1fparse "
    "sentence2\x1fparse sentence1 sentence2"
)
LAYOUTS: dict[str, tuple[str, str, str, Cells]] = {
    "cola": (
        "CoLA",
        "",
        "index sentence",
        lambda n, r, y: ["gj04", y, "", r["sentence"]] if y else [n, r["sentence"]],
    ),
    "sst2": (
        "SST-2",
        "sentence label",
        "index sentence",
        lambda n, r, y: [r["sentence"], y] if y else [n, r["sentence"]],
    ),
    "mrpc": (
        "MRPC",
        "Quality #1_ID #2_ID #1_String #2_String",
        "index #1_ID #2_ID #1_String #2_String",
        lambda n, r, y: [y or n, 7 * n, 7 * n + 1, r["sentence1"], r["sentence2"]],
    ),
    "stsb": (
        "STS-B",
        "index genre filename year old\x1findex source1 source2 sentence1 sentence2 score",
        "index genre filename year old\x1findex source1 source2 sentence1 sentence2",
        lambda n, r, y: [n, "g", "f", 1, n, "none", "none", r["sentence1"], r["sentence2"], *[y] * bool(y)],
    ),
    "qqp": (
        "QQP",
        "id qid1 qid2 question1 question2 is\x1fduplicate",
        "id question1 question2",
        lambda n, r, y: [n, *[n, n] * bool(y), r["question1"], r["question2"], *[y] * bool(y)],
    ),
    "mnli": (
        "MNLI",
        MNLI + " label1 gold\x1flabel",
        MNLI,
        lambda n, r, y: [
            n,
            n,
            n,
            "fiction",
            *["( a )"] * 4,
            r["premise"],
            r["hypothesis"],
            *[y, y] * bool(y),
        ],
    ),
    "qnli": (
        "QNLI",
        "index question sentence label",
        "index question sentence",
        lambda n, r, y: [n, r["question"], r["sentence"], *[y] * bool(y)],
    ),
    "rte": (
        "RTE",
        "index sentence1 sentence2 label",
        "index sentence1 sentence2",
        lambda n, r, y: PAIR(n, r, y) if y else PAIR(n, r, y)[:3],
    ),
    "wnli": (
        "WNLI",
        "index sentence1 sentence2 label",
        "index sentence1 sentence2",
        lambda n, r, y: PAIR(n, r, y) if y else PAIR(n, r, y)[:3],
    ),
    "ax": ("AX", "", "index sentence1 sentence2", lambda n, r, y: [n, r["premise"], r["hypothesis"]]),
}
WORDS = {"mnli", "qnli", "rte"}  # their files hold the label's word, the others its code


def official_file(root: Path, name: str, split: str, rows: list[Row]) -> Path:
    """Write a split as the GLUE zip has it."""
    folder, labelled, unlabelled, cells = LAYOUTS[name]
    names = read_task(name).labels or []

    def word(label: float) -> str:
        if label == -1 or split.startswith("test"):
            return ""
        return names[int(label)] if name in WORDS else f"{label:.9g}" if name == "stsb" else str(label)

    stem = "AX" if name == "ax" else split.replace("validation", "dev")
    header = unlabelled if split.startswith("test") else labelled
    path = lines(
        root / folder / f"{stem}.tsv", header, [cells(n, r, word(r["label"])) for n, r in enumerate(rows)]
    )
    path.write_bytes(path.read_bytes().replace(b"\x1f", b"_"))
    return path


def assert_same(left: Rows, right: Rows, columns: list[str]) -> None:
    one, other = left.table.to_pydict(), right.table.to_pydict()
    for column in columns:
        assert one[column] == other[column], column


SPLITS = [
    ("cola", "train"),
    ("cola", "validation"),
    ("cola", "test"),
    ("sst2", "validation"),
    ("sst2", "test"),
    ("mrpc", "train"),
    ("stsb", "train"),
    ("stsb", "test"),
    ("qqp", "train_subset"),
    ("mnli", "validation_matched"),
    ("qnli", "validation"),
    ("qnli", "test"),
    ("rte", "train"),
    ("rte", "test"),
    ("wnli", "train"),
    ("ax", "test"),
]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_glue_files_read_as_parquet_row_by_row(
    tmp_path: Path, real: DataConfig, name: str, split: str
) -> None:
    task = read_task(name)
    rows = load_split(dataclasses.replace(task, splits={"train": split}), real, "train", labels=False)
    official = split.removesuffix("_subset")
    official_file(tmp_path, name, official, rows.table.to_pylist())
    task = dataclasses.replace(task, splits={"train": official}, official_rows={})
    data = DataConfig(root=str(tmp_path))
    assert resolve_source(task, data) == "official"
    # A random subset, and MRPC's train split, keep the places of the whole file: idx is then not the row's number.
    ordered = list(rows["idx"]) == list(range(len(rows)))
    assert_same(
        load_split(task, data, "train", labels=False), rows, [*task.columns, "label", *["idx"] * ordered]
    )


def test_mrpc_as_microsoft_publishes_it(tmp_path: Path, real: DataConfig) -> None:
    """GLUE's train and validation splits are one file, separated by a list of ids; idx counts over both."""
    task, data = read_task("mrpc"), DataConfig(root=str(tmp_path))
    parts = {role: load_split(task, real, role) for role in ("train", "validation", "test")}
    both = [(r, role) for role in ("train", "validation") for r in parts[role].table.to_pylist()]
    both.sort(key=lambda pair: pair[0]["idx"])
    cells, header = LAYOUTS["mrpc"][3], LAYOUTS["mrpc"][1]
    lines(
        tmp_path / "MRPC/msr_paraphrase_train.txt",
        header,
        [cells(n, r, str(r["label"])) for n, (r, _) in enumerate(both)],
        start=b"\xef\xbb\xbf",
        end="\r\n",
    )
    lines(
        tmp_path / "MRPC/msr_paraphrase_test.txt",
        header,
        [cells(n, r, str(r["label"])) for n, r in enumerate(parts["test"].table.to_pylist())],
        start=b"\xef\xbb\xbf",
        end="\r\n",
    )
    lines(
        tmp_path / "MRPC/mrpc_dev_ids.tsv",
        "",
        [[7 * n, 7 * n + 1] for n, (_, role) in enumerate(both) if role == "validation"],
    )
    for role, rows in parts.items():
        assert_same(load_split(task, data, role), rows, [*task.columns, "label", "idx"])


def test_xnli_files_read_as_parquet_row_by_row(tmp_path: Path, real: DataConfig) -> None:
    task, data = read_task("xnli"), DataConfig(root=str(tmp_path))
    languages, names = ["en", "sw", "zh"], task.labels or []
    rows = {language: load_split(task, real, "validation", language) for language in languages}
    listed = {language: rows[language].table.to_pylist() for language in languages}
    header = "language gold\x1flabel sentence1\x1fparse sentence1 sentence2 promptID match"
    path = lines(
        tmp_path / "XNLI-1.0/xnli.dev.tsv",
        header,
        [
            [language, names[r["label"]], "( a )", r["premise"], r["hypothesis"], n, "True"]
            for n in range(len(rows["en"]))
            for language in languages
            for r in [listed[language][n]]
        ],
    )
    path.write_bytes(path.read_bytes().replace(b"\x1f", b"_"))
    for language in languages:
        assert_same(
            load_split(task, data, "validation", language), rows[language], ["premise", "hypothesis", "label"]
        )
    word = {"contradiction": "contradictory"}
    lines(
        tmp_path / "XNLI-MT-1.0/multinli/multinli.train.sw.tsv",
        "premise hypo label",
        [
            [r["premise"], r["hypothesis"], word.get(names[r["label"]], names[r["label"]])]
            for r in listed["sw"]
        ],
    )
    task = dataclasses.replace(
        task, train_language="sw", splits=task.splits | {"train": "train"}, official_rows={}
    )
    assert_same(load_split(task, data, "train"), rows["sw"], ["premise", "hypothesis", "label"])


def test_quotes_are_text_and_lines_are_rows(tmp_path: Path) -> None:
    task, data = dataclasses.replace(read_task("rte"), official_rows={}), DataConfig(root=str(tmp_path))
    texts = ['"opened, never closed', 'a ""b""', "it's", 'ends with "', " spaces ", "null", "NA"]
    lines(
        tmp_path / "RTE/train.tsv",
        LAYOUTS["rte"][1],
        [[n, t, "x", "entailment"] for n, t in enumerate(texts)],
    )
    rows = load_split(task, data, "train")
    assert rows["sentence1"] == texts and set(rows["label"]) == {0} and rows["idx"] == list(range(len(texts)))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            [1, "a\tb", "x", "entailment"],
            "1 rows have a wrong number of fields, first row 3.*with 5 in place of 4",
        ),
        ([1, "a", "x"], "3 in place of 4.*half-downloaded"),
        ([1, "a", "x", "maybe"], "not one of entailment, not_entailment.*maybe"),
        ([1, "a", "x", "2"], r"task\.labels allows 0 to 1"),
        ([1, "a", "x", ""], "not one of entailment"),
    ],
)
def test_broken_lines_are_refused(tmp_path: Path, row: list[Any], said: str) -> None:
    task = dataclasses.replace(read_task("rte"), official_rows={})
    good = [0, "a", "b", "entailment"]
    lines(tmp_path / "RTE/train.tsv", LAYOUTS["rte"][1], [good, row, good])
    with pytest.raises(DataError, match=said):
        load_split(task, DataConfig(root=str(tmp_path)), "train")


def test_qqp_leaves_out_torn_rows_as_the_hub_does_and_keeps_the_others_places(tmp_path: Path) -> None:
    """`nyu-mll/glue` skips rows without all fields, and counts them in idx."""
    rows = [
        [0, 1, 2, "a", "b", 1],
        [1, 5, 6, "c", "d", ""],
        [2, 3, 4, "torn"],
        ["rest", "of it", 0],
        [4, 7, 8, "e", "f", 0],
        [5, 9, 10, "g", "h", 0],
    ]
    path = lines(tmp_path / "QQP/train.tsv", "id qid1 qid2 question1 question2 is\x1fduplicate", rows)
    path.write_bytes(path.read_bytes().replace(b"\x1f", b"_"))
    task = dataclasses.replace(read_task("qqp"), official_rows={})
    assert load_split(task, DataConfig(root=str(tmp_path)), "train").table.to_pydict() == {
        "question1": ["a", "e", "g"],
        "question2": ["b", "f", "h"],
        "label": [1, 0, 0],
        "idx": [0, 4, 5],
    }


def test_full_diagnostics_have_labels_and_categories(tmp_path: Path) -> None:
    lines(tmp_path / "AX/AX.tsv", "index sentence1 sentence2", [[0, "p", "h"]])
    lines(
        tmp_path / "diagnostic/diagnostic-full.tsv",
        "Lexical_Semantics Predicate-Argument_Structure Logic Knowledge Domain Premise Hypothesis Label",
        [["Lexical entailment", "", "Negation;Disjunction", "", "News", "p", "h", "contradiction"]],
    )
    task = dataclasses.replace(read_task("ax"), official_rows={})
    rows = load_split(task, DataConfig(root=str(tmp_path)), "test")
    assert rows.table.to_pylist()[0] == {
        "premise": "p",
        "hypothesis": "h",
        "label": 2,
        "idx": 0,
        "Domain": "News",
        "Knowledge": "",
        "Lexical Semantics": "Lexical entailment",
        "Logic": "Negation;Disjunction",
        "Predicate-Argument Structure": "",
    }


def test_missing_and_undecodable_files_are_named(tmp_path: Path) -> None:
    task, data = read_task("rte"), DataConfig(root=str(tmp_path), source="official")
    path = lines(tmp_path / "RTE/dev.tsv", LAYOUTS["rte"][1], [[0, "a", "b", "entailment"]])
    with pytest.raises(DataError, match=r"has no RTE/train\.tsv.*there are RTE/dev\.tsv"):
        data_identity(task, data, ["train", "validation"])
    with pytest.raises(DataError, match=r"an official split.*the official splits are train, validation"):
        load_split(dataclasses.replace(task, splits={"train": "train_subset"}), data, "train")
    path.write_bytes(path.read_bytes() + b"1\t\xff\tb\tentailment\n")
    with pytest.raises(DataError, match=r"dev\.tsv cannot be read as UTF-8"):
        load_split(task, data, "validation")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"dev\.tsv cannot be read.*[Ee]mpty"):
        load_split(task, data, "validation")
    lines(path, "index sentence1 label", [[0, "a", "entailment"]])
    with pytest.raises(DataError, match=r"no column sentence2.*it has index, sentence1, label"):
        load_split(task, data, "validation")
    with pytest.raises(DataError, match="knows no files of mine"):
        load_split(dataclasses.replace(task, name="mine", hub_config=None), data, "validation")
