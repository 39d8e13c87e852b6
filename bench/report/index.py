"""INDEX.md: the page that shows coverage, figures and tables, and says what made them."""

from typing import NamedTuple

import pandas as pd

from bench.report import latency, tables
from bench.report.frame import digest
from bench.report.grid import to_markdown
from bench.report.published import TITLE, published_grid
from bench.report.section import ALL, Section
from bench.store import STATUSES
from bench.text import escape

PARTS_TO_READ = (
    "Single tags are in [tables/parts.csv](tables/parts.csv). `all` is the mean over languages, or "
    "the score of all rows; `gap` is the training language's score minus the mean of the others'."
)
MISSING = "Missing are seeds that other configurations have on the task; a sweep may plan fewer for some: `make status` knows its plan."


class Drawn(NamedTuple):
    """A figure's title and its image, relative to the results folder."""

    title: str
    image: str


def index(
    frame: pd.DataFrame,
    coverage: pd.DataFrame,
    problems: list[tuple[str, str]],
    shown: list[tuple[Section, list[Drawn]]],
    published: pd.DataFrame,
) -> str:
    """Return INDEX.md. It holds no time and no path of this machine, so that equal records give equal bytes."""
    parts = ["# Results", provenance(frame), _coverage(frame, coverage), _unreadable(problems)]
    parts.append(f"## Scores\n\n{tables.HOW_TO_READ}")
    for section, figures in shown:
        parts.append(f"### {escape(section.title)} on {escape(section.suite)}")
        parts += [f"![{escape(figure.title)}]({figure.image})" for figure in figures]
        parts += [PARTS_TO_READ] if any(column.name == ALL for column in section.columns) else []
        parts += [to_markdown(tables.results_grid(section)), latency.side_by_side(section, frame)]
        budgets = tables.budget_grid(section)
        if budgets.rows and section.no_mean == "":
            parts.append(f"#### {escape(budgets.title)}\n\n{to_markdown(budgets)}")
    if len(published):
        parts.append(f"## {TITLE}\n\n{to_markdown(published_grid(published))}")
    parts.append(_not_official(frame))
    parts.append(
        "## How to make this again\n\n`make report` writes tables, figures and this page from `runs/` alone. "
        "Every figure's points are in a CSV file beside it; every run with every metric is in "
        "[tables/runs.csv](tables/runs.csv), means and differences are in [tables/results.csv](tables/results.csv)."
    )
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def provenance(frame: pd.DataFrame) -> str:
    """Return one line: number of records, digest over their ids, commits and devices."""
    dirty = [f"{commit} (with uncommitted changes)" if d else str(commit) for commit, d in _unique(frame)]
    devices = sorted(frame.device.dropna().unique())
    return (
        f"{len(frame):,} records, SHA-256 of their ids {digest(frame)}; commits: {escape(', '.join(dirty) or 'unknown')}; "
        f"devices: {escape(', '.join(devices) or 'unknown')}."
    )


def _unique(frame: pd.DataFrame) -> list[tuple[str, bool]]:
    known = frame.dropna(subset=["commit"])
    return sorted(set(zip(known.commit, known.dirty, strict=True)))


def _coverage(frame: pd.DataFrame, coverage: pd.DataFrame) -> str:
    gaps = coverage[
        tables.begun(coverage) & ((coverage.missing != "") | (coverage[list(STATUSES[1:])] != "").any(axis=1))
    ]
    text = f"## Coverage\n\n{tables.coverage_counts(coverage)}\n"
    text += "All configurations, seed by seed: [tables/coverage.md](tables/coverage.md).\n"
    if len(gaps):
        text += f"\n### Not complete (seeds)\n\n{MISSING}\n\n{tables.coverage_markdown(gaps)}"
    failed = tables.failures(frame)
    if len(failed):
        text += f"\n### Failures\n\n{tables.failures_markdown(failed)}"
    return text


def _unreadable(problems: list[tuple[str, str]]) -> str:
    if not problems:
        return ""
    lines = [f"- {escape(path)}: {escape(reason)}" for path, reason in problems]
    return "### Unreadable records\n\n" + "\n".join(lines)


def _not_official(frame: pd.DataFrame) -> str:
    said = tables.cautions(frame) or ["Nothing: every task was trained and evaluated on its official splits."]
    return "## What is not official\n\n" + "\n".join(f"- {escape(line)}" for line in said)
