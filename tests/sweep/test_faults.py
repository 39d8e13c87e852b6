"""What can go wrong within a sweep, each with its record; and all of it at once, small (`make faults` is the full size)."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from bench import store
from bench.cli.main import main
from bench.errors import EnvironmentBroken
from bench.runs.execute import execute
from bench.stopping import stoppable
from bench.sweep.plan import Item, make
from bench.sweep.pool import Pool, gpus
from bench.sweep.view import View
from bench.sweep.worker import DEATHS, Settings, limited
from tests.support import faults
from tests.support.commands import call_bench, run_bench, start_training


def smoke(tiny, *others):
    return [*tiny, "sweep=smoke", "workers=1", *others]


def test_every_run_survives_kills_frozen_holders_torn_records_and_two_further_sweeps(tmp_path, tiny_model):
    counted = faults.faults(tmp_path, faults.tiny_model(tmp_path / "model"), runs=6, workers=1, every=2.0)
    assert counted["faults"]["killed"]


def test_a_run_that_takes_too_long_is_recorded_as_timeout_and_the_next_goes_on(tiny, tmp_path):
    sweep = smoke(tiny, "training.max_steps=10000", "launcher.time_limit=0.05")
    done = call_bench("sweep", *sweep)
    assert (
        done.returncode == 1 and done.stdout.splitlines()[-1] == "done 0 | skipped 0 | failed 2 (timeout 2)"
    ), done.stderr
    records, _ = store.read_all(tmp_path / "results")
    assert all("launcher.time_limit (0.05 minutes)" in record["error"]["message"] for record in records)


def test_a_torn_record_is_named_moved_aside_and_made_again_and_a_deadly_run_fails(tiny, tmp_path, capfd):
    sweep = smoke(tiny)
    plan = make(sweep)
    torn, deadly = plan.path(plan.runs[0]), plan.path(plan.runs[1])
    for path in (torn, deadly):
        path.parent.mkdir(parents=True)
    torn.write_text('{"status": "ok", ')
    for number in range(DEATHS):  # three workers have died of it
        claim = deadly.with_suffix(f".claim{number}")
        claim.write_text(json.dumps({"host": "n7", "machine": "another", "pid": 1, "started": "1"}))
        os.utime(claim, (1, 1))
    done = call_bench("sweep", *sweep)
    assert (
        done.returncode == 1 and done.stdout.splitlines()[-1] == "done 1 | skipped 0 | failed 1 (failed 1)"
    ), done.stderr
    assert (
        str(torn) in capfd.readouterr().err
        and torn.with_name(f"{torn.name}.corrupt").read_text() == '{"status": "ok", '
    )
    assert (
        f"repaired {plan.runs[0].name}: its record could not be read and is now {torn}.corrupt" in done.stdout
    )
    assert store.read(torn)["status"] == "ok"
    assert "killed or crashed 3 times" in store.read(deadly)["error"]["message"]
    assert not list((tmp_path / "results").rglob("*.claim*"))


def test_a_full_disk_stops_the_sweep_with_a_sentence_and_no_torn_record(tiny, tmp_path):
    for run in make(smoke(tiny, f"results_dir={tmp_path}/before")).runs:
        execute(run)  # fills the cache
    full = run_bench(
        "sweep", *smoke(tiny), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
    )
    assert full.returncode == 3 and "cannot be written" in full.stderr and "free some space" in full.stderr, (
        full.stderr
    )
    assert "Traceback" not in full.stderr
    left = {path.suffix for path in (tmp_path / "results").rglob("*") if path.is_file()}
    assert not left & {".json", ".tmp"} and not list((tmp_path / "results").rglob("*.claim*"))


def test_a_worker_that_dies_as_it_starts_does_not_block_a_sweep_of_thousands(tmp_path, monkeypatch):
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    items = [
        Item(f"{n:012x}", "tiny/task/dense/s0", ["training.max_steps=2"] * 9, f"{n}.json", None, None)
        for n in range(2000)
    ]
    # A pool that ends ignores SIGTERM, and `stoppable` gives it back: the tests after this one need it.
    stopped_alone = pytest.raises(EnvironmentBroken, match="before its first run")
    with limited(1), stoppable(), View(items) as view, stopped_alone:
        Pool(items, [Settings(1, None, None)], view, tmp_path / "sweep.cancel").run()
    assert not list(tmp_path.iterdir())


def test_a_signal_that_other_code_turns_into_an_error_stops_the_worker_all_the_same(tmp_path):
    (tmp_path / "plan.json").write_text("[]")
    code = f"""
import os, signal, time
from pathlib import Path
from types import SimpleNamespace
from bench.sweep import worker

def work(*_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    except KeyboardInterrupt as error:
        raise ValueError("no configuration") from error

worker.work = work
connection = SimpleNamespace(send=lambda event: print(event[0]))
worker.main(connection, Path({str(tmp_path / "plan.json")!r}), worker.Settings(1, None, None))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.stdout.split(), ended.returncode) == (["ready", "stopped"], 0), ended.stderr


def test_each_worker_sees_one_of_the_gpus_that_the_user_gave(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus("auto", 3) == ["0", "1", "0"] and gpus("cpu", 2) == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert gpus("cuda", 2) == ["5", "GPU-7"]


def test_gc_shows_and_removes_what_nobody_needs_and_never_a_record(tiny, tmp_path, capsys):
    execute(make(smoke(tiny)).runs[0])
    results = tmp_path / "results"
    (kept,) = {path.parent for path in (results / "predictions").rglob("*-*/*") if "dense" in str(path)}
    orphan = kept.with_name("s9-aaaaaaaaaaaa")
    orphan.mkdir()
    (orphan / "test.safetensors").write_bytes(b"x" * 1000)
    records = sorted((results / "runs").rglob("*.json"))
    dead, living = (records[0].with_suffix(suffix) for suffix in (".claim0", ".claim1"))
    living.write_text(json.dumps({"host": "n7", "machine": "another", "pid": 1, "started": "1"}))
    dead.write_text(living.read_text())
    os.utime(dead, (1, 1))
    torn = records[0].with_name("s3-bbbbbbbbbbbb.json.corrupt")
    torn.write_text("{")
    wanted = [f"results_dir={results}", f"cache_dir={tmp_path}/cache"]
    assert main(["gc", *wanted, "--delete"]) == 0
    assert not dead.exists() and living.exists() and orphan.exists() and (tmp_path / "cache").exists(), (
        "a run is being carried out"
    )
    os.utime(living, (1, 1))
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    capsys.readouterr()
    assert main(["gc", *wanted]) == 0
    shown = capsys.readouterr().out
    assert str(orphan) in shown and str(living) in shown and "predictions without a record" in shown
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before, (
        "without --delete nothing goes"
    )
    assert main(["gc", *wanted, "--delete"]) == 0
    assert not orphan.exists() and not living.exists() and not list((tmp_path / "cache").iterdir())
    assert kept.is_dir() and torn.exists() and sorted((results / "runs").rglob("*.json")) == records


@pytest.mark.parametrize("part", ["--only=task=mrpc", "--limit=2"])
def test_a_part_of_a_sweep_is_not_cancelled(part, tiny, tmp_path, capsys):
    assert main(["cancel", *tiny, "sweep=smoke", part]) == 2
    assert f"Unknown flag '{part.split('=')[0]}'. Available: --seeds" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_cancel_stops_a_local_sweep_from_elsewhere(tiny, tmp_path, capsys):
    sweep = smoke(tiny, "training.max_steps=10000")
    process = start_training(*sweep)
    assert main(["cancel", *sweep]) == 0 and "stopped runs 1" in capsys.readouterr().out
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [record["status"] for record in store.read_all(tmp_path / "results")[0]] == ["interrupted"]


@pytest.mark.parametrize(
    ("stops", "last"),
    [(1, "done 2 | skipped 0 | failed 0"), (2, "done 0 | skipped 0 | missing 2 | failed 0")],
)
def test_what_stopped_workers_leave_is_begun_again_and_what_is_left_then_is_missing(
    tiny, tmp_path, monkeypatch, capsys, stops, last
):
    monkeypatch.setattr("bench.sweep.launch.AGAIN", 1)

    def stop_workers() -> None:
        stopped: set[int] = set()
        while len(stopped) < stops:
            for claim in (tmp_path / "results").rglob("*.claim0"):
                with suppress(OSError, ValueError):  # it is being written, or has gone
                    pid = json.loads(claim.read_text())["pid"]
                    if pid not in stopped:
                        os.kill(pid, signal.SIGTERM)
                        stopped.add(pid)
            time.sleep(0.05)

    stopper = threading.Thread(target=stop_workers, daemon=True)
    stopper.start()
    status = main(["sweep", *smoke(tiny, "training.max_steps=60")])
    *lines, count = capsys.readouterr().out.splitlines()
    assert count == last
    assert status == ("missing" in last)
    assert ("2 runs are missing, the same command goes on with them: tiny/" in "".join(lines)) == status


@pytest.fixture(autouse=True)
def project_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(faults.ROOT))
