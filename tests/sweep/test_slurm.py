"""Sweeps on a real Slurm of two nodes: submitted, followed, cancelled, and surviving what kills nodes and jobs."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cluster
import pytest
from commands import ROOT, run_bench, wait_for

from bench import store
from bench.sweep.launch import status

needs_slurm = pytest.mark.skipif(cluster.missing() is not None, reason=f"needs a Slurm: {cluster.missing()}")


@pytest.fixture(scope="module")
def slurm():
    with tempfile.TemporaryDirectory(
        prefix="slurm", ignore_cleanup_errors=True
    ) as folder:  # short: a socket's path is limited
        made = cluster.Cluster(Path(folder))
        yield made
        made.stop()


@pytest.fixture
def on_slurm(slurm, tiny, monkeypatch):
    for key in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(key, slurm.environment[key])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield [
        *tiny,
        "sweep=smoke",
        "launcher=slurm",
        "launcher.tasks=2",
        "launcher.cpus=1",
        "launcher.memory_gb=1",
        "launcher.minutes=10",
    ]
    slurm.ask("scancel", "--user", str(os.getuid()))
    wait_for(lambda: not slurm.ask("squeue", "-h"), 30, "jobs are left")


def results(tmp_path):
    found, problems = store.read_all(tmp_path / "results")
    assert not problems
    return found


@needs_slurm
def test_a_sweep_runs_as_an_array_and_wait_follows_it(on_slurm, tmp_path):
    done = run_bench("sweep", *on_slurm, "--wait", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done 4 | skipped 0 | failed 0"
    assert "2 tasks for 4 runs" in done.stderr and (tmp_path / "results/INDEX.md").is_file()
    assert [record["status"] for record in results(tmp_path)] == ["ok"] * 4
    assert all(record["provenance"]["slurm_job_id"] for record in results(tmp_path))
    assert not list((tmp_path / "results").rglob("*.claim*"))


@needs_slurm
def test_an_unknown_partition_shows_slurms_own_words_and_submits_nothing(on_slurm, slurm, tmp_path):
    done = run_bench("sweep", *on_slurm, "launcher.partition=gpuu")
    assert done.returncode == 2, done.stderr
    assert "nothing was submitted" in done.stderr and "invalid partition specified: gpuu" in done.stderr
    assert "Traceback" not in done.stderr
    assert not slurm.ask("squeue", "-h") and not list((tmp_path / "results/jobs").iterdir())


def test_without_slurm_one_sentence_says_so(tiny, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = run_bench("sweep", *tiny, "sweep=smoke", "launcher=slurm")
    assert (
        done.returncode == 3
        and "there is no sbatch on this machine" in done.stderr
        and "launcher=local" in done.stderr
    )


@needs_slurm
def test_status_tells_the_truth_and_cancel_stops_everything(on_slurm, slurm, tmp_path):
    sweep = [*on_slurm, "training.max_steps=100000", "launcher.tasks=3"]
    submitted = run_bench("sweep", *sweep, "--seeds", "2")
    assert (
        submitted.returncode == 0
        and submitted.stdout.splitlines()[-1] == "done 0 | skipped 0 | missing 4 | failed 0"
    )
    wait_for(lambda: len(list((tmp_path / "results").rglob("*.claim0"))) == 2, 90, "two runs did not begin")
    lines, failed = status([*sweep, "--seeds", "2"])
    assert lines[-1] == "done 0 | running 2 | queued 2 | failed 0" and not failed
    assert sum("RUNNING" in line for line in lines) == 2 and sum("PENDING" in line for line in lines) == 1
    stopped = run_bench("cancel", *sweep, "--seeds", "2")
    assert "2 running runs are stopped, 3 jobs" in stopped.stdout, stopped.stderr
    wait_for(lambda: not slurm.ask("squeue", "-h"), 60, "jobs are left")
    assert [record["status"] for record in results(tmp_path)] == ["interrupted"] * 2
    assert status([*sweep, "--seeds", "2"])[0][-1] == "done 0 | running 0 | queued 0 | missing 4 | failed 0"


@needs_slurm
def test_a_node_dies_a_job_is_preempted_and_the_controller_restarts(on_slurm, slurm, tmp_path):
    sweep = [*on_slurm, "training.max_steps=200", "--seeds", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "sweep", *sweep, "--wait"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(list((tmp_path / "results").rglob("*.claim*"))) == 2, 90, "two runs did not begin")
    slurm.kill("slurmctld")
    slurm.start_controller()
    wait_for(lambda: "is UP" in slurm.ask("scontrol", "ping"), 30, "the controller did not come back")
    (preempted,) = slurm.ask("squeue", "-h", "--nodelist=n2", "--format=%A").split()
    slurm.ask("scancel", "--signal=USR2", preempted)  # what Slurm sends before it preempts or ends a job
    slurm.kill("n1")
    wait_for(
        lambda: "Restarts=1" in slurm.ask("scontrol", "show", "job", preempted),
        60,
        "the job did not ask for another turn",
    )
    slurm.start_node("n1")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "done 4 | skipped 0 | failed 0"
    assert [record["status"] for record in results(tmp_path)] == ["ok"] * 4
    assert not list((tmp_path / "results").rglob("*.claim*"))
