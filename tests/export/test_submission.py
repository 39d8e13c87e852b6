"""The submission zip, read back as the leaderboard reads it."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import store
from bench.errors import BenchError
from bench.export.submission import write_submission
from bench.runs.identity import Prepared
from bench.sweep.plan import make
from bench.tasks.specs import read_task
from tests.support.commands import call_bench

# File -> (task, rows, allowed predictions), from GLUE's FAQ and its sample submission.
NLI = {"entailment", "neutral", "contradiction"}
WANTED = {
    "CoLA": (1063, {"0", "1"}),
    "SST-2": (1821, {"0", "1"}),
    "MRPC": (1725, {"0", "1"}),
    "STS-B": (1379, None),
    "QQP": (390965, {"0", "1"}),
    "MNLI-m": (9796, NLI),
    "MNLI-mm": (9847, NLI),
    "QNLI": (5463, {"entailment", "not_entailment"}),
    "RTE": (3000, {"entailment", "not_entailment"}),
    "WNLI": (146, {"0", "1"}),
    "AX": (1104, NLI),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    """Return the sweep's runs over data with the official row counts, with random answers stored for each."""
    root = tmp_path_factory.mktemp("glue")
    overrides = ["sweep=glue_test", f"data.root={root}", f"results_dir={root}/results"]
    for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"):
        task = read_task(name)
        for split, rows in task.official_rows.items():
            columns = {column: pa.array(["x"] * rows) for column in task.columns}
            path = root / "glue" / name / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            labels = np.zeros(rows, np.float32 if task.labels is None else np.int64)
            pq.write_table(pa.table(columns | {"label": labels}), path)
    made = make(overrides)
    generator = np.random.default_rng(0)
    for run in made.runs:
        task = run.config.task
        folder = store.predictions_folder(Path(run.config.results_dir), run.name, run.run_id)
        for split in (task.splits[role] for role in task.predict):
            owner, _, plain = split.rpartition(":")
            rows = read_task(owner or task.name).official_rows[plain]
            values = (
                generator.normal(2.5, 3, rows).astype(np.float32)
                if task.labels is None
                else generator.integers(0, len(task.labels), rows).astype(np.int8)
            )
            store.write_predictions(folder, split, values)
    return made.runs


def test_names_rows_and_words_are_the_leaderboards(runs: list[Prepared], tmp_path: Path) -> None:
    write_submission(runs, tmp_path / "glue.zip")
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{name}.tsv" for name in WANTED)
        for name, (rows, words) in WANTED.items():
            table = pd.read_csv(io.BytesIO(archive.read(f"{name}.tsv")), sep="\t", dtype={"prediction": str})
            assert list(table.columns) == ["index", "prediction"]
            assert list(table["index"]) == list(range(rows))
            if words is None:
                assert table.prediction.astype(float).between(0, 5).all()
            else:
                assert set(table.prediction) == words


def test_codes_become_the_words_they_stand_for(runs: list[Prepared], tmp_path: Path) -> None:
    write_submission(runs, tmp_path / "glue.zip")
    rte = next(run for run in runs if run.config.task.name == "rte")
    stored = store.read_predictions(
        store.predictions_folder(Path(rte.config.results_dir), rte.name, rte.run_id), "test"
    )
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        words = pd.read_csv(io.BytesIO(archive.read("RTE.tsv")), sep="\t").prediction
    assert ((words == "entailment") == (stored == 0)).all()  # label 0 of nyu-mll/glue's rte is entailment


def test_packed_predictions_make_the_same_submission(runs: list[Prepared], tmp_path: Path) -> None:
    write_submission(runs, tmp_path / "stored.zip")
    results_dir = Path(runs[0].config.results_dir)
    for run in runs:
        folder = store.predictions_folder(results_dir, run.name, run.run_id)
        store.write_packed(store.packed_file(results_dir, run.name), store.packed(folder, run.run_id, {}))
    stored = results_dir / "predictions"
    stored.rename(tmp_path / "predictions")
    try:
        write_submission(runs, tmp_path / "packed.zip")
    finally:
        (tmp_path / "predictions").rename(stored)
    first, second = (zipfile.ZipFile(tmp_path / f"{name}.zip") for name in ("stored", "packed"))
    assert first.namelist() == second.namelist()
    assert all(first.read(name) == second.read(name) for name in first.namelist())


def test_two_runs_of_a_task_and_missing_tasks_are_named(runs: list[Prepared], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"MRPC\.tsv \(2 runs\).*RTE\.tsv \(0 runs\)"):
        mrpc = next(run for run in runs if run.config.task.name == "mrpc")
        write_submission(
            [mrpc, *(run for run in runs if run.config.task.name != "rte")], tmp_path / "glue.zip"
        )
    assert not (tmp_path / "glue.zip").exists()


def test_a_test_set_with_missing_rows_is_refused(runs: list[Prepared], tmp_path: Path) -> None:
    wnli = next(run for run in runs if run.config.task.name == "wnli")
    folder = store.predictions_folder(Path(wnli.config.results_dir), wnli.name, wnli.run_id)
    whole = store.read_predictions(folder, "test")
    store.write_predictions(folder, "test", whole[:-1])
    with pytest.raises(BenchError, match="145 predictions of test.*146 rows"):
        write_submission(runs, tmp_path / "glue.zip")
    store.write_predictions(folder, "test", whole)


def test_runs_that_are_missing_are_told_from_predictions_that_are(
    runs: list[Prepared], tmp_path: Path
) -> None:
    moved = [replace(run, config=replace(run.config, results_dir=str(tmp_path / "empty"))) for run in runs]
    with pytest.raises(BenchError, match=r"cola/dense/s0 has not run: `make sweep SWEEP=glue_test`"):
        write_submission(moved, tmp_path / "glue.zip")
    with pytest.raises(BenchError, match="predicts a test set of GLUE: use sweep=glue_test"):
        write_submission([], tmp_path / "glue.zip")


def test_the_command_wants_a_zip_to_write() -> None:
    done = call_bench("submit", "sweep=glue_test")
    assert done.returncode == 2
    assert "--to glue.zip" in done.stderr
