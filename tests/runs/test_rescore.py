"""Metrics from stored answers equal those of the run; changed definitions move the record, wrong data are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bench import store
from bench.cli.reports import read
from bench.errors import BenchError
from bench.runs.execute import run
from bench.runs.rescore import rescore
from bench.settings.compose import compose_config
from bench.settings.schema import DataConfig
from bench.tasks.data import load_split
from tests.support.commands import call_bench


@pytest.mark.parametrize("verb", ["rescore", "pack"])
def test_a_mistyped_folder_is_told(verb: str, tmp_path: Path) -> None:
    done = call_bench(verb, f"results_dir={tmp_path}/tpyo")
    assert done.returncode == 2 and f"results_dir ({tmp_path}/tpyo) has no records" in done.stderr


def test_a_finished_run_scores_the_same_again(tiny: list[str], tmp_path: Path) -> None:
    run(compose_config([*tiny, "embedding=dense"]))
    again = call_bench("rescore", f"results_dir={tmp_path}/results")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip().endswith("changed 0 | same 1 | not scored 0")


def test_a_run_whose_scoring_failed_keeps_its_answers_and_is_finished_by_rescore(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(compose_config([*tiny, "embedding=dense", f"results_dir={tmp_path}/whole"]))

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("bench.runs.evaluate.score_split", broken)
        record = run(compose_config([*tiny, "embedding=dense"]))
    assert (record["status"], record["metrics"], record["headline"]) == ("failed", None, None)
    assert "No space left" in record["error"]["message"] and "make rescore" in record["error"]["message"]
    assert record["training"]["curve"] == whole["training"]["curve"] and store.unscored(record)
    [written], problems = read(tmp_path / "results")
    assert written == record and not problems

    again = call_bench("rescore", f"results_dir={tmp_path}/results")
    assert again.returncode == 0 and "changed 1" in again.stdout, again.stderr
    ([finished], _) = store.read_all(tmp_path / "results")
    same = ("run_id", "status", "error", "metrics", "headline", "size", "fit", "task")
    assert {key: finished[key] for key in same} == {key: whole[key] for key in same}
    assert "done before" in call_bench("run", *tiny, "embedding=dense").stdout


def test_another_metric_is_added_without_training(tiny: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    # A metric other than that of the task's file.
    config = compose_config([*tiny, "embedding=dense", "task.metrics=[f1]", "task.headline=f1"])
    before = run(config)
    assert rescore(before, DataConfig(), results)
    [after], problems = store.read_all(results)
    assert not problems
    assert after["run_id"] != before["run_id"]
    assert after["headline"]["metric"] == "accuracy"
    split = after["headline"]["split"]
    folder = store.predictions_folder(results, after["name"], after["run_id"])
    answers = store.read_predictions(folder, split)
    rows = load_split(config.task, config.data, "test" if split == "test" else "validation")
    assert after["metrics"][split]["accuracy"] == pytest.approx(np.mean(answers == np.asarray(rows["label"])))
    assert before["metrics"][split]["f1"] == pytest.approx(f1_score(rows["label"], answers))
    assert not rescore(after, DataConfig(), results)
    planned = call_bench("run", *tiny, "embedding=dense")
    assert "done before" in planned.stdout  # the record is where a run with the new metrics is looked for


def test_a_record_that_was_run_again_is_not_overwritten(tiny: list[str], tmp_path: Path) -> None:
    older, newer = (
        run(compose_config([*tiny, "embedding=dense", *metrics]))
        for metrics in (["task.metrics=[f1]", "task.headline=f1"], [])
    )
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}
    with pytest.raises(
        BenchError, match=rf"{newer['run_id']}.json.*delete the older record {older['run_id']}"
    ):
        rescore(older, DataConfig(), tmp_path / "results")
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()} == before


def test_missing_answers_other_data_and_another_task_are_refused(tiny: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    record = run(compose_config([*tiny, "embedding=dense"]))
    changed = json.loads(json.dumps(record))
    changed["config"]["data"]["sha256"] = "0" * 64
    with pytest.raises(BenchError, match="does not hold the rows"):
        rescore(changed, DataConfig(), results)
    changed = json.loads(json.dumps(record))
    changed["config"]["task"]["labels"] = ["positive", "negative"]
    with pytest.raises(BenchError, match="must be trained again"):
        rescore(changed, DataConfig(), results)
    for path in (results / "predictions").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    done = call_bench("rescore", f"results_dir={results}")
    assert done.returncode == 1
    assert "holds no predictions" in done.stdout and "not scored 1" in done.stdout


def test_records_that_came_without_their_answers_are_counted_in_one_line(
    tiny: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    records = [run(compose_config([*tiny, "embedding=dense", f"seed={seed}"])) for seed in (0, 1)]
    for record, code, summary in zip(
        records, (0, 1), ("same 1 | not scored 1", "same 0 | not scored 2"), strict=True
    ):
        shutil.rmtree(store.predictions_folder(results, record["name"], record["run_id"]))
        done = call_bench("rescore", f"results_dir={results}")
        assert done.returncode == code  # a failure only where there is nothing to score
        assert "Runs without predictions" in done.stdout and done.stdout.strip().endswith(summary)


def test_packed_predictions_are_scored_where_only_they_and_the_records_are_there(
    tiny: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    records = [run(compose_config([*tiny, "embedding=dense", f"seed={seed}"])) for seed in (0, 1)]
    packed = call_bench("pack", f"results_dir={results}")
    assert packed.returncode == 0 and "runs 2" in packed.stdout, packed.stderr
    folders = [store.predictions_folder(results, one["name"], one["run_id"]) for one in records]
    before = [store.stored_splits(folder) for folder in folders]
    shutil.rmtree(results / "predictions")
    content = store.packed_file(results, records[0]["name"]).read_bytes()
    assert call_bench("pack", f"results_dir={results}").returncode == 0  # what is packed stays
    assert store.packed_file(results, records[0]["name"]).read_bytes() == content

    changed = json.loads(store.path_of(results, records[0]["name"], records[0]["run_id"]).read_text())
    changed["metrics"] = {"test": {"accuracy": 0.0}}
    store.write(changed, results)
    again = call_bench("rescore", f"results_dir={results}")
    assert again.returncode == 0 and again.stdout.strip().endswith("changed 1 | same 1 | not scored 0"), (
        again.stderr
    )
    restored, _ = store.read_all(results)
    assert [one["metrics"] for one in restored] == [one["metrics"] for one in records]
    for folder, splits in zip(folders, before, strict=True):
        assert {k: v.tolist() for k, v in store.stored_splits(folder).items()} == {
            k: v.tolist() for k, v in splits.items()
        }
