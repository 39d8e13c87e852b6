"""Sweeps on a real Slurm of two nodes: submitted, followed, cancelled, and surviving what kills nodes and jobs."""

import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from bench import store
from bench.cli.main import main
from bench.sweep import launch
from bench.sweep.launch import closing, status
from bench.sweep.select import Selection
from tests.support import cluster
from tests.support.commands import ROOT, run_bench, wait_for

needs_slurm = pytest.mark.skipif(cluster.missing() is not None, reason=f"needs a Slurm: {cluster.missing()}")


@pytest.fixture(scope="module")
def slurm():
    # Short: a socket's path is limited.
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as folder:
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
    # neither asked for, a worker for each GPU that a task sees, or one: here there is none
    left_out = ["launcher.gpus=null", "launcher.memory_gb=null"]
    done = run_bench("sweep", *on_slurm, *left_out, "--wait", "--seeds", "2")
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
        and submitted.stdout.splitlines()[-1] == "done 0 | skipped 0 | queued 4 | failed 0"
    )
    wait_for(lambda: len(list((tmp_path / "results").rglob("*.claim0"))) == 2, 90, "two runs did not begin")
    lines, failed = status(sweep, Selection(seeds=2))
    assert lines[-1] == "done 0 | running 2 | queued 2 | failed 0" and not failed
    assert sum("RUNNING" in line for line in lines) == 2 and sum("PENDING" in line for line in lines) == 1
    stopped = run_bench("cancel", *sweep, "--seeds", "2")
    assert "stopped runs 2, jobs taken from the queue 3" in stopped.stdout, stopped.stderr
    wait_for(lambda: not slurm.ask("squeue", "-h"), 60, "jobs are left")
    assert [record["status"] for record in results(tmp_path)] == ["interrupted"] * 2
    assert status(sweep, Selection(seeds=2))[0][-1] == "done 0 | running 0 | queued 0 | missing 4 | failed 0"


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
    out, err = process.communicate(timeout=580)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "done 4 | skipped 0 | failed 0"
    assert [record["status"] for record in results(tmp_path)] == ["ok"] * 4
    assert not list((tmp_path / "results").rglob("*.claim*"))


@needs_slurm
def test_what_killed_jobs_leave_is_submitted_again(on_slurm, slurm, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("bench.sweep.launchers.queued.SETTLE", 3)
    sweep = [*on_slurm, "training.max_steps=200"]

    def kill_both() -> None:
        wait_for(
            lambda: len(list((tmp_path / "results").rglob("*.claim*"))) == 2, 90, "two runs did not begin"
        )
        slurm.kill_job("n1")
        slurm.kill_job("n2")

    killer = threading.Thread(target=kill_both)
    killer.start()
    lines, failed = closing(launch.sweep(sweep, Selection(seeds=2), wait=True))
    killer.join()
    assert not failed and lines == ["done 4 | skipped 0 | failed 0"]
    assert "4 runs are missing and start again (1 of 3)" in caplog.text and "exit status" in caplog.text
    assert [record["status"] for record in results(tmp_path)] == ["ok"] * 4


@needs_slurm
def test_runs_that_every_job_leaves_behind_are_missing_with_its_last_words(
    on_slurm, slurm, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("bench.sweep.launchers.queued.SETTLE", 3)
    sweep = [*on_slurm, 'launcher.setup=["echo out of luck >&2; kill -9 $$"]']
    assert main(["sweep", *sweep, "--wait"]) == 1
    *words, missing, count = capsys.readouterr().out.splitlines()
    assert count == "done 0 | skipped 0 | missing 2 | failed 0" and "2 runs are missing" in missing
    arrays = list((tmp_path / "results/jobs").glob("smoke-*/"))
    assert len(arrays) == 1 + launch.AGAIN and len(words) == 2
    for line in words:
        log = re.fullmatch(r"job \d+_\d FAILED, exit status \S+, its log (\S+) ends: out of luck", line)
        assert log and Path(log[1]).read_text() == "out of luck\n"
    assert status(sweep)[0][:2] == words, "a sweep that nobody waited for says it, too"


@needs_slurm
def test_what_a_job_leaves_that_ends_with_an_error_is_not_submitted_again(
    on_slurm, slurm, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("bench.sweep.launchers.queued.SETTLE", 3)
    runs = tmp_path / "results/runs"
    sweep = [*on_slurm, f'launcher.setup=["rm -r {runs}; ln -s /proc/nowhere {runs}"]']
    assert main(["sweep", *sweep, "--wait"]) == 1
    out = capsys.readouterr().out
    assert "cannot be written" in out and len(list((tmp_path / "results/jobs").glob("smoke-*/"))) == 1, out


@needs_slurm
def test_a_sites_options_reach_the_job_and_what_is_null_does_not(on_slurm, slurm, tmp_path):
    asked = [
        *("launcher.memory_gb=null", "launcher.cpus=null", "launcher.gpus=null"),
        *("+launcher.options.gres=gpu:1", "+launcher.options.exclude=n2", "+launcher.options.exclusive=true"),
        "+launcher.options.comment='two words'",
    ]
    done = run_bench("sweep", *on_slurm, *asked)
    assert done.returncode == 0, done.stderr
    (script,) = (tmp_path / "results/jobs").rglob("*submission.sh")
    options = {line for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    assert {"#SBATCH --gres=gpu:1", "#SBATCH --exclude=n2", "#SBATCH --exclusive"} <= options
    assert not [line for line in options if re.search("--(mem|gpus|cpus|wckey|partition|account)", line)]
    number = script.name.partition("_")[0]
    shown = slurm.ask("scontrol", "--oneliner", "show", "job", number)
    assert "Comment=two words" in shown and "ExcNodeList=n2" in shown and "TresPerNode=gres:gpu:1" in shown


@needs_slurm
def test_an_option_that_sbatch_does_not_know_is_its_own_words(on_slurm, tmp_path):
    done = run_bench("sweep", *on_slurm, "+launcher.options.colour=red")
    assert done.returncode == 2 and "unrecognized option '--colour=red'" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not list((tmp_path / "results/jobs").glob("smoke-*"))
