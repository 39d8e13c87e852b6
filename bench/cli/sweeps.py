"""Verbs that train many runs and then report."""

from collections.abc import Sequence
from typing import Any

from bench.settings.schema import RunConfig
from bench.sweep import launch
from bench.sweep.select import Selection


def sweep(overrides: Sequence[str], wait: bool, **selection: Any) -> int:
    """Run what a sweep still misses; return 1 if a run failed or is missing."""
    outcome = launch.sweep(overrides, Selection(**selection), wait)
    if outcome.plan.known:
        _report(outcome.plan.config)
    lines, failed = launch.closing(outcome)
    print("\n".join(lines))
    return 1 if failed else 0


def retry(overrides: Sequence[str], wait: bool, **selection: Any) -> int:
    """Run a sweep's failed and missing runs; return 1 if a run failed or is missing."""
    return sweep([*overrides, "overwrite=failed"], wait, **selection)


def search(overrides: Sequence[str]) -> int:
    """Search the front of accuracy against stored bytes; return 1 if a run failed."""
    # Optuna and pandas take a second that no sweep has to wait for.
    from bench.sweep.search import search

    result = search(overrides)
    _report(result.config)
    print("\n".join(result.lines))
    return 1 if result.failed else 0


def _report(config: RunConfig) -> None:
    # pandas and matplotlib take a second that the first run does not have to wait for.
    from bench.cli.reports import write

    write(config)
