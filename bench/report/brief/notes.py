"""What stands beside the numbers: what to be careful about, risks, what was not measured, what made them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.report.brief.text import fill, mark_text, model_text
from bench.report.decision import Result, Subject, results_of
from bench.report.domain import Covered
from bench.report.frame import digest, rows
from bench.report.section import Section

TASKS = Path(__file__).resolve().parents[3] / "conf" / "task"


def notes(
    frame: pd.DataFrame,
    parts: Sequence[Section],
    about: Subject,
    problems: Sequence[tuple[str, str]],
    covered: Sequence[Covered],
    profiled: bool,
    words: dict[str, Any],
) -> dict[str, Any]:
    """Return the page's lists of sentences (`care`, `risks`, `unknown`) and its `footer`.

    `frame` holds the runs of the page's own section: neither the footer nor the failures are about any other.
    """
    commits = sorted(
        {f"{run.commit[:12]}{words['dirty'] if run.dirty else ''}" for run in rows(frame) if run.commit}
    )
    devices = sorted(frame.device.dropna().unique())
    made = {
        "count": f"{len(frame):,}",
        "digest": digest(frame)[:16],
        "commits": ", ".join(commits) or "?",
        "devices": ", ".join(devices) or "?",
    }
    texts = words["risks"]
    texts_of: dict[str, set[str]] = {}
    for one in covered:
        texts_of.setdefault(one.corpus, set()).add(one.text)
    domain = [
        fill(
            texts["covered"],
            {
                "corpus": one.text
                if [other.corpus for other in covered].count(one.corpus) > 1
                else one.corpus,
                "label": one.name,
                "unknown": f"{100 * one.facts['unknown_rate']:.1f}",
                "badly": f"{100 * one.facts['badly_fitted_rate']:.1f}",
            },
        )
        for one in covered
    ]
    care = _care(about, words)
    limits = fill(words["limits"], {"care": words["clauses"].join(care)})
    return {
        "care": care,
        "limits": limits,
        "risks": texts["lines"] + domain,
        "unknown": _unknown(frame, parts, about, problems, profiled, words),
        "footer": fill(words["footer"], made),
    }


def _care(about: Subject, words: dict[str, Any]) -> list[str]:
    """Return what keeps the numbers from being official or certain."""
    cares, join, columns = words["cares"], words["separator"].join, about.columns
    made = [column.task for column in columns if any(mark.kind == "synthetic" for mark in column.unofficial)]
    said = [fill(cares["synthetic"], {"tasks": join(made)})] if made else []
    said += [
        fill(cares["marked"], {"task": column.task, "mark": mark_text(mark, words)})
        for column in columns
        for mark in column.unofficial
        if mark.kind != "synthetic"
    ]
    dense: Sequence[Result] = results_of(about.section, about.dense, columns) if about.dense else ()
    everything = [option.results for option in about.options] + ([tuple(dense)] if dense else [])
    single = [
        column.task
        for place, column in enumerate(columns)
        if max((results[place].seeds for results in everything), default=0) == 1
    ]
    said += [fill(cares["single"], {"tasks": join(single)})] if single else []
    besides = [column.task for place, column in enumerate(columns) if place not in about.matter]
    said += [fill(cares["besides"], {"tasks": join(besides)})] if besides else []
    return said + [
        fill(cares["collapsed"], {"task": column.task, "count": result.collapsed, "seeds": result.seeds})
        for column, result in zip(columns, dense, strict=False)
        if result.collapsed
    ]


def _unknown(
    frame: pd.DataFrame,
    parts: Sequence[Section],
    about: Subject,
    problems: Sequence[tuple[str, str]],
    profiled: bool,
    words: dict[str, Any],
) -> list[str]:
    """Return what nobody should read into the page."""
    texts, join = words["unknown"], words["separator"].join
    declared = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(TASKS.glob("*.yaml"))]
    names = [task["name"] for task in declared if task["suite"] == about.section.suite]
    names += [column.task for column in about.section.tasks if column.task not in names]
    without = [name for name in names if name not in {column.task for column in about.columns}]
    said = [*texts["lines"], *([] if profiled else [texts["unprofiled"]])]
    said += [fill(texts["tasks"], {"suite": about.section.suite, "tasks": join(without)})] if without else []
    failed = frame[frame.status != "ok"]
    if len(failed):
        first = next(rows(failed.head(1)))
        message = f" ({first.error_message})" if first.error_message else ""
        said.append(
            fill(
                texts["unfinished"],
                {
                    "count": len(failed),
                    "label": first.configuration,
                    "task": first.task,
                    "seed": first.seed,
                    "status": words["statuses"][first.status],
                    "message": message,
                },
            )
        )
    if problems:
        said.append(
            fill(
                texts["unreadable"],
                {"count": len(problems), "path": problems[0][0], "reason": problems[0][1]},
            )
        )
    others = [f"{model_text(part, words)} ({part.suite})" for part in parts if part is not about.section]
    return said + ([fill(texts["others"], {"others": join(others)})] if others else [])
