"""A sweep's declaration expanded to runs, and what the store already has of them."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import store
from bench.compose import choices, compose_config
from bench.errors import ConfigError, unknown
from bench.identity import Prepared, prepare
from bench.store import Record

KEYS = ("name", "purpose", "fixed", "points", "grid")


@dataclass(frozen=True)
class Sweep:
    """A file of conf/sweep/: every point times the grid, each with the fixed overrides. All values are Hydra overrides."""

    name: str
    purpose: str
    fixed: list[str] = field(default_factory=list)
    points: list[list[str]] = field(default_factory=lambda: [[]])
    grid: dict[str, list[Any]] = field(default_factory=dict)

    def overrides(self) -> list[list[str]]:
        """Return the overrides of every run."""
        columns = [[f"{key}={_text(value)}" for value in values] for key, values in self.grid.items()]
        return [[*self.fixed, *point, *cell] for point in self.points for cell in itertools.product(*columns)]


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def load(overrides: Sequence[str]) -> tuple[Sweep, list[str]]:
    """Return the sweep that `sweep=<name>` among the overrides names, and the other overrides."""
    others = [o for o in overrides if not o.startswith("sweep=")]
    if len(others) == len(overrides):
        raise ConfigError(f"sweep is not set: add sweep=<name>. Available: {', '.join(choices('sweep'))}.")
    for name in (o.removeprefix("sweep=") for o in overrides if o.startswith("sweep=")):
        if name not in choices("sweep"):
            raise ConfigError(unknown("sweep", name, choices("sweep")))
    declared = compose_config(overrides).sweep
    for key in declared:
        if key not in KEYS:
            raise ConfigError(unknown("key in the sweep's file", key, KEYS))
    sweep = Sweep(**declared)
    if not all(sweep.grid.values()) or not sweep.points:
        raise ConfigError(f"The sweep '{sweep.name}' has an empty grid or no points: give every key at least one value.")
    return sweep, others


def expand(sweep: Sweep, others: Sequence[str]) -> list[Prepared]:
    """Return the sweep's runs, checked, each once. `others` (from the command line) win over the file."""
    runs: dict[str, Prepared] = {}
    for overrides in sweep.overrides():
        prepared = prepare(compose_config([*overrides, *others]))
        runs.setdefault(prepared.run_id, prepared)
    return list(runs.values())


@dataclass(frozen=True)
class Plan:
    """The sweep's runs beside the records that the store has of them."""

    runs: list[Prepared]
    records: dict[str, Record]  # run_id -> record

    def missing(self, retry: bool = False) -> list[Prepared]:
        """Return the runs to do: no record yet or an interrupted one; with `retry` also failed ones."""
        return [run for run in self.runs if self.status(run) in ("missing", "interrupted") or (retry and self.failed(run))]

    def status(self, run: Prepared) -> str:
        """Return the record's status, or `missing`."""
        record = self.records.get(run.run_id)
        return "missing" if record is None else record["status"]

    def failed(self, run: Prepared) -> bool:
        """Return whether the run has a record of a failure."""
        return self.status(run) not in ("missing", "interrupted", "ok")

    def counts(self) -> Counter[str]:
        """Return how many runs there are of each status."""
        return Counter(self.status(run) for run in self.runs)

    def expected_seconds(self, runs: Iterable[Prepared]) -> float | None:
        """Return the training time of `runs`, from the mean of this plan's finished runs; None if there are none."""
        done = [record["training"]["seconds"] for record in self.records.values() if record["training"]]
        return sum(done) / len(done) * len(list(runs)) if done else None


def make(overrides: Sequence[str]) -> tuple[Sweep, Plan]:
    """Return the sweep named in the overrides, and its plan against the store."""
    sweep, others = load(overrides)
    runs = expand(sweep, others)
    wanted = {run.run_id for run in runs}
    records, _ = store.read_all(Path(runs[0].config.results_dir))
    return sweep, Plan(runs, {r["run_id"]: r for r in records if r["run_id"] in wanted})
