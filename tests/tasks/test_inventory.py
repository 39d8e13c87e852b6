"""The rows that exist beside the official rows."""

from pathlib import Path

import datasets
import pytest

from bench.cli.main import main
from bench.settings.schema import DataConfig
from bench.tasks.inventory import inventory
from bench.tasks.specs import task_names


def test_found_missing_damaged_and_unofficial_splits_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "glue" / "rte"
    folder.mkdir(parents=True)
    columns = {"sentence1": ["a"] * 277, "sentence2": ["b"] * 277, "label": [0] * 277}
    datasets.Dataset.from_dict(columns).to_parquet(folder / "validation.parquet")
    datasets.Dataset.from_dict({key: values[:5] for key, values in columns.items()}).to_parquet(
        folder / "train.parquet"
    )
    datasets.Dataset.from_dict(columns).to_parquet(folder / "train_half.parquet")
    (folder / "test.parquet").write_bytes(b"PAR1 half a file")
    table = inventory(DataConfig(root=str(tmp_path)), ["rte"]).set_index("split")
    assert table.rows.to_dict() == {"train": "5", "validation": "277", "test": "", "train_half": "277"}
    assert table.official_rows.to_dict() == {
        "train": "2,490",
        "validation": "277",
        "test": "3,000",
        "train_half": "",
    }
    notes = table.note.to_dict()
    assert (notes["train"], notes["validation"], notes["train_half"]) == (
        "-2,485 rows",
        "",
        "not an official split",
    )
    assert "half-downloaded" in notes["test"]


def test_languages_are_counted(tmp_path: Path) -> None:
    for language in ("en", "sw"):
        (tmp_path / "xnli" / language).mkdir(parents=True)
        columns = {"premise": ["a"] * 5010, "hypothesis": ["b"] * 5010, "label": [0] * 5010}
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "xnli" / language / "test.parquet")
    table = inventory(DataConfig(root=str(tmp_path)), ["xnli"]).set_index("split")
    assert (table.languages["test"], table.rows["test"], table.note["test"]) == (
        "2 of 15",
        "5,010",
        "missing",
    )
    assert table.languages["validation"] == "0 of 15"


def test_generated_tasks_are_named_synthetic() -> None:
    table = inventory(DataConfig(), ["lexical_entailment"])
    assert set(table.note) == {"synthetic"}
    assert (table.rows == table.official_rows).all()


def test_printed_words_begin_and_numbers_end_below_their_heads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", f"data.root={tmp_path}"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    table = inventory(DataConfig(root=str(tmp_path)), task_names())
    assert len(lines) == len(table) > 20
    for line, row in zip(lines, table.itertuples(), strict=True):
        for name in ("task", "source", "split", "note"):
            assert line[head.index(name) :].startswith(getattr(row, name)), name
        end = head.index("official_rows") + len("official_rows")
        assert line[:end].endswith(row.official_rows.rjust(13))


def test_real_data_are_found(real: DataConfig) -> None:
    table = inventory(real, ["mrpc", "xnli"]).set_index(["task", "split"])
    assert table.rows["mrpc", "train"] == "3,668"
    assert table.languages["xnli", "test"] == "15 of 15"
