"""Odd columns are read where their meaning is clear; otherwise a sentence names the fault."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.errors import DataError
from bench.settings.schema import DataConfig
from bench.tasks.data import Rows, load_split
from bench.tasks.specs import read_task

TEXTS = ["one", "zwei ü", "三"]
RTE = dataclasses.replace(read_task("rte"), official_rows={})
STSB = dataclasses.replace(read_task("stsb"), official_rows={})
COLA = dataclasses.replace(read_task("cola"), official_rows={})


def parquet(tmp_path: Path, task: str, sentence1: Any, label: Any, **loading: Any) -> Rows:
    names, arrays = ["sentence1", "sentence2", "label"], [sentence1, pa.array(TEXTS), label]
    folder = tmp_path / "glue" / task
    folder.mkdir(parents=True)
    pq.write_table(pa.table(arrays, names=names), folder / "train.parquet")
    chosen = {"rte": RTE, "stsb": STSB}[task]
    return load_split(chosen, DataConfig(root=str(tmp_path)), "train", **loading)


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array([text.encode() for text in TEXTS]),
    ],
    ids=lambda texts: str(texts.type),
)
def test_every_way_to_store_text_gives_the_same_rows(tmp_path: Path, texts: pa.Array) -> None:
    rows = parquet(tmp_path, "rte", texts, pa.array([0, 1, 0]))
    plain = pa.table({"sentence1": TEXTS, "sentence2": TEXTS, "label": [0, 1, 0]})
    assert rows.table.equals(plain)


@pytest.mark.parametrize(
    ("task", "labels", "read"),
    [
        ("rte", pa.array([1, 0, 1], pa.uint8()), [1, 0, 1]),
        ("rte", pa.array([1.0, 0.0, 1.0]), [1, 0, 1]),
        ("rte", pa.array(["1", "0", "1"]), [1, 0, 1]),
        ("rte", pa.array(["not_entailment", "entailment", "not_entailment"]), [1, 0, 1]),
        ("rte", pa.array(["not_entailment", "entailment", "not_entailment"]).dictionary_encode(), [1, 0, 1]),
        ("rte", pa.array([1, 0, 1]).dictionary_encode(), [1, 0, 1]),
        ("stsb", pa.array([1, 0, 5]), [1.0, 0.0, 5.0]),
        ("stsb", pa.array(["1", "2.5", "5e0"]), [1.0, 2.5, 5.0]),
        ("stsb", pa.array([1.0, 2.5, 5.0], pa.float64()), [1.0, 2.5, 5.0]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_labels_are_read_by_name_or_by_code(
    tmp_path: Path, task: str, labels: pa.Array, read: list[Any]
) -> None:
    """Categories are numbered in the order in which they occur, so their own codes would swap the classes."""
    rows = parquet(tmp_path, task, pa.array(TEXTS), labels)
    assert rows["label"] == read
    assert rows.table.schema.field("label").type == (pa.int64() if task == "rte" else pa.float32())


@pytest.mark.parametrize(
    ("task", "texts", "labels", "said"),
    [
        ("rte", None, pa.array([True, False, True]), "bool, which does not say what is true: write one of entailment"),
        ("rte", None, pa.array(["entailment", "maybe", "1"]), "not one of entailment, not_entailment or a class code.*maybe"),
        ("rte", None, pa.array([0.0, float("nan"), 1.0]), "1 labels .* are empty or NaN"),
        ("rte", None, pa.array([None] * 3), "3 labels .* are empty or NaN"),
        ("rte", None, pa.array([0.5, 0.0, 1.0]), "double, and a row is not one of"),
        ("rte", None, pa.array([[0], [1], [0]]), "'label' .* is list<.*>, and a row is not"),
        ("rte", None, pa.array([{"value": 0}] * 3), "'label' .* is struct<.*>, and a row is not"),
        ("stsb", None, pa.array(["1", "two", "3"]), "not a number .*two"),
        ("rte", pa.array([{"text": text} for text in TEXTS]), None, "'sentence1' .* struct<text: string>, not text"),
        ("rte", pa.array([[text] for text in TEXTS]), None, "list<.*>, not text"),
        ("rte", pa.array([1, 2, 3]).dictionary_encode(), None, "int64, not text"),
        ("rte", pa.array(["a", None, "b"]).dictionary_encode(), None, "empty in 1 rows"),
        ("rte", pa.array([None] * 3), None, "empty in 3 rows"),
        ("rte", pa.array(["é".encode("latin-1")] * 3), None, "no UTF-8 text: write the file again as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_refused_in_one_sentence(
    tmp_path: Path, task: str, texts: pa.Array | None, labels: pa.Array | None, said: str
) -> None:
    texts, labels = (plain if given is None else given for given, plain in ((texts, pa.array(TEXTS)), (labels, pa.array([0, 1, 0]))))  # fmt: skip
    with pytest.raises(DataError, match=said) as error:
        parquet(tmp_path, task, texts, labels)
    assert "\n" not in str(error.value)


def test_labels_that_are_empty_throughout_are_hidden_ones(tmp_path: Path) -> None:
    rows = parquet(tmp_path, "rte", pa.array(TEXTS), pa.array([None] * 3, pa.float64()), labels=False)
    assert rows.column_names == ["sentence1", "sentence2"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32()])
def test_the_same_classes_in_another_order_are_read_by_their_names(tmp_path: Path, kind: pa.DataType) -> None:
    """The file's own description gives the names in the order of its codes."""
    described = b'{"info": {"features": {"label": {"names": ["not_entailment", "entailment"], "_type": "ClassLabel"}}}}'
    table = pa.table({"sentence1": TEXTS, "sentence2": TEXTS, "label": pa.array([0, 1, 1], kind)})
    (tmp_path / "glue/rte").mkdir(parents=True)
    pq.write_table(
        table.replace_schema_metadata({b"huggingface": described}), tmp_path / "glue/rte/train.parquet"
    )
    assert load_split(RTE, DataConfig(root=str(tmp_path)), "train")["label"] == [1, 0, 0]
    pq.write_table(
        table.replace_schema_metadata({b"huggingface": b"[{]"}), tmp_path / "glue/rte/train.parquet"
    )
    with pytest.raises(DataError, match="damaged description"):
        load_split(RTE, DataConfig(root=str(tmp_path)), "train")


def test_splits_that_store_the_same_columns_differently_are_joined(tmp_path: Path) -> None:
    folder = tmp_path / "glue/rte"
    folder.mkdir(parents=True)
    for split, kind, number in (("train", pa.string(), pa.int32()), ("more", pa.large_string(), pa.int64())):
        texts = pa.array(TEXTS, kind)
        columns = {
            "sentence1": texts,
            "sentence2": texts,
            "label": [0, 1, 0],
            "idx": pa.array([0, 1, 2], number),
        }
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    task = dataclasses.replace(RTE, splits={"train": "train+more"})
    assert load_split(task, DataConfig(root=str(tmp_path)), "train")["sentence1"] == TEXTS * 2


# The official files: one row a line, columns between tabs.
HEADER = ["index", "sentence1", "sentence2", "label"]
LINES = [["0", "one", "x", "entailment"], ["1", "zwei ü", "y", "not_entailment"]]


def tsv(
    tmp_path: Path, lines: list[list[str]], encoding: str = "utf-8", end: str = "\n", folder: str = "RTE"
) -> Path:
    path = tmp_path / folder / "train.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join("\t".join(line) + end for line in lines).encode(encoding))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_marks_and_line_ends_of_other_systems_change_no_row(tmp_path: Path, encoding: str, end: str) -> None:
    lines = [[*line, own] for line, own in zip([HEADER, *LINES], ["idx", "7", "8"], strict=True)]
    tsv(tmp_path, lines, encoding, end)  # with a column of our own name, as pandas exports it
    rows = load_split(RTE, DataConfig(root=str(tmp_path)), "train")
    assert rows.table.to_pydict() == {
        "sentence1": ["one", "zwei ü"], "sentence2": ["x", "y"], "label": [0, 1], "idx": [0, 1],
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", [[], [["source", "label", "star", "sentence"]]])
def test_cola_is_read_with_and_without_a_header(
    tmp_path: Path, header: list[list[str]], encoding: str
) -> None:
    tsv(
        tmp_path,
        [*header, ["gj04", "1", "", "It rains."], ["gj04", "0", "*", "Rains it"]],
        encoding,
        folder="CoLA",
    )
    rows = load_split(COLA, DataConfig(root=str(tmp_path)), "train")
    assert rows.table.to_pydict() == {"sentence": ["It rains.", "Rains it"], "label": [1, 0], "idx": [0, 1]}


TWICE = [["index", "sentence1", "sentence1", "sentence2", "label"], ["0", "a", "a", "b", "entailment"]]


@pytest.mark.parametrize(
    ("lines", "encoding", "said"),
    [
        (TWICE, "utf-8", "more than one column sentence1 .* index, sentence1, sentence1, sentence2, label"),
        ([HEADER, *LINES], "utf-16", "is in UTF-16 .* save it as UTF-8"),
        ([HEADER, *LINES], "utf-16-le", "is in UTF-16 .* save it as UTF-8"),
        ([HEADER, *LINES], "latin-1", "line 3 has the byte 0xfc, as in Latin-1 .* save it as UTF-8"),
        ([HEADER, ["0", "torn\rtext", "x", "entailment"]], "utf-8", "carriage return within a text ends a line"),
        ([HEADER, ["0", "a tab", "within", "x", "entailment"]], "utf-8", "a tab within a text"),
        ([[f'"{name}"' for name in HEADER], *LINES], "utf-8", "the names are in quotes"),
        ([[",".join(HEADER)], [",".join(LINES[0])]], "utf-8", "no tab separates the columns"),
        (LINES, "utf-8", "no column sentence1 .* is its first line a header"),
    ],
)  # fmt: skip
def test_the_true_cause_is_blamed(tmp_path: Path, lines: list[list[str]], encoding: str, said: str) -> None:
    tsv(tmp_path, lines, encoding)
    with pytest.raises(DataError, match=said) as error:
        load_split(RTE, DataConfig(root=str(tmp_path)), "train")
    assert "half-downloaded" not in str(error.value) or "tab" in said


def test_columns_that_occur_twice_are_refused_in_parquet_too(tmp_path: Path) -> None:
    (tmp_path / "glue/rte").mkdir(parents=True)
    names = ["sentence1", "sentence1", "sentence2", "label"]
    pq.write_table(
        pa.table([TEXTS, TEXTS, TEXTS, [0, 1, 0]], names=names), tmp_path / "glue/rte/train.parquet"
    )
    with pytest.raises(DataError, match="has 2 columns named 'sentence1'"):
        load_split(RTE, DataConfig(root=str(tmp_path)), "train")
