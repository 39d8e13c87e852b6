"""The verb `pretrain`: a model without a task, its record, a failure, a sweep's models; and a pretrained run set up again."""

import json
import os
import signal

import pytest

from bench import store
from bench.cli.main import main
from bench.export.source import find
from bench.runs.execute import run
from bench.settings.compose import compose_config
from bench.sweep.launch import describe
from bench.sweep.plan import make
from bench.sweep.select import Selection
from tests.support.commands import start_bench, wait_for
from tests.support.pretraining import overrides


@pytest.fixture
def little(tmp_path):
    return overrides(tmp_path)


def records(folder) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / "results/pretraining").rglob("*.json"))]


def test_a_pretraining_alone_leaves_its_record_and_the_model_for_runs(little, tmp_path, capsys):
    keys = [*little, "embedding=subspace", "assignment=sequential"]
    assert main(["pretrain", *keys]) == main(["pretrain", *keys, "seed=3", "task=lexical_entailment"]) == 0
    (record,) = records(tmp_path)
    assert capsys.readouterr().out.count(f"{record['key'][:12]}.json") == 2
    assert record["status"] == "ok" and record["pretraining"]["reused"] and record["error"] is None
    assert record["config"]["pretraining"]["steps"] == 24 and record["provenance"]["device"] == "cpu"
    after = run(compose_config(keys))
    assert (
        after["pretraining"]["reused"] and after["pretraining"]["sha256"] == record["pretraining"]["sha256"]
    )
    assert not any(
        key.startswith(("/", str(tmp_path))) for key in map(str, record["config"]["model"].values())
    )


def test_a_pretraining_that_fails_is_recorded_and_the_status_is_1(little, tmp_path):
    assert main(["pretrain", *little, "embedding=dense", "pretraining.learning_rate=1e30"]) == 1
    (record,) = records(tmp_path)
    assert record["status"] == "diverged" and "lower pretraining.learning_rate" in record["error"]["message"]


def test_nothing_to_pretrain_is_refused(capsys):
    assert main(["pretrain", "task=lexical_sentiment"]) == 2
    assert "pretraining (none) trains nothing: add pretraining=masked_lm" in capsys.readouterr().err


def test_the_models_of_a_sweep_are_pretrained_side_by_side_each_once(little, tmp_path):
    keys = [*little, "launcher.runs_at_once=2"]
    assert main(["pretrain", "sweep=smoke", "--seeds=3", *keys]) == 0
    found = records(tmp_path)
    assert [record["config"]["embedding"]["name"] for record in found] == ["dense", "subspace"]
    assert [record["pretraining"]["runs_at_once"] for record in found] == [2, 2]


def test_a_plan_says_how_long_the_pretraining_takes_once_for_all_runs_of_a_model(little, tmp_path):
    made = run(compose_config([*little, "embedding=dense"]))
    made["pretraining"] |= {"seconds": 3600.0}
    store.write(made, tmp_path / "results")
    subspace = Selection(only=["embedding=subspace"], seeds=3)
    assert " and at most 1:00:00 of pretraining (h:mm:ss)" in describe(
        make(["sweep=smoke", *little], subspace)
    )


def test_a_pretrained_run_is_set_up_again_from_its_record(little, tmp_path):
    keys = [*little, "embedding=subspace", "assignment=random"]
    made = run(compose_config(keys))
    folders = [
        f"results_dir={tmp_path}/results",
        f"cache_dir={tmp_path}/cache",
        f"model.path={tmp_path}/tokenizer",
    ]
    text = ["pretraining=masked_lm", f"pretraining.corpus={tmp_path}/text.txt"]
    prepared, record = find(made["run_id"], [*folders, *text])
    assert prepared.run_id == made["run_id"] == record["run_id"]


def test_gc_keeps_the_pretrained_model_and_says_why(little, tmp_path, capsys):
    keys = [*little, "embedding=dense"]
    assert main(["pretrain", *keys]) == 0
    (model,) = (tmp_path / "cache/pretrained").glob("*.safetensors")
    torn = model.with_name(".half-written.tmp")
    torn.write_bytes(b"x")
    folders = [key for key in little if key.startswith(("results_dir=", "cache_dir="))]
    assert main(["gc", *folders, "--delete"]) == 0
    shown = capsys.readouterr().out
    assert (
        f"{model.parent}  (kept: it took device hours" in shown
        and f"{tmp_path}/cache/packed  (cache)" in shown
    )
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["pretrained"] and not torn.exists()
    assert main(["pretrain", *keys]) == 0
    (record,) = records(tmp_path)
    assert record["pretraining"]["reused"]


def test_a_killed_pretraining_goes_on_in_the_next_process(little, tmp_path):
    keys = [*little, "embedding=dense", "pretraining.steps=100000"]
    process = start_bench("pretrain", *keys)
    try:
        wait_for(lambda: list((tmp_path / "cache/pretrained").glob("*.lock")), what="it did not begin")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert main(["pretrain", *little, "embedding=dense"]) == 0  # the dead process holds no lock
    assert store.read_all(tmp_path / "results") == ([], [])
