"""A task's languages or categories as columns: each such task becomes a section."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.report.runs import SECTION, headline_runs
from bench.report.scores import ALL, GAP, OF_A_LANGUAGE, score_table

LETTERS = 2  # of a language's name in XNLI


def breakdown_table(runs: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return a score table with a section for every model and task that is also scored by several languages or categories.

    `all` is the score of the whole split: the mean over languages, or the score of all rows. `gap` is the training language's
    score minus the mean of the others'.
    """
    counted = headline_runs(runs).dropna(subset=["headline.metric"])
    lines = pd.DataFrame([line for run in counted.to_dict("records") for line in _lines(run)])
    if lines.empty:
        return lines
    lines = lines.groupby(SECTION).filter(lambda part: len(set(part.column) - {ALL, GAP}) > 1)
    first = {ALL: 0, GAP: 1}
    lines = lines.sort_values("column", key=lambda names: names.map(lambda name: (first.get(name, 2), name)))
    return score_table(lines, threshold)


def of_languages(part: pd.DataFrame) -> pd.DataFrame:
    """Return a section's lines about single languages; none where its columns are categories."""
    lines = part[~part.column.isin([ALL, GAP])]
    return lines if (lines.column.str.len() == LETTERS).all() else lines.iloc[:0]


def _lines(run: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    """Yield the run once for each language or category; nothing for a run without any."""
    scores = {}
    for key, value in run.items():
        where, _, metric = key.removeprefix("metrics.").rpartition(".")
        split, _, part = where.partition("/")
        if key.startswith("metrics.") and split == run["headline.split"] and pd.notna(value):
            scores[part, metric] = value
    if not any(part for part, _ in scores):
        return
    for (part, metric), value in scores.items():
        if metric == run["headline.metric"] or (part, metric) == ("", GAP):
            name = part or (GAP if metric == GAP else ALL)
            yield run | {
                "suite": run["column"],
                "task": name,
                "column": name,
                "headline.metric": metric,
                "headline.value": value,
                "headline.higher_is_better": run["headline.higher_is_better"] != (metric == GAP),
                "average": False,
                "evaluated_rows": scores.get((part, "rows"), run["evaluated_rows"]),
                **({"task.chance": None, "task.majority": None} if metric == GAP else {}),
                **_tokens(run, part),
                "replicates": run["replicates"] if name == ALL else None,
                "training.collapsed": run["training.collapsed"] if name == ALL else None,
            }


def _tokens(run: dict[Any, Any], language: str) -> dict[str, float]:
    """Return the tokens of a text in the language, on average, and its different tokens, as the reported split has them."""
    for key, split in run.items():
        facts = f"{key.removesuffix('.split')}.languages.{language}"
        if (
            key.endswith(".split")
            and split == run["headline.split"]
            and pd.notna(many := run.get(f"{facts}.tokens"))
        ):
            texts = run[f"{facts}.rows"] * len(run["config.task.columns"])
            return dict(zip(OF_A_LANGUAGE, (many / texts, run[f"{facts}.distinct_tokens"]), strict=True))
    return {}
