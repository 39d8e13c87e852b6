"""Splits are read unchanged, and a message names every fault."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.errors import DataError
from bench.settings.schema import DataConfig, TaskConfig
from bench.tasks.data import Rows, data_identity, languages_of, load_split, resolve_source, split_facts
from bench.tasks.specs import read_task
from tests.tasks.rows import write_split

GOOD: dict[str, list[Any]] = {"a": ["x", "y\ty", 'say "z"', "ü\n"], "b": list("1234"), "label": [0, 1, 1, 0]}


def loading(
    tmp_path: Path,
    task: TaskConfig,
    columns: dict[str, list[Any]] | None = None,
    names: list[str] | None = None,
    **kwargs: Any,
) -> Rows:
    if columns is not None:
        write_split(tmp_path, task, "train", columns, names)
    return load_split(task, DataConfig(root=str(tmp_path)), "train", **kwargs)


def test_parquet_rows_come_back_unchanged(tmp_path: Path, pair_task: TaskConfig) -> None:
    rows = loading(tmp_path, pair_task, GOOD | {"idx": [4, 5, 6, 7], "more": list("pqrs")}, ["no", "yes"])
    assert rows.table.to_pydict() == GOOD | {"idx": [4, 5, 6, 7]}
    assert rows.table.schema.field("label").type == pa.int64()


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ("train[50%:]", [2, 3]),
        ("train[:1]+train[-1:]", [0, 3]),
        ("train[1:3]", [1, 2]),
        ("train", [0, 1, 2, 3]),
    ],
)
def test_slices_are_those_of_datasets(
    tmp_path: Path, pair_task: TaskConfig, spec: str, kept: list[int]
) -> None:
    task = dataclasses.replace(pair_task, splits={"train": spec})
    path = write_split(tmp_path, task, "train", GOOD)
    rows = loading(tmp_path, task)
    assert rows["a"] == [GOOD["a"][row] for row in kept]
    reference = datasets.load_dataset(
        "parquet", data_files={"train": str(path)}, split=spec, cache_dir=str(tmp_path / "cache")
    )
    assert rows["a"] == reference["a"]
    facts = split_facts(task, DataConfig(root=str(tmp_path)), {"train": rows})
    assert facts == {"train": {"split": spec, "rows": len(kept), "official_rows": 4}}


@pytest.mark.parametrize(
    ("change", "names", "said"),
    [
        ({"label": [0, 1, 2, 0]}, None, ["task.labels", "from 0 to 2"]),
        ({"label": [0, -1, 1, 0]}, None, ["hides 1 of its 4 labels", "task.splits.train"]),
        ({"label": [-1] * 4}, None, ["hides 4 of its 4 labels", "task.evaluate"]),
        ({"label": [0, None, 1, 0]}, None, ["task.label_column", "1 labels", "empty or NaN"]),
        ({"label": [0.5, 1, 1, 0]}, None, ["task.label_column", "double"]),
        ({}, ["nope", "yes"], ["task.labels (no, yes)", "nope, yes", "conf/task/pairs.yaml"]),
        ({"b": [1, 2, 3, 4]}, None, ["task.columns", "'b'", "int64"]),
        ({"a": ["x", None, "y", "z"]}, None, ["task.columns", "'a'", "1 rows"]),
        ({"a": [], "b": [], "label": []}, None, ["no rows"]),
    ],
)
def test_wrong_content_is_refused(
    tmp_path: Path,
    pair_task: TaskConfig,
    change: dict[str, list[Any]],
    names: list[str] | None,
    said: list[str],
) -> None:
    with pytest.raises(DataError) as error:
        loading(tmp_path, pair_task, GOOD | change, names)
    assert all(part in str(error.value) for part in said), error.value


@pytest.mark.parametrize(("column", "key"), [("b", "task.columns"), ("label", "task.label_column")])
def test_missing_column_is_named_with_those_that_are_there(
    tmp_path: Path, pair_task: TaskConfig, column: str, key: str
) -> None:
    columns = {name: values for name, values in GOOD.items() if name != column}
    with pytest.raises(DataError, match=rf"{key}: .* no column '{column}'; it has {', '.join(columns)}"):
        loading(tmp_path, pair_task, columns)


def test_hidden_labels_are_read_where_no_labels_are_asked_for(tmp_path: Path, pair_task: TaskConfig) -> None:
    assert loading(tmp_path, pair_task, GOOD | {"label": [-1] * 4}, labels=False)["label"] == [-1] * 4
    without = {name: GOOD[name] for name in ("a", "b")}
    assert loading(tmp_path, pair_task, without, labels=False).table.to_pydict() == without


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0, 2.5, 5.5, 1.0], "0.0 to 5.0.*to 5.5"),
        ([0.0, float("nan"), 5.0, 1.0], "1 labels .* NaN"),
        ([-1.0, -1.0, -1.0, -1.0], "hides 4 of its 4"),
    ],
)
def test_regression_labels_are_checked(
    tmp_path: Path, pair_task: TaskConfig, labels: list[float], said: str
) -> None:
    task = dataclasses.replace(pair_task, labels=None, label_range=[0.0, 5.0])
    assert loading(tmp_path, task, GOOD | {"label": [0.0, 2.5, 5.0, 1.0]})["label"] == [0.0, 2.5, 5.0, 1.0]
    with pytest.raises(DataError, match=said):
        loading(tmp_path, task, GOOD | {"label": labels})


@pytest.mark.parametrize(
    ("role", "spec", "said"),
    [
        (
            "train",
            "train",
            "the data have test, train_subset; select one with task.splits.train=train_subset.",
        ),
        ("validation", "validation", "'task.splits.validation=train_subset[90%:]'"),
        ("other", "other", "leave 'other' out of task.evaluate"),
        ("train", "train_subset[9:", "task.splits.train (train_subset[9:) is not a split or a slice"),
        ("train", "train_subset[:900%]", "is not a split or a slice"),
        ("train", "train_subset[4:]", "selects no row"),
        ("trian", "", "Unknown role 'trian'. Did you mean 'train'?"),
    ],
)
def test_unknown_splits_say_how_to_go_on(
    tmp_path: Path, pair_task: TaskConfig, role: str, spec: str, said: str
) -> None:
    for split in ("train_subset", "test"):
        write_split(tmp_path, pair_task, split, GOOD)
    task = dataclasses.replace(pair_task, splits=pair_task.splits | ({role: spec} if spec else {}))
    with pytest.raises(DataError) as error:
        load_split(task, DataConfig(root=str(tmp_path)), role)
    assert said in str(error.value)


def test_damaged_files_are_told_apart_from_good_ones(tmp_path: Path, pair_task: TaskConfig) -> None:
    path = write_split(tmp_path, pair_task, "train", GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="half-downloaded"):
        loading(tmp_path, pair_task)
    broken = pa.array([b"x", b"\xff", b"y", b"z"]).view(pa.binary())
    table = pa.table(GOOD).set_column(0, "a", pa.Array.from_buffers(pa.string(), 4, broken.buffers()))
    pq.write_table(table, path)
    with pytest.raises(DataError, match="UTF8"):
        loading(tmp_path, pair_task)


def test_other_row_count_than_the_official_one_is_said_with_both_numbers(
    tmp_path: Path, pair_task: TaskConfig, caplog: pytest.LogCaptureFixture
) -> None:
    short = {name: values[:3] for name, values in GOOD.items()}
    with caplog.at_level(logging.WARNING, "bench"):
        rows = loading(tmp_path, pair_task, short)
    assert "has 3 rows; the official release has 4" in caplog.text
    assert split_facts(pair_task, DataConfig(root=str(tmp_path)), {"train": rows})["train"] == {
        "split": "train",
        "rows": 3,
        "official_rows": 4,
    }


def test_source_is_chosen_by_what_is_there(tmp_path: Path) -> None:
    cola, lexical = read_task("cola"), TaskConfig(name="lexical_sentiment", suite="lexical")
    root = DataConfig(root=str(tmp_path))
    assert [
        resolve_source(cola, DataConfig()),
        resolve_source(cola, root),
        resolve_source(lexical, root),
    ] == ["hub", "parquet", "generated"]
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA" / "dev.tsv").write_text("x")
    assert resolve_source(cola, root) == "official"
    assert resolve_source(read_task("rte"), root) == "parquet"
    with pytest.raises(DataError, match="Did you mean 'parquet'"):
        resolve_source(cola, DataConfig(source="parket"))
    with pytest.raises(DataError, match=r"data\.source=generated"):
        resolve_source(cola, DataConfig(source="generated"))
    for source, folder, said in [
        ("parquet", None, "data.root is not set"),
        ("parquet", "/nowhere", "/nowhere"),
    ]:
        with pytest.raises(DataError, match=said):
            load_split(cola, DataConfig(source=source, root=folder), "train")


def test_generated_rows_are_those_of_the_suite() -> None:
    from bench.tasks.lexical import generate

    task = TaskConfig(
        name="lexical_sentiment",
        suite="lexical",
        columns=["sentence"],
        labels=["negative", "positive"],
        splits={"train": "train"},
    )
    rows = load_split(task, DataConfig(), "train")
    expected = generate(task.name)["train"]
    assert rows["label"] == [row["label"] for row in expected]
    assert rows["sentence"] == [row["sentence"] for row in expected]
    assert len(data_identity(task, DataConfig(), ["train"])) == 64


def test_hub_out_of_reach_names_the_sources_that_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        load_split(
            dataclasses.replace(read_task("cola"), hub="nobody/nothing"), DataConfig(source="hub"), "train"
        )
    assert all(
        part in str(error.value) for part in ("nobody/nothing", "data.root", "parquet", "official", "fetch")
    )
    with pytest.raises(DataError, match=r"task\.revision"):
        load_split(dataclasses.replace(read_task("cola"), revision=None), DataConfig(source="hub"), "train")


def test_identity_follows_the_content(tmp_path: Path, pair_task: TaskConfig) -> None:
    data = DataConfig(root=str(tmp_path))
    path = write_split(tmp_path, pair_task, "train", GOOD)
    before = data_identity(pair_task, data, ["train"])
    assert before == data_identity(pair_task, data, ["train"])
    moved = tmp_path / "elsewhere"
    write_split(moved, pair_task, "train", GOOD)
    assert data_identity(pair_task, DataConfig(root=str(moved)), ["train"]) == before
    first = load_split(pair_task, data, "train").fingerprint
    write_split(tmp_path, pair_task, "train", GOOD | {"label": [1, 1, 1, 0]})
    assert path.is_file() and data_identity(pair_task, data, ["train"]) != before
    assert load_split(pair_task, data, "train").fingerprint != first
    with pytest.raises(DataError, match="validation"):
        data_identity(pair_task, data, ["train", "validation"])
    # The hub is offline, and no data was fetched.
    with pytest.raises(DataError, match="make fetch TASKS=cola"):
        data_identity(read_task("cola"), DataConfig(), ["train"])


def test_rows_of_another_task(tmp_path: Path) -> None:
    """XNLI trains on MNLI's rows, whose real name is what the record shows."""
    mnli, xnli = read_task("mnli"), read_task("xnli")
    columns = {"premise": ["p"] * 3, "hypothesis": list("abc"), "label": [0, 1, 2]}
    write_split(tmp_path, mnli, "train_subset", columns, mnli.labels)
    for language in ("en", "sw"):
        write_split(
            tmp_path,
            dataclasses.replace(xnli, hub_config=language),
            "test",
            columns | {"premise": [language] * 3},
            xnli.labels,
        )
    data = DataConfig(root=str(tmp_path))
    with pytest.raises(DataError, match=r"select one with task\.splits\.train=mnli:train_subset\."):
        load_split(xnli, data, "train")
    task = dataclasses.replace(
        xnli, splits=xnli.splits | {"train": "mnli:train_subset[1:]"}, languages=["en", "sw"]
    )
    train = load_split(task, data, "train")
    assert train["hypothesis"] == ["b", "c"]
    assert split_facts(task, data, {"train": train})["train"] == {
        "split": "mnli:train_subset[1:]",
        "rows": 2,
        "official_rows": None,
    }
    assert [load_split(task, data, "test", language)["premise"][0] for language in ("en", "sw", None)] == [
        "en",
        "sw",
        "en",
    ]
    assert languages_of(task, "test") == ["en", "sw"] and languages_of(task, "train") == ["en"]
    with pytest.raises(DataError, match=r"Unknown language 'sv'\. Did you mean 'sw'"):
        load_split(task, data, "test", "sv")
    before = data_identity(task, data, ["train", "test"])
    write_split(tmp_path, dataclasses.replace(xnli, hub_config="sw"), "test", columns, xnli.labels)
    assert data_identity(task, data, ["train", "test"]) != before
    with pytest.raises(DataError, match="mnli has other columns or labels than cola"):
        load_split(
            dataclasses.replace(read_task("cola"), splits={"train": "mnli:train_subset"}), data, "train"
        )


def test_real_files_hold_the_declared_rows_and_label_order(
    real: DataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Every official split at hand has its official count and the label order of its own metadata."""
    seen = 0
    for path in sorted(Path(str(real.root)).glob("glue/*/*.parquet")):
        task = read_task(path.parent.name)
        if path.stem in task.official_rows:
            rows = load_split(
                dataclasses.replace(task, splits={"train": path.stem}), real, "train", labels=False
            )
            assert len(rows) == task.official_rows[path.stem]
            block = json.loads(pq.read_schema(path).metadata[b"huggingface"])
            assert block["info"]["features"]["label"].get("names") == task.labels
            seen += 1
    xnli = read_task("xnli")
    for language in xnli.languages:
        assert len(load_split(xnli, real, "test", language)) == xnli.official_rows["test"]
    assert seen > 15 and not caplog.records


def test_rows_of_other_content_have_another_fingerprint() -> None:
    """Tokens are cached by it, so that a column that is other at its end only must tell."""
    rows = load_split(read_task("lexical_sentiment"), DataConfig(), "test").select_columns(["sentence"])
    first, other, again = (rows.add_column("label", [0] * (len(rows) - 1) + [last]) for last in (0, 1, 0))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (
        len(
            {
                rows.fingerprint,
                rows.select_columns([]).fingerprint,
                rows.select(np.arange(5)).fingerprint,
                first.fingerprint,
            }
        )
        == 4
    )
