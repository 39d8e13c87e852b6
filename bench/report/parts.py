"""A task's languages or categories as a section of its own."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.report.frame import headline_runs, rows
from bench.report.section import ALL, GAP, Section
from bench.report.summary import section_of


def part_sections(frame: pd.DataFrame, threshold: float) -> list[Section]:
    """Return one section for every model and task that is also scored by several languages or categories, its columns these.

    `all` is the split's own score: the mean over languages, or the score of all rows. `gap` is the training language's score
    minus the mean of the others'.
    """
    lines = [piece for run in rows(headline_runs(frame)) if run.metric for piece in _pieces(run)]
    found = (
        [
            section_of(runs, threshold)
            for _, runs in pd.DataFrame(lines).groupby(["model", "weights", "suite"])
        ]
        if lines
        else []
    )
    found = [
        section for section in found if len({column.name for column in section.columns} - {ALL, GAP}) > 1
    ]
    for section in found:
        section.columns.sort(key=lambda column: (column.name != ALL, column.name != GAP, column.name))
    return found


def _pieces(run: Any) -> Iterator[dict[str, Any]]:
    """Yield the run once for each language or category; nothing for a run without any."""
    scores = {}
    for key, value in run.scores.items():
        where, _, metric = key.rpartition(".")
        split, _, part = where.partition("/")
        if split == run.split:
            scores[part, metric] = value
    if not any(part for part, _ in scores):
        return
    for (part, metric), value in scores.items():
        if metric == run.metric or (part, metric) == ("", GAP):
            name = part or (GAP if metric == GAP else ALL)
            yield run._asdict() | {
                "suite": run.column,
                "task": name,
                "column": name,
                "metric": metric,
                "value": value,
                "average": False,
                "evaluated_rows": scores.get((part, "rows"), run.evaluated_rows),
                "higher_is_better": run.higher_is_better != (metric == GAP),
                "chance": None if metric == GAP else run.chance,
                "collapsed": run.collapsed if name == ALL else None,
            }
