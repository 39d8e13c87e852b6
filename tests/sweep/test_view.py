"""The live view of a sweep on a terminal: what runs, what is left, the best so far. Elsewhere plain lines."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from bench.sweep.view import Screen
from tests.support.commands import ROOT

SWEEP = "import sys; from bench.logs import *; from bench.sweep import launch; set_up_logging(); launch.sweep(sys.argv[1:])"
RUNS = ["sweep=smoke", "workers=1"]


def on_a_terminal(*arguments: str) -> str:
    """Return what a sweep without its report prints on a terminal of 160 columns, without colours and movements of the cursor."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, *arguments], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_terminal_shows_what_runs_what_is_left_and_the_best_so_far(tiny):
    shown = on_a_terminal(*RUNS, *[o for o in tiny if not o.startswith("task=")])
    assert "0 of 2 runs" in shown and "1 of 2 runs" in shown
    assert "tiny/lexical_sentiment/dense/s0" in shown  # while it runs
    last = shown[shown.rindex("2 of 2 runs") :]
    best = re.search(r"best so far +dense +compressed +embedding\s+lexical_sentiment +(.*)", last)
    dense, compressed, method = best[1].split(maxsplit=2)
    assert 0 <= float(dense) <= 100 and 0 <= float(compressed) <= 100
    assert method.startswith("subspace-concat-f3") and "% less" in method
    assert "| step" not in shown and "Warning" not in shown


def test_the_best_is_that_of_each_kind_and_failed_runs_have_none():
    screen = Screen(console=Console(file=io.StringIO(), width=120), disable=True)
    for method, saving, value in (
        ("dense", 0.0, 0.8),
        ("pq", 0.9, 0.5),
        ("pq", 0.9, 0.7),
        ("mean", 1.0, 0.6),
    ):
        screen.add(record(method, saving, value, higher=True))
    for value in (0.3, 0.2, 0.4):  # an error: less is better
        screen.add(record("dense", 0.0, value, higher=False, task="error"))
    screen.add(record("dense", 0.0, 0.9, higher=True) | {"headline": None})
    screen.add(record("mean", 1.0, -0.05, higher=True, task="cola"))  # a correlation
    screen.console.print(*screen.get_renderables())
    lines = [line.split() for line in screen.console.file.getvalue().splitlines() if line.strip()]
    assert lines[-3][:2] == ["cola", "-5.0"]
    assert lines[-2:] == [["error", "20.0"], ["mrpc", "80.0", "70.0", "pq,", "90.0", "%", "less"]]


def record(method: str, saving: float, value: float, higher: bool, task: str = "mrpc") -> dict:
    headline = {"value": value, "higher_is_better": higher}
    return {"name": f"tiny/{task}/{method}/s0", "headline": headline, "size": {"byte_saving": saving}}


def test_a_log_ends_with_the_best_of_each_task(tiny):
    command = [sys.executable, "-c", SWEEP, *RUNS, *[o for o in tiny if not o.startswith("task=")]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    folder = next(Path(o.partition("=")[2]) for o in tiny if o.startswith("results_dir="))
    best = []
    for ended in ("2 of 2", "1 of 1"):  # the second takes up a sweep that has only its dense run to do
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        said = re.search(
            rf"{ended} runs ended\n.* best on (lexical_sentiment: dense [\d.]+, compressed [\d.]+ \(.*)",
            done.stderr,
        )
        assert said, done.stderr
        best.append(said[1])
        (dense,) = folder.glob("runs/tiny/*/dense/*.json")
        dense.unlink()
    assert best[0] == best[1]
