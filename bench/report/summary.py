"""Seeds brought together: what every table and figure shows, computed once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from bench.report.frame import column_name, headline_runs, rows
from bench.report.statistics import Summary, summarise

UNBOUNDED = ("loss", "perplexity", "mse", "rmse", "mae")  # metrics that are no fractions and are shown as they are

MEAN = "headline metrics"


class Column(NamedTuple):
    """One task (or the mean over tasks) as it is shown."""

    name: str  # unique in its section
    task: str
    marks: tuple[str, ...]
    metric: str | None  # None: nothing finished
    split: str | None
    scale: float  # 100 for fractions
    higher_is_better: bool
    chance: float | None  # scaled

    @property
    def unit(self) -> str:
        """Return the metric with its unit."""
        percent = (self.metric or "").startswith(("accuracy", "f1"))
        return f"{self.metric or ''}{'' if self.scale == 1 else ' (%)' if percent else ' × 100'}"


class Cell(NamedTuple):
    """One configuration on one task."""

    score: Summary
    change: Summary  # difference to dense over the seeds that both have
    seeds: tuple[int, ...]
    collapsed: int  # runs that predict one class only
    missing: str  # why there is no score; empty where there is one
    unpaired: str  # why there is no difference; empty where there is one, and for dense itself


class Row(NamedTuple):
    """One configuration of a section; sizes are None where none of its runs got that far."""

    config_id: str
    label: str
    kind: str
    params: int | None
    bytes: int | None
    param_saving: float | None
    byte_saving: float | None


@dataclass(frozen=True)
class Section:
    """One model on one suite."""

    model: str
    weights: str
    suite: str
    rows: list[Row]  # dense first, then by stored bytes, largest first
    columns: list[Column]
    cells: dict[tuple[str, str], Cell]  # (config_id, column name)
    mean: Column | None  # also in `columns`, last
    no_mean: str  # why there is none

    @property
    def title(self) -> str:
        """Return the model's name, marked if its weights are random."""
        return f"{self.model} (random weights)" if self.weights == "random" else self.model


def sections(frame: pd.DataFrame) -> list[Section]:
    """Return one section for every model and suite of the frame."""
    return [_section(runs) for _, runs in frame.groupby(["model", "weights", "suite"])]


def _section(runs: pd.DataFrame) -> Section:
    model, weights, suite = runs[["model", "weights", "suite"]].iloc[0]
    counted = headline_runs(runs)
    columns = [_column(str(name), part, counted[counted.column == name]) for name, part in runs.groupby("column")]
    averaged = [column for column in columns if runs[runs.column == column.name].average.all()]
    mean, no_mean = _mean_column(averaged)
    scores = counted.dropna(subset=["value"]).pivot(index=["config_id", "seed"], columns="column", values="value")
    for column in columns:
        scores[column.name] = scores.get(column.name, pd.Series(dtype=float)) * column.scale
    if mean:
        scores[mean.name] = scores[[column.name for column in averaged]].mean(axis=1, skipna=False)
        columns = [*columns, mean]
    references = _references(runs)
    cells = dict(_cells(runs, counted, scores, columns, references))
    return Section(model, weights, suite, _rows(runs), columns, cells, mean, no_mean)


def _column(name: str, runs: pd.DataFrame, counted: pd.DataFrame) -> Column:
    values = counted.dropna(subset=["value"])
    first = (values if len(values) else runs).iloc[0]
    fraction = len(values) > 0 and first.metric not in UNBOUNDED and values.value.abs().max() <= 1
    scale = 100.0 if fraction else 1.0
    chance = None if pd.isna(first.chance) else float(first.chance) * scale
    metric, split = (first.metric, first.split) if len(values) else (None, None)
    return Column(name, first.task, first.marks, metric, split, scale, bool(first.higher_is_better), chance)


def _mean_column(averaged: list[Column]) -> tuple[Column | None, str]:
    """Return the mean over tasks and "", or None and the reason why there can be none."""
    tasks = [column.task for column in averaged]
    if len(tasks) < 2:
        return None, "fewer than two tasks to average"
    if len(set(tasks)) < len(tasks):
        return None, "a task is there on several selections of its data"
    if any(column.scale == 1 or not column.higher_is_better for column in averaged):
        return None, "a task has no finished run, or its headline is no fraction that grows with quality"
    marks = averaged[0].marks
    if any(column.marks != marks for column in averaged):
        marks = (", ".join(column.task for column in averaged if column.marks),)
    chances = [column.chance for column in averaged if column.chance is not None]
    chance = sum(chances) / len(chances) if len(chances) == len(averaged) else None
    task = f"mean of {', '.join(tasks)}"
    return Column(column_name(task, marks), task, marks, MEAN, None, 100.0, True, chance), ""


def _references(runs: pd.DataFrame) -> dict[str, str]:
    """Return config_id -> config_id of the dense model trained the same way.

    Dense with the same recovery comes first, then dense without one.
    """
    unique = list(rows(runs.drop_duplicates("config_id")))
    dense = [row for row in unique if row.kind == "dense"]
    same = {(row.base_id, row.recovery_id): row.config_id for row in dense}
    plain = {row.base_id: row.config_id for row in dense if row.recovery == "none"}
    found = {row.config_id: same.get((row.base_id, row.recovery_id), plain.get(row.base_id)) for row in unique}
    return {config_id: reference for config_id, reference in found.items() if reference}


def _cells(
    runs: pd.DataFrame,
    counted: pd.DataFrame,
    scores: pd.DataFrame,
    columns: list[Column],
    references: dict[str, str],
) -> Iterator[tuple[tuple[str, str], Cell]]:
    by_config = {str(config_id): part.droplevel("config_id") for config_id, part in scores.groupby(level="config_id")}
    statuses = runs.groupby(["config_id", "column"]).status.value_counts().unstack(fill_value=0)
    collapsed = counted[counted.collapsed.eq(True)].groupby(["config_id", "column"]).size()
    empty = pd.Series(dtype=float)

    def seeds_of(config_id: str | None, column: Column) -> "pd.Series[float]":
        return by_config[config_id][column.name].dropna() if config_id in by_config else empty

    for config_id in runs.config_id.unique():
        for column in columns:
            own, reference_id = seeds_of(config_id, column), references.get(config_id)
            dense = seeds_of(reference_id, column)
            is_dense = reference_id == config_id
            pairs = (own - dense).dropna() if not is_dense else empty
            key = (config_id, column.name)
            unpaired = "" if is_dense or len(pairs) else "no dense reference" if dense.empty else "no common seed"
            missing = "" if len(own) else _why_missing(column, key, statuses, runs.weights.iloc[0])
            many = int(collapsed.get(key, 0))
            yield (
                key,
                Cell(summarise(list(own)), summarise(list(pairs)), tuple(sorted(own.index)), many, missing, unpaired),
            )


def _why_missing(column: Column, key: tuple[str, str], statuses: pd.DataFrame, weights: str) -> str:
    if weights == "random":
        return "random weights"
    if column.metric == MEAN:
        return "not every task"
    if key not in statuses.index:
        return "not run"
    counts = dict(zip(statuses.columns, statuses.loc[[key]].to_numpy()[0], strict=True))
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _rows(runs: pd.DataFrame) -> list[Row]:
    found = []
    for config_id, part in runs.groupby("config_id"):
        sizes = part[["embedding_params", "embedding_bytes", "param_saving", "byte_saving"]].dropna()
        size: list[Any] = [None] * 4
        if len(sizes):
            size = [kind(value) for kind, value in zip((int, int, float, float), sizes.iloc[0], strict=True)]
        first = part.iloc[0]
        found.append(Row(str(config_id), first.configuration, first.kind, *size))
    return sorted(found, key=lambda row: (row.kind != "dense", -(row.bytes or 0), row.label))
