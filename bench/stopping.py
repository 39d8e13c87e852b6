"""How the program is stopped from outside: Ctrl-C, SIGTERM, the end of its terminal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def heard() -> list[signal.Signals]:
    """Return the signals that stop this process: SIGTERM always, Ctrl-C and a terminal's end unless they are ignored.

    A shell lets whatever it starts in the background ignore Ctrl-C, and nohup the terminal's end: a child that
    listened all the same would be stopped by a signal that was meant for others.
    """
    optional = (signal.SIGINT, signal.SIGHUP)
    return [signal.SIGTERM, *(one for one in optional if signal.getsignal(one) is not signal.SIG_IGN)]


@contextmanager
def stoppable() -> Iterator[None]:
    """Treat SIGTERM, and the terminal's end unless it is ignored, as Ctrl-C is treated."""
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
    """Ignore SIGTERM and the terminal's end from now on: what is being stopped finishes its records."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
