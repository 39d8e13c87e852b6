"""Metrics by name, computed by the local `evaluate` modules in `metric_modules/`, which need no network and no home folder."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError, ConfigError, EnvironmentBroken, unknown
from bench.settings.schema import TaskConfig
from bench.store import split_name
from bench.tasks.data import Rows

MODULES, MODULES_PACKAGE = Path(__file__).parent / "metric_modules", "bench.tasks.metric_modules"
# GLUE's own summary of a task with two metrics is their plain mean.
MEANS = {"accuracy_f1_mean": ("accuracy", "f1"), "pearson_spearman_mean": ("pearson", "spearmanr")}
BASE = tuple(sorted(path.name for path in MODULES.iterdir() if (path / f"{path.name}.py").is_file()))
METRICS = (*BASE, *MEANS)
OF_NUMBERS, OF_TWO_CLASSES = ("pearson", "spearmanr"), ("f1",)  # the others take any classes


def score(task: TaskConfig, predictions: np.ndarray, labels: Sequence[Any] | np.ndarray) -> dict[str, float]:
    """Return every metric of `task.metrics`, never NaN.

    `predictions` (rows,) are class codes, or numbers for a regression; `labels` (rows,) likewise. Where a metric is
    undefined it is 0: Matthews, Pearson and Spearman of constant values, F1 without any positive.
    Raises BenchError for NaN or infinite predictions, and for lengths that differ.
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
    wanted = {base for name in task.metrics for base in MEANS.get(name, (name,))}
    values = {
        name: float(
            _module(name).compute(predictions=predicted.astype(kind), references=true.astype(kind))[name]
        )
        for name in sorted(wanted)
    }
    for mean in MEANS.keys() & set(task.metrics):
        values[mean] = float(np.mean([values[part] for part in MEANS[mean]]))
    return {name: values[name] for name in task.metrics}


def score_split(
    task: TaskConfig, split: str, answered: Sequence[tuple[str | None, np.ndarray, Rows]]
) -> dict[str, dict[str, float]]:
    """Return split -> metrics, for a task with categories also of each "<split>/<category>".

    `answered` has (language, predictions (rows,), the split's rows) of each language, or one with None. With languages
    the split's metrics are the means over them, `gap` is the training language's headline minus the mean of the others',
    and each language follows as "<split>/<language>".
    """
    scored = {
        split_name(split, language): score(task, values, np.asarray(rows["label"]))
        for language, values, rows in answered
    }
    for _, values, rows in answered:
        scored |= {f"{split}/{group}": found for group, found in score_groups(task, values, rows).items()}
    if answered[0][0] is None:
        return scored
    mean = {name: float(np.mean([values[name] for values in scored.values()])) for name in task.metrics}
    home = split_name(split, task.train_language)
    others = [values[task.headline] for name, values in scored.items() if name != home]
    if home in scored and others:
        mean["gap"] = scored[home][task.headline] - float(np.mean(others))
    return {split: mean} | scored


def score_groups(task: TaskConfig, predictions: np.ndarray, rows: Rows) -> dict[str, dict[str, float]]:
    """Return category -> {rows, metrics} for the columns of `task.groups` that the data has; predictions (rows,).

    A cell lists its tags with ';'. "Logic" counts the rows with any tag of that column, "Logic: Negation" those with
    this one, as the GLUE paper (Wang et al. 2019, section 4) reports its diagnostics. A row may be in several.
    """
    members: dict[str, list[int]] = {}
    for column in (name for name in task.groups if name in rows.column_names):
        for row, cell in enumerate(rows[column]):
            tags = [tag.strip() for tag in (cell or "").split(";") if tag.strip()]
            for name in [column] * bool(tags) + [f"{column}: {tag}" for tag in tags]:
                members.setdefault(name, []).append(row)
    labels = np.asarray(rows["label"])
    return {
        name: {"rows": len(own)} | score(task, np.asarray(predictions)[own], labels[own])
        for name, own in members.items()
    }


def check_metrics(task: TaskConfig) -> None:
    """Raise ConfigError unless `task.metrics` are known and fit the labels, and `task.headline` is one of them."""
    classes = "no classes" if task.labels is None else f"{len(task.labels)} classes"
    for name in task.metrics:
        if name not in METRICS:
            raise ConfigError(f"task.metrics: {unknown('metric', name, METRICS)}")
        for base in MEANS.get(name, (name,)):
            if (base in OF_NUMBERS) != (task.labels is None):
                needs = "numbers" if base in OF_NUMBERS else "classes"
            elif base in OF_TWO_CLASSES and len(task.labels or ()) != 2:
                needs = "two classes"
            else:
                continue
            raise ConfigError(
                f"task.metrics ({name}) needs {needs}, but {task.name} has {classes} (task.labels)."
            )
    if task.headline not in task.metrics:
        raise ConfigError(
            f"task.headline ({task.headline}) must be one of task.metrics: {', '.join(task.metrics)}."
        )


def check_scoring(task: TaskConfig) -> None:
    """Raise EnvironmentBroken unless the task's metrics can be computed here: two rows of constant answers are scored."""
    try:
        score(task, np.zeros(2), np.arange(2))
    except Exception as error:
        raise EnvironmentBroken(
            f"task.metrics ({', '.join(task.metrics)}) cannot be computed here ({error}): run `make install` again."
        ) from error


@cache
def _module(name: str) -> Any:
    """Return the metric, which keeps its values in memory.

    It is imported like any other module: `evaluate.load` would first copy it into the cache below the home folder,
    which not every user has. The folder for values, which `evaluate` makes all the same, is gone at once.
    """
    from evaluate.loading import import_main_class  # seconds of import, so only where a metric is computed

    with tempfile.TemporaryDirectory() as folder:
        return import_main_class(f"{MODULES_PACKAGE}.{name}.{name}")(keep_in_memory=True, cache_dir=folder)
