"""Scores of predictions by a task's metrics, computed with `evaluate`, offline and without a home folder."""

import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from bench.errors import BenchError, ConfigError, EnvironmentBroken, unknown
from bench.settings.schema import TaskConfig
from bench.store import HeadlinePart, split_name
from bench.tasks.data import Rows
from bench.tasks.metrics import METRICS

PACKAGES = ("evaluate", "datasets", "sklearn", "scipy")  # that compute metrics


def score(task: TaskConfig, predictions: np.ndarray, labels: Sequence[Any] | np.ndarray) -> dict[str, float]:
    """Return metric -> score for `task.metrics`, never NaN.

    `predictions` and `labels` (rows,) are class codes, or numbers for a regression. An undefined metric is 0: Matthews,
    Pearson and Spearman of constant values, F1 without any positive. Raises BenchError for NaN or infinite predictions,
    and for lengths that differ.
    """
    check_metrics(task)
    kind = np.float64 if task.labels is None else np.int64
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != true.shape or predicted.ndim != 1 or not predicted.size:
        raise BenchError(
            f"{task.name}: {predicted.shape} predictions for {true.shape} labels; need one for each row."
        )
    wrong = int((~np.isfinite(predicted)).sum())
    if wrong:
        raise BenchError(
            f"{task.name}: {wrong} of {len(predicted)} predictions are NaN or infinite: no score."
        )
    if kind is np.int64 and not np.array_equal(predicted, predicted.astype(kind)):
        raise BenchError(f"{task.name}: predictions must be class codes, not scores: take the argmax first.")
    columns = {"predictions": predicted.astype(kind), "references": true.astype(kind)}
    return {name: float(_evaluator(name).compute(**columns)[name]) for name in task.metrics}


def score_split(
    task: TaskConfig, split: str, answered: Sequence[tuple[str | None, np.ndarray, Rows]]
) -> dict[str, dict[str, float]]:
    """Return split -> metrics, for a task in one language also "<split>/<category>" -> metrics.

    `answered` has (language, predictions (rows,), the split's rows) for each language, or a single entry with None. With
    languages, the split's metrics are their means, `gap` is the training language's headline minus the mean of the
    other languages, and each language follows as "<split>/<language>".
    """
    scored = {
        split_name(split, language): score(task, values, np.asarray(rows["label"]))
        for language, values, rows in answered
    }
    if answered[0][0] is None:
        ((_, predictions, rows),) = answered
        groups = score_groups(task, predictions, rows)
        return scored | {f"{split}/{name}": group for name, group in groups.items()}
    mean = {name: float(np.mean([values[name] for values in scored.values()])) for name in task.metrics}
    home = split_name(split, task.train_language)
    others = [values[task.headline] for name, values in scored.items() if name != home]
    if home in scored and others:
        mean["gap"] = scored[home][task.headline] - float(np.mean(others))
    return {split: mean} | scored


def score_groups(task: TaskConfig, predictions: np.ndarray, rows: Rows) -> dict[str, dict[str, float]]:
    """Return category -> {rows, metrics} for the columns of `task.groups` that the data has; predictions (rows,).

    A cell lists its tags with ';'. "Logic" covers the rows with any tag of that column, "Logic: Negation" those with
    this tag, as the GLUE paper (Wang et al. 2019, section 4) reports its diagnostics. A row may be in several.
    """
    members: dict[str, list[int]] = {}
    for column in (name for name in task.groups if name in rows.column_names):
        for row, cell in enumerate(rows[column]):
            tags = [tag.strip() for tag in (cell or "").split(";") if tag.strip()]
            for name in [column] * bool(tags) + [f"{column}: {tag}" for tag in tags]:
                members.setdefault(name, []).append(row)
    labels = np.asarray(rows["label"])
    return {
        name: {"rows": len(rows_of)} | score(task, np.asarray(predictions)[rows_of], labels[rows_of])
        for name, rows_of in members.items()
    }


def headline_of(task: TaskConfig, metrics: dict[str, dict[str, float]]) -> HeadlinePart:
    """Return the record's headline: the task's main metric of the first split that it evaluates."""
    split = task.splits[task.evaluate[0]]
    value = metrics[split][task.headline]
    return {
        "split": split,
        "metric": task.headline,
        "value": value,
        "higher_is_better": task.higher_is_better,
    }


def check_metrics(task: TaskConfig) -> None:
    """Raise ConfigError unless `task.metrics` are known and fit the labels, and `task.headline` is one of them."""
    classes = "no classes" if task.labels is None else f"{len(task.labels)} classes"
    for name in task.metrics:
        if name not in METRICS:
            raise ConfigError(f"task.metrics: {unknown('metric', name, METRICS)}")
        needs = METRICS[name].labels
        fits = (needs == "numbers") == (task.labels is None)
        if not fits or (needs == "two classes" and len(task.labels or ()) != 2):
            raise ConfigError(
                f"task.metrics ({name}) needs {needs}, but {task.name} has {classes} (task.labels)."
            )
    if task.headline not in task.metrics:
        raise ConfigError(
            f"task.headline ({task.headline}) must be one of task.metrics: {', '.join(task.metrics)}."
        )


def check_scoring(task: TaskConfig) -> None:
    """Raise EnvironmentBroken where a package that computes metrics is missing, ConfigError as `check_metrics` does.

    Imports none of them: that takes 0.35 s before a run's first step. Where one is damaged, the run keeps its predictions
    and `rescore` completes its record.
    """
    check_metrics(task)
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise EnvironmentBroken(
            f"task.metrics ({', '.join(task.metrics)}) cannot be computed here, {', '.join(missing)} missing: "
            "run `make install` again."
        )


@cache
def _evaluator(name: str) -> Any:
    """Return the metric as an `evaluate.Metric` that checks its input and keeps values in memory."""
    import datasets
    import evaluate

    metric = METRICS[name]
    number = datasets.Value("float64" if metric.labels == "numbers" else "int64")

    class Evaluator(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=metric.meaning,
                citation="",
                inputs_description="predictions, references: equally long.",
                features=datasets.Features({"predictions": number, "references": number}),
            )

        def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
            return {name: metric.compute(predictions, references)}

    # `evaluate` insists on a folder for values, by default below the home folder, which not every user has.
    with tempfile.TemporaryDirectory() as folder:
        return Evaluator(keep_in_memory=True, cache_dir=folder)
