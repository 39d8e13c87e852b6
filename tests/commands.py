"""The command line, started as a user would start it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run_bench(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Return the finished `python -m bench <arguments>`, as a user would start it."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )  # type: ignore[call-overload,no-any-return]


def wait_for(condition: Callable[[], Any], seconds: float = 90, what: str = "nothing happened") -> Any:
    """Return what the condition returns as soon as that is true; raises AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


def start_training(*overrides: str) -> subprocess.Popen[str]:
    """Return a running `python -m bench sweep <overrides>` that has begun to train, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "sweep", *overrides],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "| step" in line:
            return process
    raise AssertionError("the sweep ended before it began to train")
