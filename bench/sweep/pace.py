"""How long runs take, from the records of past ones."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bench.runs.identity import Prepared
from bench.settings.schema import RunConfig
from bench.store import Record, digest

STAGES = ("pretraining", "recovery")  # before the fine-tuning; each makes a model that runs share


def examples(config: RunConfig) -> float | None:
    """Return the number of training examples that a run reads, with repetitions; None if its task states no size."""
    training, rows = config.training, config.task.official_rows.get("train")
    if training.max_steps is not None:
        return training.max_steps * training.batch_size
    if rows is None and training.max_train_examples is None:
        return None
    return training.epochs * min(size for size in (rows, training.max_train_examples) if size is not None)


class Pace:
    """Seconds per example of training, and of each of STAGES: of the same model on the same task, else of the model, else of all."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self._examples: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, record: Record) -> None:
        """Learn from one record of a finished run."""
        training, task, model = record["training"], record["task"], record["model"]
        for stage in STAGES:
            part: Any = record.get(stage)
            if model and part and "seconds" in part:
                count = part["steps"] * record["config"][stage]["batch_size"]
                self._count((stage, model["name"]), part["seconds"] / part.get("runs_at_once", 1), count)
        if training and task and model and training["examples_per_second"]:
            shared = training.get("runs_at_once", 1)  # absent before runs trained side by side
            seconds = (training["seconds"] + training["start_seconds"]) / shared
            count = training["seconds"] * training["examples_per_second"]
            self._count(("training", model["name"], task["name"]), seconds, count)

    def _count(self, key: tuple[str, ...], seconds: float, count: float) -> None:
        for end in range(1, len(key) + 1):
            self._seconds[key[:end]] += seconds
            self._examples[key[:end]] += count

    def _expected(self, key: tuple[str, ...], count: float | None) -> float | None:
        """Return the seconds for so many examples, by the longest part of the key that records have; None without any."""
        known = [key[:end] for end in range(len(key), 0, -1) if key[:end] in self._examples]
        return (
            count * self._seconds[known[0]] / self._examples[known[0]]
            if known and count is not None
            else None
        )

    def seconds(self, config: RunConfig) -> float | None:
        """Return the expected seconds of training, or None without a record to go by."""
        return self._expected(("training", config.model.name, config.task.name), examples(config))

    def stage_seconds(self, stage: str, runs: Iterable[Prepared]) -> float | None:
        """Return the expected seconds of all models that a stage makes, one for the runs that share it; None as `seconds`."""
        made = {_made(stage, run): run.config for run in runs if hasattr(getattr(run.config, stage), "steps")}
        total = 0.0
        for config in made.values():
            settings = getattr(config, stage)
            seconds = self._expected((stage, config.model.name), settings.steps * settings.batch_size)
            if seconds is None:
                return None
            total += seconds
        return total


def _made(stage: str, run: Prepared) -> str:
    """Return a digest that runs share if they have the same pretrained or recovered model."""
    canonical, settings = run.canonical, getattr(run.config, stage)
    parts = {key: canonical.get(key) for key in ("model", "embedding", "assignment", "pretraining", stage)}
    seeds = [getattr(run.config.assignment, "seed", None), settings.seed]
    return digest(parts | {"seeds": seeds, "texts": canonical["data"] if settings.corpus == "task" else None})
