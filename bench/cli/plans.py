"""Verbs that look at a sweep or stop it, and that free space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.settings.compose import CONF, compose_config
from bench.store import write_atomically
from bench.sweep import launch
from bench.sweep.gc import find, pretrained_here, remove
from bench.sweep.plan import make
from bench.sweep.select import Selection


def plan(overrides: Sequence[str], **selection: Any) -> int:
    """Print a sweep's runs by status and what is to do."""
    print(launch.describe(make(overrides, Selection(**selection))))
    return 0


def status(overrides: Sequence[str], **selection: Any) -> int:
    """Print a sweep's runs by state; return 1 if one failed."""
    lines, failed = launch.status(overrides, Selection(**selection))
    print("\n".join(lines))
    return 1 if failed else 0


def cancel(overrides: Sequence[str], seeds: int | None) -> int:
    """Stop a whole sweep wherever it runs."""
    print(launch.cancel(overrides, seeds))
    return 0


def choose(overrides: Sequence[str], to: Path | None) -> int:
    """Write the best trial of each kind of table to `to` or conf/tuned, and all trials beside the sweep's records."""
    # pandas and matplotlib take a second that no plan has to wait for.
    from bench.sweep.choose import choose

    made, folder = make(overrides), to or CONF / "tuned"
    trials, table = choose(made, folder), Path(made.config.results_dir) / f"{made.sweep.name}.csv"
    write_atomically(table, trials.to_csv(index=False))
    print(trials[trials.chosen].drop(columns="chosen").to_string(index=False))
    print(f"{len(trials)} trials in {table}, the choices in {folder}")
    return 0


def gc(overrides: Sequence[str], delete: bool) -> int:
    """List what can be made again or belongs to no run, and what is kept all the same; delete the former if asked to."""
    config = compose_config(overrides)
    garbage = find(Path(config.results_dir), Path(config.cache_dir))
    for item in [*garbage, *pretrained_here(Path(config.cache_dir))]:
        print(f"{item.size / 1e6:10.2f} MB  {item.path}  ({item.reason})")
    if delete:
        for item in garbage:
            remove(item)
    outcome = "removed" if delete else "can be removed with --delete"
    print(f"{sum(item.size for item in garbage) / 1e6:.2f} MB {outcome}")
    return 0
