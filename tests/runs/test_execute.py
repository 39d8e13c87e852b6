"""One run through the command line: its record, its repetition, its failures."""

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bench.assignment
from bench import store
from bench.cli.main import main
from bench.errors import EnvironmentBroken, TimeLimit
from bench.models import pretrained
from bench.runs import cost
from bench.runs.execute import execute, run
from bench.runs.identity import prepare
from bench.runs.side_by_side import execute_together
from bench.settings.compose import compose_config
from tests.support.commands import ROOT, call_bench, run_bench, start_bench, start_training


def records(overrides):
    results = next(o.partition("=")[2] for o in overrides if o.startswith("results_dir="))
    found, problems = store.read_all(Path(results))
    assert not problems
    return found


def test_the_command_line_writes_one_record_and_does_nothing_twice(tiny):
    first = run_bench(
        "run", *tiny, "embedding=subspace", "embedding.subspaces=4", "assignment=pq", "embedding.rows=16"
    )
    assert first.returncode == 0, first.stderr
    assert "step 6/6" in first.stderr and "test accuracy = " in first.stdout
    again = call_bench(
        "run", *tiny, "embedding=subspace", "embedding.subspaces=4", "assignment=pq", "embedding.rows=16"
    )
    assert again.returncode == 0 and "done before" in again.stdout and "step" not in again.stderr
    (record,) = records(tiny)
    assert record["status"] == "ok" and record["error"] is None
    assert record["training"]["steps"] == 6 and record["training"]["train_rows"] == 48
    assert record["task"]["splits"]["train"]["max_train_examples"] == 48, "a limit must be told"
    assert record["headline"]["value"] == record["metrics"]["test"]["accuracy"]
    size = record["size"]
    assert size["embedding_params"] == 16 * 24 and size["code_bits"] == 30522 * 4 * 4
    assert size["embedding_bytes"] == 4 * 16 * 24 + 30522 * 2
    assert 0 < size["file_bytes"] - size["embedding_bytes"] < 300, (
        "the file holds tables and codes, and a short header"
    )
    assert size["dense_embedding_params"] == 30522 * 24
    assert record["fit"]["codes_device"] == "cpu"
    assert record["fit"]["codes_sha256"] and 0 < record["fit"]["relative_error"] < 1
    assert len(record["fit"]["decile_errors"]) == 10 and min(record["fit"]["decile_errors"]) > 0
    assert record["provenance"]["packages"]["torch"] and record["cost"]["peak_memory_bytes"] > 0
    command = record["provenance"]["command"]
    assert (
        command.startswith("python -m bench run model.name=tiny")
        and ".../" in command
        and str(ROOT.parent) not in command
    )
    assert not re.search(r"[=\s]/\w", command), "no folder of the machine is published"


def test_multirun_runs_each_combination(tiny):
    done = run_bench(
        "run", "--multirun", *tiny, "embedding=dense,subspace", "assignment=sequential", "seed=0,1"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(record["name"].split("/", 2)[2] for record in records(tiny)) == [
        "dense/s0",
        "dense/s1",
        "subspace-concat-f3-q32-sequential-fitted/s0",
        "subspace-concat-f3-q32-sequential-fitted/s1",
    ]
    assert not (ROOT / "multirun").exists() and not (ROOT / "outputs").exists()


@pytest.mark.parametrize("deterministic", ["false", "true"])
def test_the_same_seed_gives_the_same_record(tiny, tmp_path, deterministic):
    tiny = [*tiny, f"deterministic={deterministic}"]
    other = [o for o in tiny if not o.startswith("results_dir")]
    first = run(compose_config([*other, f"results_dir={tmp_path}/a", "assignment=contextual"]))
    second = run(compose_config([*other, f"results_dir={tmp_path}/b", "assignment=contextual"]))
    for part in ("run_id", "config", "task", "size", "fit", "metrics"):
        assert first[part] == second[part], part
    assert first["training"]["curve"] == second["training"]["curve"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["run", "task=mrcp"], 2, ["Unknown task 'mrcp'", "mrpc"]),
        (["rnu"], 2, ["Unknown verb 'rnu'", "'run'"]),
        (["run", "embedding.subspaces=5"], 2, ["embedding.subspaces (5)", "384"]),
        (["run", "task=rte", "data.root=/no/such/folder"], 2, ["data.root", "/no/such/folder"]),
        (["run", "model.sha256=abc"], 3, ["model.sha256 (abc)", "model.safetensors"]),
        (["run", "training.max_length=513"], 2, ["training.max_length (513)", "512"]),
        (["run", "results_dir=/proc/results"], 3, ["/proc/results", "results_dir"]),
        (["sweep", "sweep=dmeo"], 2, ["Unknown sweep 'dmeo'", "demo"]),
        (["sweep"], 2, ["sweep=<name>", "demo"]),
    ],
)
def test_a_wrong_command_ends_with_one_sentence(arguments, status, words, capsys):
    assert main(arguments) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_a_failure_becomes_a_record_with_its_reason(tiny):
    overrides = [
        *tiny,
        "embedding=dense",
        "training.learning_rate=1e30",
        "training.max_grad_norm=1e30",
        "training.warmup_fraction=0",
        "training.max_steps=30",
    ]
    done = call_bench("run", *overrides)
    assert done.returncode == 1
    (record,) = records(tiny)
    assert record["status"] == "diverged" and "learning_rate" in record["error"]["message"]
    assert record["headline"] is None and record["config"]["training"]["learning_rate"] == 1e30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_stops_a_run_leaves_an_interrupted_record_and_exits_130(tiny, number):
    process = start_training(*tiny, "embedding=dense", "training.max_steps=5000", verb="run")
    process.send_signal(number)
    process.communicate(timeout=100)
    assert process.returncode == 130
    (record,) = records(tiny)
    assert record["status"] == "interrupted"


def swallowing(stop: BaseException):
    """Return a function of a library that catches everything, and raises an error of its own for it."""

    def load(*_, **__):
        try:
            raise stop
        except BaseException:
            raise RuntimeError("the library's own words") from None

    return load


@pytest.mark.parametrize("execution", [execute, lambda run: execute_together([run])], ids=["alone", "beside"])
def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt(tiny, monkeypatch, execution):
    monkeypatch.setattr(pretrained, "load_classifier", swallowing(KeyboardInterrupt("stopped")))
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        execution(prepare(compose_config([*tiny, "embedding=dense"])))
    assert {record["status"] for record in records(tiny)} <= {"interrupted"}


def test_the_end_of_a_runs_time_that_a_library_turns_into_its_own_error_is_a_timeout(tiny, monkeypatch):
    monkeypatch.setattr(pretrained, "load_classifier", swallowing(TimeLimit("too long")))
    record = run(compose_config([*tiny, "embedding=dense"]))
    assert record["status"] == "timeout" and record["error"]["message"] == "the library's own words"


def test_a_reader_that_leaves_ends_the_program_without_a_traceback():
    process = start_bench("--help")
    process.stdout.close()
    assert "Error" not in process.stderr.read()
    assert process.wait(100) == 128 + signal.SIGPIPE


def test_a_torn_record_is_moved_aside_and_made_again(tiny, tmp_path):
    record = execute(prepare(compose_config([*tiny, "embedding=dense"])))
    path = store.path_of(tmp_path / "results", record["name"], record["run_id"])
    path.write_text(path.read_text()[:100])
    again = call_bench("run", *tiny, "embedding=dense")
    assert again.returncode == 0 and f"it is now {path.name}.corrupt" in again.stderr
    assert store.read(path)["metrics"] == record["metrics"]


def test_a_full_disk_stops_with_the_path_and_no_torn_record(tiny, monkeypatch):
    prepared = prepare(compose_config([*tiny, "embedding=dense"]))
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(EnvironmentBroken, match="No space left on device"):
        execute(prepared)
    assert not list(Path(prepared.config.results_dir).rglob("*.json*"))


def test_records_are_plain_json(tiny):
    record = run(compose_config([*tiny, "embedding=dense"]))
    (path,) = Path(prepare(compose_config([*tiny, "embedding=dense"])).config.results_dir).rglob("*.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(record))
    assert time.strptime(record["created_at"][:19], "%Y-%m-%dT%H:%M:%S")


def test_out_of_memory_begins_again_with_half_the_device_batch_and_the_same_effective_batch(
    tiny, monkeypatch, tmp_path
):
    """A model that has room for two rows at once while it trains: the batch of eight is halved twice."""
    overrides = [*tiny, "embedding=dense"]
    load = pretrained.load_model

    def small_card(*arguments, **options):
        def check(module, _, inputs):
            if module.training and len(inputs["input_ids"]) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

        model = load(*arguments, **options)
        model.register_forward_pre_hook(check, with_kwargs=True)
        return model

    whole = run(compose_config([*overrides, f"results_dir={tmp_path}/whole"]))
    monkeypatch.setattr(pretrained, "load_model", small_card)
    halved = run(compose_config(overrides))
    assert (whole["training"]["device_batch"], whole["training"]["oom_retries"]) == (8, 0)
    assert (halved["training"]["device_batch"], halved["training"]["oom_retries"]) == (2, 2)
    assert halved["status"] == "ok" and halved["training"]["effective_batch"] == 8
    assert halved["run_id"] == whole["run_id"] and halved["config"] == whole["config"]


def test_a_run_that_no_device_batch_fits_is_recorded_as_out_of_memory(tiny, monkeypatch):
    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(pretrained, "load_model", full)
    record = run(compose_config([*tiny, "embedding=dense"]))
    assert record["status"] == "oom" and "out of memory" in record["error"]["message"]


def test_the_memory_of_clusters_is_no_part_of_the_runs_peak(tiny, monkeypatch):
    """Clusters found on a GPU, as this machine may lack one: the counter begins anew once after them, and only runs touch it."""
    events = []
    assign = bench.assignment.assign

    def on_gpu(*arguments, **keywords):
        events.append("clusters")
        return replace(assign(*arguments, **keywords), device="cuda")

    monkeypatch.setattr(bench.assignment, "assign", on_gpu)
    monkeypatch.setattr(cost, "reset_peak_memory", lambda device: events.append("reset"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: events.append("reset elsewhere"))
    made = run(compose_config([*tiny, "assignment=pq", "embedding.subspaces=4", "embedding.rows=16"]))
    assert made["status"] == "ok" and events == ["reset", "clusters", "reset"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["embedding=hashing", "embedding.budget=4%"], "hashing-rows4860-keep-dense20-table-dtypeint8"),
        (["embedding=trimmed", "embedding.rows=50"], "trimmed-rows50-keep-dense20-table-dtypeint8"),
    ],
)
def test_a_runs_name_tells_kept_rows_and_8_bit_tables_of_every_method(tiny, overrides, words):
    settings = ["embedding.keep_dense=20", "embedding.table_dtype=int8"]
    assert prepare(compose_config([*tiny, *overrides, *settings])).name.split("/")[2] == words
