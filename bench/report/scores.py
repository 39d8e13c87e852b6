"""The tidy table: a line for each configuration and each task, or mean over tasks, of each model and suite.

Tables, figures, the gate and the brief read it. Facts about a configuration have the record's dotted names, such as
size.embedding_bytes; scores are in points where the metric is a fraction.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from bench import statistics
from bench.report.cells import Scores, by_seed, cell_of
from bench.report.latency import in_use
from bench.report.names import column_name, known_as, weights_text
from bench.report.runs import SECTION, headline_runs, provenance, rows
from bench.tasks.metrics import METRICS

MEAN = "headline metrics"
ALL, GAP = "all", "gap"  # in a breakdown: the whole split's score, and how far other languages are behind
FLOORS = ("mean", "hash_only")  # methods that every other must beat: all tokens share what they store
# Columns of the runs that do not depend on the task.
OF_A_CONFIGURATION = ("config.embedding.", "size.", "fit.", "pretraining.", "recovery.")
OF_A_LANGUAGE = ("tokens_per_text", "distinct_tokens")  # columns of a breakdown's lines
SIZE = "size.embedding_bytes"
NAMES = [
    "configuration",
    "kind",
    "plain_name",
    "body",
    "recovery",
    "plain",
    "training_version",
    "table_family",
    "assignment_family",
]


def score_table(runs: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the table of the runs; `threshold` is the loss in points that `p_noninferiority` tests against.

    Where the runs have `replicates` (see `with_replicates`), intervals and tests are over seeds and rows. `p_holm` corrects the
    test for the number of configurations that were compared with dense in the same column.
    Within a section (a model on a suite) configurations go from dense to the smallest. Means over tasks are the last columns;
    `main` marks the column that stands for the section. Missing numbers are NaN.
    """
    table = pd.DataFrame([line for _, part in runs.groupby(SECTION) for line in _section(part, threshold)])
    if len(table):
        tested = table.dropna(subset=["p_noninferiority"])
        table["p_holm"] = tested.groupby([*SECTION, "column"]).p_noninferiority.transform(statistics.holm)
    unknown = table.columns[table.isna().all()]
    return table.astype(dict.fromkeys(unknown, float))


def sections(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the table's sections, one for each model and suite."""
    return [part for _, part in table.groupby(SECTION)] if len(table) else []


def quality(lines: pd.DataFrame) -> "pd.Series[float]":
    """Return the lines' mean scores, negative where lower ones are better."""
    return lines["mean"].where(lines.higher_is_better.astype(bool), -lines["mean"])


def guessing(lines: pd.DataFrame) -> "pd.Series[bool]":
    """Return which lines may be no better than always giving the commonest answer: by their interval, or by a collapsed run."""
    return (lines.ci95_low.fillna(lines["mean"]) <= lines.majority.astype(float)) | (lines.collapsed > 0)


def _section(runs: pd.DataFrame, threshold: float) -> Iterator[dict[Any, Any]]:
    """Yield the lines of a model on a suite."""
    # Columns: each task, then means over tasks.
    counted = headline_runs(runs)
    tasks = [
        _task(str(name), part, counted[counted.column == name])
        for name, part in runs.groupby("column", sort=False)
    ]
    cells = ["config_id", "column"]
    values, drawn = _scored(counted, {task["column"]: task["scale"] for task in tasks})
    means, no_mean = _means(tasks, values)
    columns, main = [*tasks, *means], means[-1] if means else tasks[0]

    # What is true of all lines.
    model, weights, suite = runs.iloc[0][SECTION]
    about = {"model": model, "weights": weights, "suite": suite, "margin": threshold, "no_mean": no_mean}
    marked = f" ({weights_text(weights)})".removesuffix(" ()")
    about |= {"recorded_as": f"{model}{marked}", "title": f"{known_as(model)}{marked}"}
    about |= {"provenance": provenance(runs), "newest": runs.created_at.max()}
    where, costs = in_use(counted)

    # Rows and cells.
    references = _references(runs)
    statuses = {key: Counter(part) for key, part in runs.groupby(cells).status}
    collapsed = counted[counted["training.collapsed"].eq(True)].groupby(cells).size()
    known = [key for key in OF_A_LANGUAGE if key in counted]
    tokens = counted.groupby(cells)[known].max().to_dict("index") if known else {}
    for config_id, row in _rows(runs, counted, costs).to_dict("index").items():
        reference = references.get(str(config_id))
        for column in columns:
            ours, dense = (
                Scores(*(by_seed(part, one, column["tasks"]) for part in (values, drawn)))
                for one in (config_id, reference)
            )
            cell = cell_of(ours, None if reference == config_id else dense, column, threshold)
            place = config_id, column["column"]
            compared = reference == config_id or cell["paired_seeds"]
            cell |= {
                "collapsed": sum(int(collapsed.get((config_id, task), 0)) for task in column["tasks"]),
                "no_score": "" if ours.by_seed else _why_missing(column, statuses.get(place), weights),
                "no_difference": ""
                if compared
                else "no common seed"
                if dense.by_seed
                else "no dense reference",
            }
            cell |= tokens.get(place, dict.fromkeys(OF_A_LANGUAGE))
            yield about | where | {"config_id": config_id} | row | column | {"main": column is main} | cell


def _rows(runs: pd.DataFrame, counted: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return the configurations with their names, sizes, costs and profiles, by config_id, from dense to the smallest."""
    kept = [column for column in runs.columns if column.startswith(OF_A_CONFIGURATION)]
    profiles = counted.dropna(subset=["profiles"]).groupby("config_id").profiles.first()
    facts = runs.groupby("config_id")[[*NAMES, *kept]].first().join(costs).join(profiles)
    facts["compressed"], facts["saved"] = facts.kind != "dense", -facts[SIZE].astype(float).fillna(0)
    # Of dense models the newest comes first: charts name it.
    order = {"compressed": True, "saved": True, "training_version": False, "configuration": True}
    return facts.sort_values(list(order), ascending=list(order.values())).drop(
        columns=["compressed", "saved"]
    )


def _scored(
    counted: pd.DataFrame, scales: dict[Any, float]
) -> tuple[dict[Any, dict[int, float]], dict[Any, dict[int, np.ndarray]]]:
    """Return (configuration, column) -> seed -> score, and -> seed -> scores of drawn rows where predictions are packed."""
    values, drawn = dict[Any, dict[int, float]](), dict[Any, dict[int, np.ndarray]]()
    for key, part in counted.dropna(subset=["headline.value"]).groupby(["config_id", "column"]):
        scale = scales[key[1]]
        values[key] = dict(zip(part.seed, part["headline.value"] * scale, strict=True))
        draws = zip(part.seed, part.replicates, strict=True)
        drawn[key] = {seed: scale * one for seed, one in draws if isinstance(one, np.ndarray)}
    return values, drawn


def _task(name: str, runs: pd.DataFrame, counted: pd.DataFrame) -> dict[str, Any]:
    """Return the facts about a task that its column shows."""
    values = counted.dropna(subset=["headline.value"])
    first = (values if len(values) else runs).iloc[0]
    metric = first["headline.metric"] if len(values) else None
    scale = 100.0 if metric in METRICS else 1.0
    higher, rows = first["headline.higher_is_better"], values.evaluated_rows.min()
    return {
        "task": first.task,
        "column": name,
        "tasks": (name,),
        "marks": first.marks,
        "unofficial": first.unofficial,
        "not_official": "; ".join(first.marks),
        "headline.metric": metric,
        "headline.split": first["headline.split"] if len(values) else None,
        "higher_is_better": True if pd.isna(higher) else bool(higher),
        "scaling": scaling(metric, scale),
        "metric": f"{metric or ''}{scaling(metric, scale)}",
        "scale": scale,
        # The score of always giving the commonest answer; of a metric without one, the score by chance.
        "majority": next(
            (scale * first[key] for key in ("task.majority", "task.chance") if pd.notna(first[key])), None
        ),
        # The evaluated rows of each task, where its score is a share of them.
        "rows": [int(rows)] if metric in METRICS and METRICS[metric].of_rows and pd.notna(rows) else None,
        "average": bool(runs.average.all()),
        "is_mean": False,
    }


def scaling(metric: str | None, scale: float) -> str:
    """Return the suffix of a metric's name: " (%)", " × 100" or nothing."""
    if scale == 1:
        return ""
    return " (%)" if metric in METRICS and METRICS[metric].percent else " × 100"


def _means(
    tasks: list[dict[str, Any]], values: dict[Any, dict[int, float]]
) -> tuple[list[dict[str, Any]], str]:
    """Return the columns of means over tasks, the main column last, or why there are none."""
    averaged = [task for task in tasks if task["average"]]
    finished = [task for task in averaged if task["headline.metric"]]
    averaged = finished if len(finished) > 1 else averaged
    if len(averaged) < 2:
        return [], "fewer than two tasks to average"
    if len({task["task"] for task in averaged}) < len(averaged):
        return [], "a task was run on several selections of its data"
    if any(task["scale"] == 1 or not task["higher_is_better"] for task in averaged):
        return [], "a task has no finished run, or its headline is no fraction that grows with quality"
    having = {
        task["column"]: {config_id for config_id, column in values if column == task["column"]}
        for task in averaged
    }
    return [_mean([task for task in averaged if task["column"] in names]) for names in shared(having)], ""


def shared(having: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of tasks to average, from `having`: task -> its configurations. The last brings most scores together.

    First all tasks, if any configuration has them all; then smaller sets without the rarest tasks, wherever that at least
    doubles the number of configurations that have every task.
    """
    rarest, sets, most = sorted(having, key=lambda task: len(having[task])), list[tuple[int, list[str]]](), 0
    for start in range(len(rarest) - 1):
        names = [task for task in having if task in rarest[start:]]
        complete = len(set.intersection(*(having[task] for task in names)))
        if not sets or complete >= 2 * max(most, 1):
            sets.append((complete * len(names), names))
            most = complete
    return [names for scores, names in sorted(sets, key=lambda pair: pair[0]) if scores or len(sets) == 1]


def _mean(averaged: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the column of the mean over these tasks."""
    marks = averaged[0]["marks"]
    if any(task["marks"] != marks for task in averaged):
        marks = (", ".join(task["task"] for task in averaged if task["marks"]),)
    name = f"mean of {', '.join(task['task'] for task in averaged)}"
    rows, levels = ([task[key] for task in averaged] for key in ("rows", "majority"))
    return averaged[0] | {
        "task": name,
        "column": column_name(name, marks),
        "tasks": tuple(task["column"] for task in averaged),
        "marks": marks,
        "unofficial": (),
        "not_official": "; ".join(marks),
        "headline.metric": MEAN,
        "headline.split": None,
        "scaling": scaling(MEAN, 100.0),
        "metric": MEAN + scaling(MEAN, 100.0),
        "majority": None if None in levels else sum(levels) / len(levels),
        "rows": None if None in rows else [count for part in rows for count in part],
        "is_mean": True,
    }


def _references(runs: pd.DataFrame) -> dict[str, str]:
    """Return config_id -> config_id of the dense model that would be used instead.

    That model has no recovery, no teacher and a body in fp32, so that a difference is the loss by all together. Where it was not
    trained, the dense model at its only learning rate takes its part, and then the dense model with the same recovery.
    """
    unique = list(rows(runs.drop_duplicates("config_id")))
    dense = [row for row in unique if row.kind == "dense"]
    same = {(row.base_id, row.recovery_id): row.config_id for row in dense}
    plain = {row.base_id: row.config_id for row in dense if row.plain}
    rates = Counter(row.recipe_id for row in dense if row.plain)
    tuned = {row.recipe_id: row.config_id for row in dense if row.plain and rates[row.recipe_id] == 1}
    references: dict[str, str | None] = {}
    for row in unique:
        recovered = same.get((row.base_id, row.recovery_id))
        references[row.config_id] = plain.get(row.base_id, tuned.get(row.recipe_id, recovered))
    return {config_id: reference for config_id, reference in references.items() if reference}


def _why_missing(column: dict[str, Any], statuses: Counter[str] | None, weights: str) -> str:
    """Return why a configuration has no score in a column."""
    if weights == "random":
        return "random weights"
    if column["is_mean"]:
        return "not every task"
    return ", ".join(f"{count} {status}" for status, count in sorted((statuses or {}).items())) or "not run"
