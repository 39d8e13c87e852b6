"""Packed predictions: every metric comes out of them, the rows' order only with the data, and they are small."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from bench import store
from bench.errors import BenchError

NAME = "minilm/mrpc/dense/s0"


def drawn(classes: int | None, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions as runs store them, and labels as data sets have them."""
    rng = np.random.default_rng(seed)
    if classes is None:
        labels = np.round(rng.uniform(0, 5, rows), 1).astype(np.float32)
        return (labels + rng.normal(0, 1, rows)).astype(np.float32), labels
    labels = rng.integers(0, classes, rows)
    return np.where(rng.random(rows) < 0.8, labels, 0).astype(np.int8), labels


@pytest.mark.parametrize("classes", [2, 3, None])
def test_what_was_packed_comes_back_in_the_rows_order_with_the_labels(
    classes: int | None, tmp_path: Path
) -> None:
    folder = store.predictions_folder(tmp_path, NAME, "a" * 12)
    predictions, labels = drawn(classes)
    hidden, _ = drawn(classes, seed=1)
    store.write_predictions(folder, "validation/en", predictions)
    store.write_predictions(folder, "test", hidden)
    path, gold = store.packed_file(tmp_path, NAME), {"validation/en": labels}
    store.write_packed(path, store.packed(folder, "a" * 12, gold))

    store.unpack(tmp_path, NAME, "a" * 12, gold)
    elsewhere = tmp_path / "clone"
    store.packed_file(elsewhere, NAME).parent.mkdir(parents=True)
    store.packed_file(elsewhere, NAME).write_bytes(path.read_bytes())
    store.unpack(elsewhere, NAME, "a" * 12, gold)
    again = store.predictions_folder(elsewhere, NAME, "a" * 12)
    assert np.array_equal(store.read_predictions(again, "validation/en"), predictions)
    assert np.array_equal(store.read_predictions(again, "test"), hidden)
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_metrics_come_out_without_the_data_and_no_row_s_label_does(tmp_path: Path) -> None:
    path = store.packed_file(tmp_path, NAME)
    (classes, labels), (numbers, scores) = drawn(2), drawn(None)
    folder = tmp_path / "run"
    store.write_predictions(folder, "validation", classes)
    store.write_packed(path, store.packed(folder, "b" * 12, {"validation": labels}))
    [line] = store.read_packed(path, "b" * 12)
    assert line.labels is not None and np.array_equal(line.labels, np.sort(labels))
    for metric in (f1_score, matthews_corrcoef):
        assert metric(line.labels, line.predictions) == pytest.approx(metric(labels, classes))
    store.write_predictions(folder, "validation", numbers)
    store.write_packed(path, store.packed(folder, "b" * 12, {"validation": scores}))
    [line] = store.read_packed(path)
    assert spearmanr(line.labels, line.predictions).statistic == pytest.approx(
        spearmanr(scores, numbers).statistic
    )


def test_a_file_of_many_runs_is_smaller_than_a_bit_a_prediction_and_the_same_each_time(
    tmp_path: Path,
) -> None:
    lines = []
    for run in range(100):
        predictions, labels = drawn(2, 1000, seed=run)
        order = np.argsort(labels, kind="stable")
        lines.append(
            store.Packed(f"{run:012x}", "validation", predictions[order], labels[order].astype(np.int8))
        )
    path = store.packed_file(tmp_path, NAME)
    store.write_packed(path, lines)
    content = path.read_bytes()
    assert len(content) < 100 * 1000 / 8
    store.write_packed(path, reversed(lines))
    assert path.read_bytes() == content
    assert [line.run_id for line in store.read_packed(path, f"{7:012x}")] == [f"{7:012x}"]


def test_other_labels_and_damaged_files_are_refused(tmp_path: Path) -> None:
    folder, path = tmp_path / "run", store.packed_file(tmp_path, NAME)
    predictions, labels = drawn(2)
    store.write_predictions(folder, "validation", predictions)
    store.write_packed(path, store.packed(folder, "c" * 12, {"validation": labels}))
    with pytest.raises(BenchError, match="labels of validation"):
        store.unpack(tmp_path, NAME, "c" * 12, {"validation": 1 - labels})
    with pytest.raises(BenchError, match="labels of validation"):
        store.unpack(tmp_path, NAME, "c" * 12, {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BenchError, match="cannot be read"):
        store.read_packed(path)
    assert store.read_packed(path.with_name("other.parquet")) == []
