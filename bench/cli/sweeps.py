"""Verbs that run: one configuration, a sweep, a search, and what they leave behind."""

from collections.abc import Sequence
from pathlib import Path

from bench.cli import results


def run(overrides: Sequence[str]) -> int:
    """Run one configuration (any Hydra override; --multirun for several), unless its record is there already."""
    from bench.cli.hydra_app import main

    return main(overrides)


def plan(arguments: Sequence[str]) -> int:
    """Print how many runs a sweep has, how many are done and what is left (sweep=<name>)."""
    from bench.sweep.launch import describe
    from bench.sweep.plan import make
    from bench.sweep.select import parse

    flags, overrides = parse(arguments)
    print(describe(make(overrides, flags)))
    return 0


def sweep(arguments: Sequence[str]) -> int:
    """Run what a sweep still misses, then report (sweep=<name>; --limit N, --only key=value, --seeds N, --wait)."""
    return _sweep(arguments, None)


def retry(arguments: Sequence[str]) -> int:
    """Run a sweep's failed runs again, and what is missing, then report (sweep=<name>)."""
    return _sweep(arguments, "failed")


def _sweep(arguments: Sequence[str], overwrite: str | None) -> int:
    from bench.sweep.launch import closing, sweep

    outcome = sweep(arguments, overwrite)
    if outcome.plan.known:
        results.write(outcome.plan.config)
    return _tell(*closing(outcome))


def status(arguments: Sequence[str]) -> int:
    """Print a sweep's runs by state, with the last line of each failure (sweep=<name>)."""
    from bench.sweep.launch import status

    return _tell(*status(arguments))


def cancel(arguments: Sequence[str]) -> int:
    """Stop a sweep wherever it runs; the same sweep goes on from there later (sweep=<name>)."""
    from bench.sweep.launch import cancel

    print(cancel(arguments))
    return 0


def gc(arguments: Sequence[str]) -> int:
    """Print what takes space and can be made again or belongs to nobody, never records; --delete removes it."""
    from bench.settings.compose import compose_config
    from bench.sweep.gc import find, remove

    config = compose_config([argument for argument in arguments if argument != "--delete"])
    found = find(Path(config.results_dir), Path(config.cache_dir))
    for garbage in found:
        print(f"{garbage.size / 1e6:10.2f} MB  {garbage.path}  ({garbage.reason})")
        if "--delete" in arguments:
            remove(garbage)
    said = "removed" if "--delete" in arguments else "can be removed with --delete"
    print(f"{sum(garbage.size for garbage in found) / 1e6:.2f} MB in {len(found)} places {said}")
    return 0


def search(arguments: Sequence[str]) -> int:
    """Find the front of accuracy against stored bytes with Optuna, then report (search=<name>; several may run at once)."""
    from bench.sweep.search import search

    found = search(arguments)
    results.write(found.config)
    return _tell(found.lines, found.failed)


def _tell(lines: Sequence[str], failed: bool) -> int:
    print("\n".join(lines))
    return 1 if failed else 0
