"""Do the engines, and transformers.Trainer, give the same results? The same runs by each, over paired seeds.

Differences stand beside the seeds' spread.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from bench import store
from bench.errors import BenchError, ConfigError, unknown
from bench.perf import trainer_run
from bench.runs.execute import execute
from bench.runs.identity import Prepared, prepare
from bench.settings.compose import compose_config
from bench.statistics import Summary, summarise
from bench.store import Record
from bench.store.schema import HeadlinePart

ENGINES = ("eager", "graph", "compile")
SIDES = (*ENGINES, trainer_run.NAME)
TASKS = ("mrpc", "rte", "stsb")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Comparison:
    """The headline metric of a task by two sides, over paired seeds."""

    task: str
    sides: tuple[str, str]
    metric: str
    first: list[float]
    other: list[float]

    @property
    def difference(self) -> Summary:
        """Return the mean of the paired differences, with its 95 % interval (Student's)."""
        return summarise(np.subtract(self.other, self.first))

    @property
    def spread(self) -> float:
        """Return the standard deviation over the seeds with the first side."""
        return statistics.stdev(self.first)

    @property
    def same(self) -> bool:
        """Return whether the difference lies within the seeds' spread, or chance explains it: its interval holds 0."""
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        return abs(mean or 0.0) <= self.spread or (low is not None and high is not None and low <= 0 <= high)


def compare(
    overrides: Sequence[str], tasks: Sequence[str] = TASKS, sides: Sequence[str] = ENGINES
) -> list[Comparison]:
    """Return the comparisons of the first side with each other one, task by task.

    Records lie below results_dir/equivalence, and missing runs are carried out. Raises ConfigError for an unknown side or
    fewer than two, and BenchError if a run failed or an engine fell back to another.
    """
    for side in sides:
        if side not in SIDES:
            raise ConfigError(unknown("--sides", side, SIDES))
    if len(sides) < 2:
        raise ConfigError(f"--sides ({','.join(sides)}) needs two or more of {', '.join(SIDES)}.")
    comparisons = []
    for task in tasks:
        values: dict[str, list[float]] = {side: [] for side in sides}
        metric = ""
        for seed, side in product(SEEDS, sides):
            engine = "eager" if side == trainer_run.NAME else side
            config = compose_config([f"task={task}", *overrides, f"seed={seed}", f"training.engine={engine}"])
            headline = _headline(_record(prepare(config), side), side)
            values[side].append(headline["value"])
            metric = headline["metric"]
        first, *others = sides
        comparisons += [
            Comparison(task, (first, other), metric, values[first], values[other]) for other in others
        ]
    return comparisons


def _headline(record: Record, side: str) -> HeadlinePart:
    """Return the record's headline; raises BenchError if the run failed or its engine fell back to another."""
    headline, training = record["headline"], record["training"]
    if headline is None or training is None:
        raise BenchError(
            f"{record['name']} by {side} ended as {record['status']}: there is nothing to compare."
        )
    if training["engine"] != side:
        raise BenchError(
            f"{record['name']} trained with the engine {training['engine']}, not {side} "
            f"({training['engine_fallback']}): there is nothing to compare."
        )
    return headline


def _record(prepared: Prepared, side: str) -> Record:
    """Return the record of an earlier run that finished, else of a new run."""
    folder = Path(prepared.config.results_dir) / "equivalence" / side
    path = store.path_of(folder, prepared.name, prepared.run_id)
    if path.exists() and (record := store.read(path))["status"] == "ok":
        return record
    carry_out = trainer_run.execute if side == trainer_run.NAME else execute
    return carry_out(replace(prepared, config=replace(prepared.config, results_dir=str(folder))))
