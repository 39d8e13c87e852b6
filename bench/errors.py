"""The three ways things go wrong, and the words the messages share."""

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Anything the harness raises on purpose: the text is one clear sentence for the user."""

    exit_code = 1


class ConfigError(BenchError):
    """A wrong configuration: found before any work, nothing was run (exit status 2)."""

    exit_code = 2


class Impossible(ConfigError):
    """A budget that no size of the method fits: a sweep with `skip_impossible` leaves such runs out."""


class DataError(ConfigError):
    """Data that is missing or is not what the task says (exit status 2 before a run, a failed record within one)."""


class MissingData(DataError):
    """A split that is not there at all, unlike one that is there and cannot be read."""


class EnvironmentBroken(BenchError):
    """No disk, no weights, no such device: every further run would fail too, so a sweep stops here (exit status 3)."""

    exit_code = 3


class TimeLimit(BenchError):
    """A run took longer than launcher.time_limit (a `timeout` record)."""


def unknown(kind: str, name: str, available: Iterable[str]) -> str:
    """Return "Unknown <kind> '<name>'. Did you mean ...? Available: ..."."""
    choices = sorted(available)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"Unknown {kind} '{name}'.{hint} Available: {', '.join(choices) or 'none'}."
