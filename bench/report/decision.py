"""The decision: the smallest configuration of a section whose loss stays within a limit on the tasks that matter.

`brief.js` follows the same rules on the same rounded numbers, so that the page answers alike with scripts on and off.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from bench.errors import ConfigError, unknown
from bench.report.section import FLOORS, Cell, Column, Row, Section
from bench.settings.schema import ReportConfig

ENOUGH = 0.2  # share of a section's configurations that must have every task of a mean for these to decide
POINTS = 100.0  # a task is compared in points where its headline metric is a fraction


class Result(NamedTuple):
    """One configuration on one task, in points rounded to 0.01."""

    score: float | None
    loss: float | None  # against dense, over the seeds that both have; negative: better than dense
    half: float | None  # half-width of the loss's 95 % interval; None with one pair of seeds
    pairs: int
    seeds: int
    collapsed: int  # runs that predict one class only
    why: str  # there is no loss; empty where there is one


class Option(NamedTuple):
    """A configuration that could be chosen, with a result for each task."""

    row: Row
    bytes: int
    results: tuple[Result, ...]


class Verdict(NamedTuple):
    """What the tasks that matter say about an option."""

    option: Option
    holds: bool
    worst: float | None  # largest loss; None where a task that matters has none
    task: int | None  # where that is


class Subject(NamedTuple):
    """What is decided about: one section, the tasks that can be compared in points, and what could be chosen."""

    section: Section
    columns: list[Column]
    dense: Row | None  # the dense configuration with a score on most of these tasks; None where none has any
    options: list[
        Option
    ]  # the compressed configurations with a score on any of them, smallest first; no floors
    matter: list[int]  # places in `columns` of the tasks that matter
    missing: list[str]  # tasks that matter and have no score


def subject(parts: Sequence[Section], wanted: ReportConfig) -> Subject:
    """Return what is decided about: report.model and report.suite, else the section with most scores.

    The tasks that matter are report.tasks, else those of the mean over most tasks that enough configurations have.
    Raises ConfigError for a model or suite without any record.
    """
    for key, value in (("model", wanted.model), ("suite", wanted.suite)):
        known = {str(getattr(part, key)) for part in parts}
        if value is not None and value not in known:
            raise ConfigError(unknown(f"report.{key}", value, known))
    chosen = [
        part for part in parts if wanted.model in (None, part.model) and wanted.suite in (None, part.suite)
    ]
    if not chosen:
        raise ConfigError(f"report.suite ({wanted.suite}) has no records of report.model ({wanted.model}).")
    section = max(
        chosen,
        key=lambda part: sum(
            part.cells[row.config_id, column.name].score.n for row in part.rows for column in part.tasks
        ),
    )
    columns = [column for column in section.tasks if column.scale == POINTS]
    averaged = _averaged(section) or [column.name for column in columns]
    names = wanted.tasks or [column.task for column in columns if column.name in averaged]
    return Subject(
        section,
        columns,
        _dense(section, columns),
        _options(section, columns),
        [place for place, column in enumerate(columns) if column.task in names],
        [name for name in names if name not in {column.task for column in columns}],
    )


def _averaged(section: Section) -> tuple[str, ...]:
    """Return the columns of the mean over most tasks that enough configurations have, of all where none has enough."""
    having = {
        mean.parts: sum(not section.cells[row.config_id, mean.name].missing for row in section.embeddings)
        for mean in section.means
    }
    enough = [parts for parts, count in having.items() if count >= ENOUGH * len(section.embeddings)]
    return max(enough or having, key=len, default=())


def no_answer(about: Subject) -> str | None:
    """Return why there can be no answer (a key of `blocked` in the brief's texts), or None."""
    if about.section.weights == "random":
        return "random"
    if not about.columns:
        return "unfinished"
    if about.dense is None:
        return "no_dense"
    if about.missing:
        return "missing"
    if not about.options:
        return "no_options"
    rows = [about.dense, *(option.row for option in about.options)]
    complete = any(
        mean(results_of(about.section, row, about.columns), about.matter) is not None for row in rows
    )
    return None if complete else "incomplete"


def _dense(section: Section, columns: Sequence[Column]) -> Row | None:
    found = [
        (sum(not section.cells[row.config_id, column.name].missing for column in columns), row)
        for row in section.rows
        if row.kind == "dense"
    ]
    most, row = max(found, key=lambda pair: pair[0], default=(0, None))
    return row if most else None


def _options(section: Section, columns: Sequence[Column]) -> list[Option]:
    found = []
    for row in section.embeddings:
        results = results_of(section, row, columns)
        if (
            row.kind != "dense"
            and row.method not in FLOORS
            and row.bytes is not None
            and any(result.score is not None for result in results)
        ):
            found.append(Option(row, row.bytes, results))
    return sorted(found, key=lambda option: (option.bytes, option.row.label))


def results_of(section: Section, row: Row, columns: Sequence[Column]) -> tuple[Result, ...]:
    """Return the configuration's result on each of these tasks."""
    return tuple(_result(section.cells[row.config_id, column.name], column) for column in columns)


def _result(cell: Cell, column: Column) -> Result:
    sign = -1 if column.higher_is_better else 1
    loss = None if cell.change.mean is None else _round(sign * cell.change.mean)
    half = None if cell.change.half is None else _round(cell.change.half)
    score = None if cell.score.mean is None else _round(cell.score.mean)
    return Result(
        score, loss, half, cell.change.n, cell.score.n, cell.collapsed, cell.missing or cell.unpaired
    )


def rank(offered: Sequence[Option], matter: Collection[int], tolerance: float) -> list[Verdict]:
    """Return a verdict for each option, best first: those that hold by size, then by their worst loss, then those not measured.

    An option holds where every task that matters (its place in `results`) loses no more than the tolerance and no run collapsed.
    """
    judged = []
    for place, option in enumerate(offered):
        losses = [(loss, task) for task in sorted(matter) if (loss := option.results[task].loss) is not None]
        worst, task = (
            max(losses, key=lambda pair: pair[0]) if losses and len(losses) == len(matter) else (None, None)
        )
        holds = (
            worst is not None
            and worst <= tolerance
            and not any(option.results[task].collapsed for task in matter)
        )
        key = (0, 0.0, place) if holds else (2, 0.0, place) if worst is None else (1, worst, place)
        judged.append((key, Verdict(option, holds, worst, task)))
    return [verdict for _, verdict in sorted(judged, key=lambda pair: pair[0])]


def mean(results: Sequence[Result], matter: Collection[int]) -> float | None:
    """Return the mean score over the tasks that matter, or None where one has none."""
    scores = [score for task in sorted(matter) if (score := results[task].score) is not None]
    return sum(scores) / len(scores) if scores and len(scores) == len(matter) else None


def _round(value: float) -> float:
    return round(value, 2) + 0.0  # no negative zero
