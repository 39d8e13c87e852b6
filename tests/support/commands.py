"""The command line, started as a user would start it."""

import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


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


def call_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what `run_bench` would, from this process, whose libraries are loaded; what workers log is not in it."""
    out, err, handlers = io.StringIO(), io.StringIO(), logging.root.handlers[:]
    try:
        with redirect_stdout(out), redirect_stderr(err), patch.dict(os.environ):  # which main sets
            status = main(arguments)
    finally:
        logging.root.handlers[:] = handlers  # main's writes to `err`
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def wait_for(condition: Callable[[], Any], seconds: float = 90, what: str = "nothing happened") -> Any:
    """Return what the condition returns as soon as that is true; raises AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


def start_bench(*arguments: str, ctrl_c: bool = True) -> subprocess.Popen[str]:
    """Return a running `python -m bench <arguments>`, in a session of its own.

    It hears Ctrl-C, or ignores it as what a shell starts in the background does, and hears the end of its terminal.
    Children inherit which signals are ignored, and the tests themselves may run under nohup in the background.
    """
    wanted = {signal.SIGINT: signal.SIG_DFL if ctrl_c else signal.SIG_IGN, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_training(*overrides: str, verb: str = "sweep", ctrl_c: bool = True) -> subprocess.Popen[str]:
    """Return a running `python -m bench <verb> <overrides>` that has begun to train, as `start_bench` starts it."""
    process = start_bench(verb, *overrides, ctrl_c=ctrl_c)
    assert process.stderr is not None
    for line in process.stderr:
        if "| step" in line:
            return process
    raise AssertionError(f"{verb} ended before it began to train")
