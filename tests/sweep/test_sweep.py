"""Sweeps: what is planned, what is run, what survives."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import replace

import pytest

from bench import store
from bench.errors import ConfigError
from bench.settings.compose import choices, compose_config
from bench.sweep import worker
from bench.sweep.plan import Sweep, against_store, expand, load, make
from bench.sweep.select import Selection
from tests.support.commands import ROOT, call_bench, run_bench, start_training


def sweep_of(tiny, *others):
    return [*tiny, "sweep=smoke", "workers=2", *others]


def test_a_sweep_is_points_times_grid_and_ignores_what_a_method_does_not_use(tiny):
    sweep = Sweep(
        "t",
        "",
        fixed=["training.batch_size=4"],
        points=[["embedding=dense"], ["embedding=subspace"]],
        grid={"seed": [0, 1], "assignment": ["sequential", "random"]},
    )
    assert len(sweep.overrides({})) == 8
    runs = expand(sweep, tiny)
    assert len(runs) == 6, "two dense runs, not four"
    assert {run.config.training.batch_size for run, *_ in runs.values()} == {8}, (
        "the command line wins over the file"
    )


def test_parts_are_run_in_their_order_and_what_stands_in_two_belongs_to_the_first(tiny):
    parts = [
        {"points": [["embedding=dense"]], "grid": {"training.max_steps": [2], "seed": [0, 1]}},
        {
            "points": [["embedding=subspace"], ["embedding=dense"]],
            "grid": {"training.max_steps": [2, 50], "seed": [1]},
        },
    ]
    sweep = Sweep("t", "", parts=parts)
    plan = against_store(sweep, expand(sweep, [o for o in tiny if not o.startswith("training.max_steps")]))
    runs = {run.run_id: run.config for run in plan.runs}
    found = [(runs[item.run_id].embedding.name, runs[item.run_id].training.max_steps) for item in plan.todo()]
    assert found[:2] == [("dense", 2)] * 2
    assert sorted(found[2:4]) == [("dense", 50), ("subspace", 50)], "the longest of a part come first"
    assert found[4:] == [("subspace", 2)]


def test_parts_are_chosen_by_name_with_the_runs_that_an_earlier_part_has_too(tiny):
    first, second, third = ([f"embedding.subspaces={f}"] for f in (2, 3, 4))
    parts = [
        {"name": "small", "points": [first, second]},
        {"name": "large", "points": [second, third]},
        {"name": "small", "points": [third], "grid": {"seed": [1]}},
    ]
    sweep = Sweep("t", "", ["assignment=random"], parts=parts)

    def chosen(*only):
        runs = expand(sweep, tiny, Selection(only=only)).values()
        return {(declared.run.config.embedding.subspaces, declared.run.config.seed) for declared in runs}

    assert chosen("part=large") == {(3, 0), (4, 0)}
    assert chosen("part=small") == {(2, 0), (3, 0), (4, 1)}
    assert chosen("part=small,large") == chosen() == {(2, 0), (3, 0), (4, 0), (4, 1)}
    assert chosen("part=small", "seed=1") == {(4, 1)}
    with pytest.raises(ConfigError, match="Unknown part of the sweep t 'smal'. Did you mean 'small'"):
        chosen("part=smal")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Return a folder with a file for every split of every task: planning reads names and bytes only."""
    root = tmp_path_factory.mktemp("data")
    for task in (compose_config([f"task={name}"]).task for name in choices("task")):
        for folder in task.languages or [task.hub_config or task.name]:
            for split in {*task.splits.values(), *task.official_rows, "train_subset"}:
                path = root / task.suite / folder / f"{re.sub(r'.*:|[[].*', '', split)}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(path))
    return root


@pytest.mark.parametrize("name", choices("sweep"))
def test_every_shipped_sweep_says_what_it_is_for_and_expands(name, data_root):
    sweep, others = load([f"sweep={name}"])
    head = (ROOT / "conf" / "sweep" / f"{name}.yaml").read_text().splitlines()[0]
    assert sweep.name == name and sweep.purpose and head.startswith("# Purpose: ")
    text = "?pretraining.corpus=lexical_sentiment:train"
    runs = expand(sweep, [*others, f"data.root={data_root}", text])
    assert re.search(rf"\b{len(runs):,} runs\b", head), (
        f"conf/sweep/{name}.yaml must state its {len(runs):,} runs in its first line"
    )


def test_points_that_no_size_fits_are_left_out_only_if_the_sweep_says_so():
    points, grid = [["embedding=codebook"], ["embedding=hashing"]], {"embedding.budget": ["0.1%", "1%"]}
    sweep = Sweep("s", "p", ["task=lexical_sentiment"], points, grid, skip_impossible=True)
    assert [declared.run.config.embedding.name for declared in expand(sweep, []).values()] == [
        "codebook",
        "hashing",
        "hashing",
    ]
    with pytest.raises(ConfigError, match=r"embedding\.budget \(0\.1%\)"):
        expand(replace(sweep, skip_impossible=False), [])
    with pytest.raises(ConfigError, match="Unknown key"):
        expand(replace(sweep, fixed=["embedding.rwos=3"]), [])


def test_an_empty_grid_or_a_typo_is_refused():
    with pytest.raises(ConfigError, match="Unknown sweep 'smok'.*Did you mean 'smoke'"):
        load(["sweep=smok"])


def test_a_sweep_runs_what_is_missing_reports_and_then_runs_nothing(tiny, tmp_path):
    first = run_bench("sweep", *sweep_of(tiny))
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1].startswith("done 2 | skipped 0 | failed 0")
    assert (tmp_path / "results/INDEX.md").is_file() and list((tmp_path / "results/figures").glob("*.png"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/runs").rglob("*.json")}
    again = call_bench("sweep", *sweep_of(tiny))
    assert again.stdout.splitlines()[-1].startswith("done 0 | skipped 2 | failed 0")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results/runs").rglob("*.json")} == before
    plan = call_bench("plan", *sweep_of(tiny))
    assert "2 runs: 2 ok" in plan.stdout and "To do: 0" in plan.stdout


def test_a_failed_run_is_listed_and_the_others_go_on(tiny, tmp_path, capfd):
    broken = sweep_of(
        tiny,
        "training.max_grad_norm=1e30",
        "training.warmup_fraction=0",
        "training.learning_rate=1e30",
        "workers=1",
    )
    done = call_bench("sweep", *broken)
    assert done.returncode == 1
    assert (
        done.stdout.count("diverged tiny/") == 2 and "failed 2 (diverged 2)" in done.stdout.splitlines()[-1]
    )
    assert capfd.readouterr().err.count("| diverged:") == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/runs").rglob("*.json")}
    assert "0 runs to do" in call_bench("sweep", *broken).stderr, "failed runs wait for `retry`"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results/runs").rglob("*.json")} == before
    assert call_bench("retry", *broken).returncode == 1
    assert capfd.readouterr().err.count("| diverged:") == 2


def test_a_killed_worker_is_replaced_and_its_run_done_again(tiny, tmp_path):
    process = start_training(*sweep_of(tiny, "training.max_steps=100", "workers=1"))
    (claim,) = (tmp_path / "results").rglob("*.claim0")
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found, problems = store.read_all(tmp_path / "results")
    assert not problems
    assert sorted(record["status"] for record in found) == ["ok", "ok"], out
    assert "killed or crashed" in err
    assert not list((tmp_path / "results").rglob("*.claim*"))


def test_a_workers_warnings_are_seen_on_a_terminal_too(tiny, tmp_path):
    folder = tmp_path / "short"  # a table with more rows than the tokenizer has tokens
    shutil.copytree(next(one for one in tiny if one.startswith("model.path=")).partition("=")[2], folder)
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 40000}
    (folder / "config.json").write_text(json.dumps(config))
    keys = [f"model.path={folder}", "model.weights=random", "model.vocab_size=null", "training.max_steps=1"]
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 300, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "sweep", *sweep_of(tiny, *keys, "workers=1")], cwd=ROOT, stderr=inside
    ) as process:
        os.close(inside)
        shown = b""
        with suppress(OSError):  # a terminal that nobody writes to any more
            while block := os.read(terminal, 4096):
                shown += block
    os.close(terminal)
    assert process.returncode == 0, shown.decode()
    assert "the tokenizer has 30522 tokens for a table of 40000 rows" in shown.decode()


def test_ctrl_c_ends_a_sweep_and_the_same_command_goes_on(tiny, tmp_path):
    overrides = sweep_of(tiny, "training.max_steps=100")
    process = start_training(*overrides)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode == 130
    plan = make(overrides)
    assert plan.counts()["interrupted"] >= 1 and not plan.counts()["failed"]
    done = run_bench("sweep", *overrides)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("done 2")


def test_a_sweep_in_the_background_goes_on_after_a_ctrl_c_that_is_not_its_own_and_ends_by_sigterm(
    tiny, tmp_path
):
    """A script's Ctrl-C reaches its whole group: what the shell has put into the background ignores it, workers too."""
    process = start_training(*sweep_of(tiny, "training.max_steps=100", "workers=1"), ctrl_c=False)
    os.killpg(process.pid, signal.SIGINT)
    ended = next((line for line in process.stderr if "of 2 runs ended" in line or "interrupted" in line), "")
    assert "1 of 2 runs ended" in ended
    process.terminate()
    process.communicate(timeout=100)
    assert process.returncode == 130
    found, problems = store.read_all(tmp_path / "results")
    assert not problems and found[0]["status"] in ("ok", "interrupted")
    assert "ok" in {record["status"] for record in found}


def test_kill_9_of_everything_leaves_no_torn_record(tiny, tmp_path):
    process = start_training(*sweep_of(tiny, "training.max_steps=100"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert store.read_all(tmp_path / "results") == ([], [])
    assert compose_config(sweep_of(tiny)).results_dir == str(tmp_path / "results")


def test_a_worker_stops_after_a_run_that_swallowed_the_signal(tiny, monkeypatch):
    begun = []

    def carry_out(held, *_):
        begun.append(held)
        worker.Signals.arrived = True
        return ["ok"]

    monkeypatch.setattr(worker.Signals, "arrived", False)
    monkeypatch.setattr(worker, "carry_out", carry_out)
    items = make(sweep_of(tiny)).todo()
    with pytest.raises(KeyboardInterrupt):
        worker.work(items, worker.Settings(threads=1, gpu=None, time_limit=None), lambda *_: None)
    assert len(items) == 2 and len(begun) == 1
