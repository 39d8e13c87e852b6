"""The decision: the smallest configuration of a section whose loss stays within a limit on the tasks that matter.

`brief/rule.js` is the same rule for the page, which therefore answers alike with scripts on and off. A test runs the cases of
tests/report/decisions.json through both.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import t

from bench.errors import ConfigError, unknown
from bench.report.breakdown import of_languages
from bench.report.runs import SECTION
from bench.report.scores import FLOORS, sections
from bench.settings.schema import ReportConfig
from bench.tasks.specs import task_names

# Share of a section's configurations that must have every task of a mean, so that its tasks decide.
ENOUGH = 0.2
POINTS = 100.0  # scale of a task whose headline metric is a fraction: it is compared in points
MOST_FREEDOM = 200.0  # more degrees of freedom change no probability that is shown

Item = dict[Any, Any]
"""A configuration: `row`, its main line of the score table, `bytes`, and lists by task, rounded to 0.01 point: `score`, `loss`
(against dense, over the seeds that both have; below zero: better), `half` (half-width of the loss's 95 % interval), `error` (the
loss's standard error; None for a single pair of seeds) with its degrees of `freedom`, `seeds`, `collapsed` (runs that predict a
single class), `why` (the reason for a missing loss)."""


class Verdict(NamedTuple):
    """Whether a configuration stays within the tolerated loss on the tasks that matter."""

    place: int  # index among the configurations offered
    holds: bool
    worst: float | None  # largest loss; None where a task that matters has none
    task: int | None  # index of the task with the largest loss


class Subject(NamedTuple):
    """What is decided about: a section, its tasks or languages that are compared in points, and the configurations on offer."""

    part: pd.DataFrame  # the section's lines of the score table
    languages: bool  # whether `columns` are the languages of the section's only task
    columns: list[dict[Any, Any]]
    dense: Item | None  # the dense configuration with a score on most of these tasks; None where none has any
    options: list[Item]  # compressed configurations with a score on any task, smallest first; no floors
    matter: list[int]  # indices in `columns` of the tasks that matter
    missing: list[str]  # tasks that matter and have no score


def subject(table: pd.DataFrame, question: ReportConfig, breakdowns: Sequence[pd.DataFrame] = ()) -> Subject:
    """Return what is decided about: report.model and report.suite, else the model of the newest run and its suite with most scores.

    The tasks that matter are report.tasks, else those of the mean over most tasks that enough configurations have. Of a section with
    a single task in several languages, given by its section of `breakdowns`, the languages take the tasks' part, unless
    report.tasks names the task. Raises ConfigError for a model or suite without any record.
    """
    # The section.
    for key, value in (("model", question.model), ("suite", question.suite)):
        known = set(map(str, table[key]))
        if value is not None and value not in known:
            raise ConfigError(unknown(f"report.{key}", value, known))
    asked = (table.model == (question.model or table.model)) & (
        table.suite == (question.suite or table.suite)
    )
    if not asked.any():
        raise ConfigError(
            f"report.suite ({question.suite}) has no records of report.model ({question.model})."
        )
    table = table[asked]
    if question.model is None:
        table = table[table.model.isin(table.model[table.newest == table.newest.max()])]
    part = max(sections(table), key=lambda part: part[~part.is_mean].n.sum())

    # Its tasks, and those that matter.
    tasks = part[~part.is_mean & (part.scale == POINTS)]
    spoken = _languages(tasks, breakdowns) if not {*question.tasks} & {*tasks.task} else tasks.iloc[:0]
    tasks = spoken if len(spoken) else tasks
    columns = tasks.drop_duplicates("column").to_dict("records")
    averaged = (() if len(spoken) else _averaged(part)) or [column["column"] for column in columns]
    names = question.tasks or [column["task"] for column in columns if column["column"] in averaged]
    known = {column["task"] for column in columns}
    for name in question.tasks:
        if name not in (there := {*known, *tasks.task, *task_names()}):
            raise ConfigError(unknown("task in report.tasks", name, there))

    # Its configurations.
    rows = {row["config_id"]: row for row in part[part.main].to_dict("records")}
    items = [_item(rows[name], lines) for name, lines in tasks.groupby("config_id", sort=False)]
    items = [item for item in items if any(score is not None for score in item["score"])]
    dense = [item for item in items if item["row"]["kind"] == "dense"]
    options = [item for item in items if _is_option(item["row"])]
    return Subject(
        part,
        len(spoken) > 0,
        columns,
        max(dense, key=_rank, default=None),
        sorted(options, key=lambda item: (item["bytes"], item["row"]["configuration"])),
        [place for place, column in enumerate(columns) if column["task"] in names],
        [name for name in names if name not in known],
    )


def _rank(dense: Item) -> tuple[int, bool, int]:
    """Return what decides which dense model is today's: on most tasks, without a teacher, of the newest training."""
    return dense["why"].count(""), dense["row"]["plain"], dense["row"]["training_version"]


def _languages(tasks: pd.DataFrame, breakdowns: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the lines of the languages of the only task; none where there are several tasks, or none in languages."""
    names = tasks[[*SECTION[:2], "column"]].drop_duplicates().to_numpy().tolist()
    found = [part for part in breakdowns if [part.iloc[0][SECTION].tolist()] == names]
    return of_languages(found[0]) if found else tasks.iloc[:0]


def _is_option(row: dict[Any, Any]) -> bool:
    """Return whether a configuration can be recommended: a compressed embedding, the body in fp32, no floor."""
    return row["kind"] != "dense" and row["body"] == "fp32" and row["config.embedding.name"] not in FLOORS


def _averaged(part: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns of the mean over most tasks among those that enough configurations have, or among all if none has."""
    means = part[part.is_mean & (part.body == "fp32")]
    having = (means.no_score == "").groupby(means.tasks).sum()
    enough = having[having >= ENOUGH * means.config_id.nunique()]
    return max(enough.index if len(enough) else having.index, key=len, default=())


def _item(row: dict[Any, Any], lines: pd.DataFrame) -> Item:
    """Return a configuration from its main line and its lines of the tasks."""
    worse = lines.higher_is_better.map({True: -1, False: 1})
    half = (lines.difference_ci95_high - lines.difference_ci95_low) / 2
    return {
        "row": row,
        "bytes": int(row["size.embedding_bytes"]) if pd.notna(row["size.embedding_bytes"]) else 0,
        "score": _points(lines["mean"]),
        "loss": _points(worse * lines.difference_to_dense),
        "half": _points(half),
        "error": [None if pd.isna(value) else round(value, 4) for value in lines.difference_error],
        "freedom": [
            None if pd.isna(value) else round(min(value, MOST_FREEDOM), 2)
            for value in lines.difference_freedom
        ],
        "seeds": list(lines.n),
        "collapsed": list(lines.collapsed),
        "why": [score or change for score, change in zip(lines.no_score, lines.no_difference, strict=True)],
    }


def _points(values: "pd.Series[float]") -> list[float | None]:
    """Return the values rounded to 0.01, without a negative zero."""
    return [None if pd.isna(value) else round(value, 2) + 0.0 for value in values]


def no_answer(about: Subject) -> str | None:
    """Return why there can be no answer (a key of `blocked` in the brief's texts), or None."""
    if about.part.weights.iloc[0] == "random":
        return "random"
    if not about.columns:
        return "unfinished"
    if about.dense is None:
        return "no_dense"
    if about.missing:
        return "missing"
    if not about.options:
        return "no_options"
    complete = any(mean(item, about.matter) is not None for item in (about.dense, *about.options))
    return None if complete else "incomplete"


def rank(offered: Sequence[Item], matter: Sequence[int], tolerance: float) -> list[Verdict]:
    """Return a verdict for each, best first: those that hold, in the order offered; then by worst loss; then those without one."""
    verdicts = [_judge(item, place, matter, tolerance) for place, item in enumerate(offered)]
    measured = [verdict for verdict in verdicts if not verdict.holds and verdict.worst is not None]
    return [
        *(verdict for verdict in verdicts if verdict.holds),
        *sorted(measured, key=lambda verdict: verdict.worst or 0.0),
        *(verdict for verdict in verdicts if verdict.worst is None),
    ]


def _judge(item: Item, place: int, matter: Sequence[int], tolerance: float) -> Verdict:
    """Return whether a configuration holds: no task that matters loses more than the tolerance, and no run of them collapsed."""
    losses = [item["loss"][task] for task in matter]
    if not losses or None in losses:
        return Verdict(place, False, None, None)
    worst = max(losses)
    holds = worst <= tolerance and not any(item["collapsed"][task] for task in matter)
    return Verdict(place, holds, worst, matter[losses.index(worst)])


def mean(item: Item, matter: Sequence[int]) -> float | None:
    """Return the mean score over the tasks that matter, or None where a task has no score."""
    scores = [item["score"][task] for task in matter]
    return None if not scores or None in scores else sum(scores) / len(scores)


def change(item: Item, matter: Sequence[int]) -> float | None:
    """Return the mean difference to dense over the tasks that matter and were measured, or None where none was."""
    losses = [item["loss"][task] for task in matter if item["loss"][task] is not None]
    return -sum(losses) / len(losses) if losses else None


def chance(item: Item, matter: Sequence[int], tolerance: float) -> float | None:
    """Return the probability that the losses of all tasks that matter are within the tolerance together.

    The true loss of a task is taken to be distributed as Student's t around the measured mean, with the standard error over seeds (and
    rows, where predictions are packed); tasks are independent. None where a task has no loss or a single pair of seeds.
    """
    shares = []
    for task in matter:
        loss, error, freedom = (item[key][task] for key in ("loss", "error", "freedom"))
        if loss is None or error is None:
            return None
        shares.append(
            float(t.cdf((tolerance - loss) / error, freedom)) if error else float(loss <= tolerance)
        )
    return math.prod(shares) if shares else None
