"""The kinds of failure, with their exit statuses, and the sentence on unknown names."""

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Any error that the harness raises on purpose. Its text is one sentence for the user."""

    exit_code = 1


class ConfigError(BenchError):
    """A wrong configuration, refused before any work (exit status 2)."""

    exit_code = 2


class Impossible(ConfigError):
    """A budget that no size of the method fits. A sweep with `skip_impossible` leaves such runs out."""


class DataError(ConfigError):
    """Data that is missing or differs from the task's description (exit status 2 before a run, a failed record in a run)."""


class MissingData(DataError):
    """A split that does not exist, unlike a split that cannot be read."""


class EnvironmentBroken(BenchError):
    """No disk, no weights, no such device (exit status 3). Every further run would fail, too, so a sweep stops."""

    exit_code = 3


class TimeLimit(BaseException):
    """A run exceeded launcher.time_limit: its record says `timeout`.

    An alarm raises it anywhere, as Ctrl-C does, so code that reports an Exception of its own must not catch it.
    """


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | TimeLimit | None:
    """Return what stopped the run: the error itself, or what it was raised for or during; None for any other error.

    A library that catches everything can make an error of its own of either.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt | TimeLimit):
        error = error.__cause__ or error.__context__
    return error


def unknown(kind: str, name: str, available: Iterable[str]) -> str:
    """Return "Unknown <kind> '<name>'. Did you mean ...? Available: ..."."""
    choices = sorted(available)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"Unknown {kind} '{name}'.{hint} Available: {', '.join(choices) or 'none'}."
