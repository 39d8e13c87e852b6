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
    """Seconds of training per example: of the same model on the same task, else of the same model, else of all runs."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self._examples: dict[tuple[str, ...], float] = defaultdict(float)
        # of STAGES, by stage and model, and by stage
        self._stage_seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self._stage_examples: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, record: Record) -> None:
        """Learn from one record of a finished run."""
        training, task, model = record["training"], record["task"], record["model"]
        for stage in STAGES:
            part: Any = record.get(stage)
            if model and part and "seconds" in part:
                for made in ((stage, model["name"]), (stage,)):
                    self._stage_seconds[made] += part["seconds"] / part.get("runs_at_once", 1)
                    self._stage_examples[made] += part["steps"] * record["config"][stage]["batch_size"]
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

    def stage_seconds(self, stage: str, runs: Iterable[Prepared]) -> float | None:
        """Return the expected seconds of all models that a stage makes, one for the runs that share it; None as `seconds`."""
        made = {_made(stage, run): run.config for run in runs if hasattr(getattr(run.config, stage), "steps")}
        total = 0.0
        for config in made.values():
            known = [key for key in ((stage, config.model.name), (stage,)) if key in self._stage_examples]
            if not known:
                return None
            pace = self._stage_seconds[known[0]] / self._stage_examples[known[0]]
            settings = getattr(config, stage)
            total += settings.steps * settings.batch_size * pace
        return total

    @staticmethod
    def _keys(model: str, task: str) -> list[tuple[str, ...]]:
        return [(model, task), (model,), ()]


def _made(stage: str, run: Prepared) -> str:
    """Return a digest that runs share if they have the same pretrained or recovered model."""
    canonical, settings = run.canonical, getattr(run.config, stage)
    parts = {key: canonical.get(key) for key in ("model", "embedding", "assignment", "pretraining", stage)}
    seeds = [getattr(run.config.assignment, "seed", None), settings.seed]
    return digest(parts | {"seeds": seeds, "texts": canonical["data"] if settings.corpus == "task" else None})
