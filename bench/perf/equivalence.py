"""Do the engines give the same results? The same runs with each engine, over paired seeds; differences beside the seeds' spread."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from bench import store
from bench.errors import BenchError
from bench.runs.execute import execute
from bench.runs.identity import Prepared, prepare
from bench.settings.compose import compose_config
from bench.statistics import Summary, summarise
from bench.store import Record
from bench.store.schema import HeadlinePart

ENGINES = ("eager", "graph", "compile")  # the others are compared with the first
TASKS = ("mrpc", "rte", "stsb")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Comparison:
    """The headline metric of a task with the eager engine and with another engine, over paired seeds."""

    task: str
    engine: str
    metric: str
    eager: list[float]
    other: list[float]

    @property
    def difference(self) -> Summary:
        """Return the mean of the paired differences, with its 95 % interval (Student's)."""
        return summarise(np.subtract(self.other, self.eager))

    @property
    def spread(self) -> float:
        """Return the standard deviation over the seeds with the eager engine."""
        return statistics.stdev(self.eager)

    @property
    def same(self) -> bool:
        """Return whether the difference lies within the seeds' spread, or chance explains it: its interval holds 0."""
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        return abs(mean or 0.0) <= self.spread or (low is not None and high is not None and low <= 0 <= high)


def compare(overrides: Sequence[str], tasks: Sequence[str] = TASKS) -> list[Comparison]:
    """Return the comparisons of each task, from records below results_dir/equivalence; missing runs are carried out.

    Raises BenchError if a run failed or an engine fell back to another.
    """
    comparisons = []
    for task in tasks:
        values: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        metric = ""
        for seed, engine in product(SEEDS, ENGINES):
            config = compose_config([f"task={task}", *overrides, f"seed={seed}", f"training.engine={engine}"])
            headline = _headline(_record(prepare(config), engine), engine)
            values[engine].append(headline["value"])
            metric = headline["metric"]
        eager = values[ENGINES[0]]
        comparisons += [Comparison(task, engine, metric, eager, values[engine]) for engine in ENGINES[1:]]
    return comparisons


def _headline(record: Record, engine: str) -> HeadlinePart:
    """Return the record's headline; raises BenchError if the run failed or its engine fell back to another."""
    headline, training = record["headline"], record["training"]
    if headline is None or training is None:
        raise BenchError(
            f"{record['name']} with training.engine={engine} ended as {record['status']}: there is nothing to compare."
        )
    if training["engine"] != engine:
        raise BenchError(
            f"{record['name']} trained with the engine {training['engine']}, not {engine} "
            f"({training['engine_fallback']}): there is nothing to compare."
        )
    return headline


def _record(prepared: Prepared, engine: str) -> Record:
    """Return the record of an earlier run that finished, else of a new run."""
    folder = Path(prepared.config.results_dir) / "equivalence" / engine
    path = store.path_of(folder, prepared.name, prepared.run_id)
    if path.exists() and (record := store.read(path))["status"] == "ok":
        return record
    return execute(replace(prepared, config=replace(prepared.config, results_dir=str(folder))))
