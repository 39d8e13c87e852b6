"""Signals that stop the program: Ctrl-C, SIGTERM and the end of its terminal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def heard() -> list[signal.Signals]:
    """Return the signals that stop this process: always SIGTERM; Ctrl-C and SIGHUP unless they are ignored.

    A shell makes background jobs ignore Ctrl-C, and nohup makes its program ignore SIGHUP. A child that listened to them
    would be stopped by a signal for other programs.
    """
    optional = (signal.SIGINT, signal.SIGHUP)
    return [
        signal.SIGTERM,
        *(number for number in optional if signal.getsignal(number) is not signal.SIG_IGN),
    ]


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, too, and on SIGHUP unless it is ignored."""
    numbers = [number for number in heard() if number != signal.SIGINT]

    def stop(*_: Any) -> None:
        deafen()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deafen() -> None:
    """Ignore SIGTERM and SIGHUP from now on, so that a process that is being stopped can finish its records."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
