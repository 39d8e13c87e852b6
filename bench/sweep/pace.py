"""How long runs take, from the records of past ones."""

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

from bench.runs.identity import Prepared
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig
from bench.store import Record, digest


def examples(config: RunConfig) -> float | None:
    """Return the number of training examples that a run reads, with repetitions; None if its task states no size."""
    training, rows = config.training, config.task.official_rows.get("train")
    if training.max_steps is not None:
        return training.max_steps * training.batch_size
    if rows is None and training.max_train_examples is None:
        return None
    return training.epochs * min(size for size in (rows, training.max_train_examples) if size is not None)


class Pace:
    """Seconds of training per example: of the same model on the same task, else of the same model, else of all runs."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self._examples: dict[tuple[str, ...], float] = defaultdict(float)
        self._recovering: dict[tuple[str, ...], float] = defaultdict(float)  # seconds
        self._recovered: dict[tuple[str, ...], float] = defaultdict(float)  # examples

    def add(self, record: Record) -> None:
        """Learn from one record of a finished run."""
        training, task, model = record["training"], record["task"], record["model"]
        recovery = record["recovery"]
        if model and recovery and "seconds" in recovery:
            for name in ((model["name"],), ()):
                self._recovering[name] += recovery["seconds"] / recovery.get("runs_at_once", 1)
                self._recovered[name] += recovery["steps"] * record["config"]["recovery"]["batch_size"]
        if training and task and model and training["examples_per_second"]:
            for key in self._keys(model["name"], task["name"]):
                shared = training.get("runs_at_once", 1)  # absent before runs trained side by side
                self._seconds[key] += (training["seconds"] + training["start_seconds"]) / shared
                self._examples[key] += training["seconds"] * training["examples_per_second"]

    def seconds(self, config: RunConfig) -> float | None:
        """Return the expected seconds of training, or None without a record to go by."""
        count = examples(config)
        known = [key for key in self._keys(config.model.name, config.task.name) if key in self._examples]
        return (
            None if count is None or not known else count * self._seconds[known[0]] / self._examples[known[0]]
        )

    def recovery_seconds(self, runs: Iterable[Prepared]) -> float | None:
        """Return the expected seconds of all recoveries, one for the runs that share a recovered model; None as `seconds`."""
        made = {
            _recovered_model(run): run.config
            for run in runs
            if isinstance(run.config.recovery, TrainedRecoveryConfig)
        }
        total = 0.0
        for config in made.values():
            key = next((key for key in ((config.model.name,), ()) if key in self._recovered), None)
            if key is None:
                return None
            recovery = cast(TrainedRecoveryConfig, config.recovery)
            pace = self._recovering[key] / self._recovered[key]
            total += recovery.steps * recovery.batch_size * pace
        return total

    @staticmethod
    def _keys(model: str, task: str) -> list[tuple[str, ...]]:
        return [(model, task), (model,), ()]


def _recovered_model(run: Prepared) -> str:
    """Return a digest that runs share if they have the same recovered model."""
    canonical, recovery = run.canonical, cast(TrainedRecoveryConfig, run.config.recovery)
    parts = {key: canonical[key] for key in ("model", "embedding", "assignment", "recovery")}
    seeds = [getattr(run.config.assignment, "seed", None), recovery.seed]
    return digest(parts | {"seeds": seeds, "texts": canonical["data"] if recovery.corpus == "task" else None})
