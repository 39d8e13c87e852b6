"""Seeds brought together: what every table and figure shows, computed once."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from bench import statistics
from bench.report import usage
from bench.report.frame import column_name, headline_runs, provenance, rows
from bench.report.section import MEAN, Cell, Column, Row, Section
from bench.statistics import NOTHING, Summary, summarise

COSTS = ["peak_memory_bytes", "latency_batch1_ms", "latency_batch32_ms"]
UNBOUNDED = (
    "loss",
    "perplexity",
    "mse",
    "rmse",
    "mae",
)  # metrics that are no fractions and are shown as they are


def sections(frame: pd.DataFrame, threshold: float) -> list[Section]:
    """Return one section for every model and suite of the frame."""
    return [section_of(runs, threshold) for _, runs in frame.groupby(["model", "weights", "suite"])]


def section_of(runs: pd.DataFrame, threshold: float) -> Section:
    """Return the section of the runs of one model and suite."""
    model, weights, suite = runs[["model", "weights", "suite"]].iloc[0]
    counted = headline_runs(runs)
    columns = [
        _column(str(name), part, counted[counted.column == name]) for name, part in runs.groupby("column")
    ]
    averaged = [column for column in columns if runs[runs.column == column.name].average.all()]
    scales = {column.name: column.scale for column in columns}
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for run in rows(counted.dropna(subset=["value"])):
        scores.setdefault((run.config_id, run.column), {})[run.seed] = run.value * scales[run.column]
    finished = [column for column in averaged if column.metric]
    averaged = finished if len(finished) > 1 else averaged
    no_mean = _no_mean(averaged)
    having = {
        column.name: {config_id for config_id, name in scores if name == column.name} for column in averaged
    }
    means = (
        []
        if no_mean
        else [
            _mean_column([column for column in averaged if column.name in names]) for names in shared(having)
        ]
    )
    machines = (
        counted.dropna(subset=["latency_batch1_ms"]).groupby(["device", "threads"], dropna=False).size()
    )
    machine: Any = machines.idxmax() if len(machines) else (None, None)  # the one with most runs
    made = _rows(
        runs, counted, list(means[-1].parts) if means else [column.name for column in columns], machine
    )
    used = usage.source(counted[counted.kind == "dense"])
    if used.tokens:
        made = [
            _in_use(row, counted[counted.config_id == row.config_id].profiles.dropna(), used) for row in made
        ]
    elif counted[counted.kind == "dense"].latency_batch1_ms.isna().all() and any(
        row.kind == "dense" for row in made
    ):
        made = [
            row._replace(peak_memory_bytes=None, latency_batch1_ms=None, latency_batch32_ms=None)
            for row in made
        ]
        machine = (None, None)  # there is nothing to compare with
    place = f"{used.device} by bench cost" if used.tokens else _machine(*machine)
    section = Section(
        model,
        weights,
        suite,
        made,
        [*columns, *means],
        {},
        means,
        no_mean,
        place,
        used.tokens,
        threshold,
        provenance(runs),
        scores,
    )
    section.cells.update(_cells(runs, counted, section))
    return section


def _column(name: str, runs: pd.DataFrame, counted: pd.DataFrame) -> Column:
    values = counted.dropna(subset=["value"])
    first = (values if len(values) else runs).iloc[0]
    fraction = len(values) > 0 and first.metric not in UNBOUNDED and values.value.abs().max() <= 1
    scale = 100.0 if fraction else 1.0
    chance = None if pd.isna(first.chance) else float(first.chance) * scale
    metric, split = (first.metric, first.split) if len(values) else (None, None)
    rows = values.evaluated_rows.min() if metric == "accuracy" else None
    return Column(
        name,
        first.task,
        first.marks,
        first.unofficial,
        metric,
        split,
        scale,
        bool(first.higher_is_better),
        chance,
        (name,),
        None if pd.isna(rows) else int(rows),
    )


def _no_mean(averaged: list[Column]) -> str:
    """Return why the tasks have no mean; empty where they have one."""
    tasks = [column.task for column in averaged]
    if len(tasks) < 2:
        return "fewer than two tasks to average"
    if len(set(tasks)) < len(tasks):
        return "a task is there on several selections of its data"
    if any(column.scale == 1 or not column.higher_is_better for column in averaged):
        return "a task has no finished run, or its headline is no fraction that grows with quality"
    return ""


def shared(having: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of tasks to average, from `having`: task -> its configurations. The last brings most scores together.

    All tasks are one set, if any configuration has them all. Those that half of the configurations or more lack are left out
    of another: where fewer tasks are shared by at least twice as many configurations.
    """
    rarest, found, most = sorted(having, key=lambda task: len(having[task])), list[tuple[int, list[str]]](), 0
    for start in range(len(rarest) - 1):
        names = [task for task in having if task in rarest[start:]]
        together = len(set.intersection(*(having[task] for task in names)))
        if not found or together >= 2 * max(most, 1):
            found.append((together * len(names), names))
            most = together
    return [names for size, names in sorted(found, key=lambda one: one[0]) if size or len(found) == 1]


def _mean_column(averaged: list[Column]) -> Column:
    """Return the mean over these tasks."""
    marks = averaged[0].marks
    if any(column.marks != marks for column in averaged):
        marks = (", ".join(column.task for column in averaged if column.marks),)
    chances = [column.chance for column in averaged if column.chance is not None]
    chance = sum(chances) / len(chances) if len(chances) == len(averaged) else None
    task = f"mean of {', '.join(column.task for column in averaged)}"
    names = tuple(column.name for column in averaged)
    return Column(column_name(task, marks), task, marks, (), MEAN, None, 100.0, True, chance, names, None)


def _references(runs: pd.DataFrame) -> dict[str, str]:
    """Return config_id -> config_id of the dense model that would be used instead.

    It has no recovery, no teacher and a body in fp32, so that a difference is the cost of all together; where there is none, it is the
    dense model with the same recovery. Where methods have learning rates of their own, it is the dense model at its only rate.
    """
    unique = list(rows(runs.drop_duplicates("config_id")))
    dense = [row for row in unique if row.kind == "dense"]
    same = {(row.base_id, row.recovery_id): row.config_id for row in dense}
    plain = {row.base_id: row.config_id for row in dense if row.plain}
    rates = Counter(row.recipe_id for row in dense if row.plain)
    tuned = {row.recipe_id: row.config_id for row in dense if row.plain and rates[row.recipe_id] == 1}
    found = {
        row.config_id: plain.get(
            row.base_id, tuned.get(row.recipe_id, same.get((row.base_id, row.recovery_id)))
        )
        for row in unique
    }
    return {config_id: reference for config_id, reference in found.items() if reference}


def _cells(
    runs: pd.DataFrame, counted: pd.DataFrame, section: Section
) -> Iterator[tuple[tuple[str, str], Cell]]:
    references = _references(runs)
    statuses = runs.groupby(["config_id", "column"]).status.value_counts().unstack(fill_value=0)
    collapsed = counted[counted.collapsed.eq(True)].groupby(["config_id", "column"]).size()
    counts = {column.name: column.rows for column in section.columns if column.scale == 100}
    for config_id in map(str, runs.config_id.unique()):
        for column in section.columns:
            key = (config_id, column.name)
            own, reference = section.values(config_id, column), references.get(config_id)
            evaluated = [count for part in column.parts if (count := counts.get(part))]
            evaluated = evaluated if len(evaluated) == len(column.parts) else []
            change, share, worse, unpaired = NOTHING, NOTHING, None, ""
            if reference is None:
                unpaired = "no dense reference"
            elif reference != config_id:
                change, share, worse = _against(section, key, reference, column, evaluated)
                lacking = "no common seed" if section.values(reference, column) else "no dense reference"
                unpaired = "" if change.n else lacking
            score = summarise(np.array(list(own.values())).T)
            if score.n == 1 and evaluated:
                (values,) = own.values()
                score = _mean_of_one_seed(
                    map(statistics.of_one_seed, (value / 100 for value in values), evaluated)
                )
            many = sum(int(collapsed.get((config_id, part), 0)) for part in column.parts)
            missing = "" if own else _why_missing(column, key, statuses, section.weights)
            yield key, Cell(score, change, share, worse, tuple(own), many, missing, unpaired)


def _against(
    section: Section, key: tuple[str, str], reference: str, column: Column, rows: list[int]
) -> tuple[Summary, Summary, float | None]:
    """Return difference to dense, percent of dense and the probability of being worse by more than the threshold.

    `rows` are behind each task's scores where all are shares of rows; else it is empty.
    """
    own, dense = section.paired(key[0], reference, column)
    change, worse, sign = summarise(own - dense), None, 1 if column.higher_is_better else -1
    ratio = statistics.ratio(own, dense) if column.higher_is_better else None
    share = NOTHING if ratio is None else summarise(100 * ratio)
    if column.scale == 100:
        worse = statistics.probability_below(sign * (own - dense), -section.threshold)
        if change.n == 1 and rows:
            ours, theirs = (own[:, 0] / 100).tolist(), (dense[:, 0] / 100).tolist()
            change = _mean_of_one_seed(map(statistics.difference_of_one_seed, ours, theirs, rows))
            worse = statistics.probability_below_of_one_seed(ours, theirs, rows, -section.threshold / 100)
    return change, share, worse


def _mean_of_one_seed(tasks: Iterable[Summary]) -> Summary:
    """Return the tasks' mean in percent; they are fractions."""
    found = statistics.mean_of_one_seed(list(tasks))
    mean, low, high = (
        None if value is None else 100 * value for value in (found.mean, found.low, found.high)
    )
    return found._replace(mean=mean, low=low, high=high)


def _why_missing(column: Column, key: tuple[str, str], statuses: pd.DataFrame, weights: str) -> str:
    if weights == "random":
        return "random weights"
    if column.metric == MEAN:
        return "not every task"
    if key not in statuses.index:
        return "not run"
    counts = dict(zip(statuses.columns, statuses.loc[[key]].to_numpy()[0], strict=True))
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _machine(device: str | None, threads: float | None) -> str:
    count = "" if threads is None or pd.isna(threads) else f", {int(threads)} thread{'s' * int(threads > 1)}"
    return f"{device or ''}{count}"


def _in_use(row: Row, profiles: pd.Series, used: usage.Source) -> Row:
    """Return the row with latency and memory as `bench cost` measured them."""
    times, memory = usage.profiled(next(iter(profiles), None), used)
    return row._replace(
        latency_batch1_ms=times.get(1), latency_batch32_ms=times.get(32), peak_memory_bytes=memory
    )


def _rows(
    runs: pd.DataFrame, counted: pd.DataFrame, columns: list[str], machine: tuple[Any, Any]
) -> list[Row]:
    measured = counted[counted.column.isin(columns)]
    for key, value in zip(("device", "threads"), machine, strict=True):
        measured = measured[measured[key].isna() if pd.isna(value) else measured[key] == value]
    medians = measured.groupby(["config_id", "column"])[COSTS].median()
    found = []
    for config_id, part in runs.groupby("config_id"):
        keys = [
            "embedding_params",
            "embedding_bytes",
            "param_saving",
            "byte_saving",
            "file_bytes",
            "total_bytes",
        ]
        sizes = part[keys].dropna(subset=["embedding_bytes"])
        size: list[Any] = [None] * 6
        if len(sizes):
            size = [
                None if pd.isna(value) else kind(value)
                for kind, value in zip((int, int, float, float, int, int), sizes.iloc[0], strict=True)
            ]
        own = medians.loc[[config_id]] if config_id in medians.index else medians.iloc[:0]
        complete = own.mean() if len(own) == len(columns) else own.iloc[:0].mean()
        cost: list[Any] = [None if pd.isna(value) else float(value) for value in complete]
        first = part.iloc[0]
        grid: list[Any] = [None if pd.isna(first[key]) else int(first[key]) for key in ("subspaces", "rows")]
        made: list[Any] = [
            next((value for value in part[key] if isinstance(value, list)), None)
            for key in ("decile_errors", "recovery_curve")
        ]
        names: list[Any] = [
            str(config_id),
            first.configuration,
            first.kind,
            first.method,
            first.body,
            first.recovery,
        ]
        found.append(
            Row._make([*names, *grid, first.table_family, first.assignment_family, *size, *cost, *made])
        )
    return sorted(found, key=lambda row: (row.kind != "dense", -(row.bytes or 0), row.label))
