"""The answer for the configured tasks and tolerance, and the data from which brief.js gives another answer."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.report import decision
from bench.report.brief import chart, tables
from bench.report.decision import Item, Subject, Verdict
from bench.settings.schema import RunConfig

CANDIDATES = 3
SLIDER = 10.0  # points: the largest tolerance that the page offers, unless the configured tolerance is larger
FIRST_TASK = len(tables.CHOSEN) + len(tables.COMPARE)  # index of the first task's line
SCRIPT_TEXTS = [
    *("answers", "collapsed", "sound", "certain", "uncertain", "single"),
    *("rule", "separator", "nothing", "chart"),
]
SCRIPT_VALUES = ("label", "size", "size_saved", "total_saved", "monthly", "saving", "latency1")


def decided(about: Subject, config: RunConfig, words: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows; needs a subject for which there can be an answer."""
    assert about.dense is not None
    items, tolerance = [*about.options, about.dense], config.report.tolerated_loss

    # What every answer says, and each configuration as the script reads it: lists by task, `cells` by line.
    known = [tables.values(item["row"], about.dense["row"], config.price, words) for item in items]
    device = about.part.device.iloc[0]
    common = {
        "model": about.part.model.iloc[0],
        "device": words["unmeasured"] if pd.isna(device) else device,
        "example": words["example"] if config.price.example else "",
        **{f"dense_{key}": known[-1][key] for key in ("size", "latency1", "monthly")},
    }
    shown = [
        {
            **{key: item[key] for key in ("bytes", "score", "loss", "half", "pairs", "collapsed")},
            "cells": tables.cells(item, texts, words, item is about.dense),
            "values": {key: texts[key] for key in SCRIPT_VALUES},
        }
        for item, texts in zip(items, known, strict=True)
    ]

    # The configured answer: dense and the candidates, side by side.
    ranked = decision.rank(about.options, about.matter, tolerance)
    best = ranked[:CANDIDATES]
    order = [verdict.place for verdict in best]
    columns = [_column(items[-1], shown[-1]["cells"], None, about, tolerance)]
    columns += [_column(items[v.place], shown[v.place]["cells"], v, about, tolerance) for v in best]
    return {
        "data": {
            "items": shown,
            "common": common,
            "tasks": [column["task"] for column in about.columns],
            "matter": about.matter,
            "tolerance": tolerance,
            "texts": {key: words[key] for key in SCRIPT_TEXTS},
            "first_task": FIRST_TASK,
        },
        "answer": _answer(best[0], about, tolerance, common | shown[order[0]]["values"], words),
        "labels": [shown[place]["values"]["label"] for place in order],
        "lines": list(zip(tables.lines(about, config.price, words), zip(*columns, strict=True), strict=True)),
        "chart": chart.svg(items, about.matter, order, words),
        "slider": max(SLIDER, tolerance),
    }


def _column(
    item: Item, cells: Sequence[str], verdict: Verdict | None, about: Subject, tolerance: float
) -> list[tuple[str, bool]]:
    """Return a configuration's cell on each line, and whether it shows a task that is hurt; dense has no verdict."""
    mean, worst = decision.mean(item, about.matter), verdict.worst if verdict else None
    chosen = ["–" if mean is None else f"{mean:.1f}", "–" if worst is None else f"{max(worst, 0):.2f}"]
    hurt = {
        FIRST_TASK + task
        for task, loss in enumerate(item["loss"])
        if verdict and (item["collapsed"][task] or (loss is not None and loss > tolerance))
    }
    return [(text, place in hurt) for place, text in enumerate([*chosen, *cells[len(chosen) :]])]


def _answer(
    best: Verdict, about: Subject, tolerance: float, values: dict[str, str], words: dict[str, Any]
) -> dict[str, Any]:
    """Return the texts of the answer, with the numbers filled in."""
    # The numbers.
    item, names = about.options[best.place], [column["task"] for column in about.columns]
    tasks = words["separator"].join(names[task] for task in about.matter)
    values = values | {"tolerance": f"{tolerance:.2f}", "tasks": tasks, "certainty": ""}
    if best.worst is not None and best.task is not None:
        collapsed = any(item["collapsed"][task] for task in about.matter)
        values |= {"worst": f"{max(best.worst, 0):.2f}", "task": names[best.task]}
        values |= {key: words[key] if collapsed else "" for key in ("collapsed", "sound")}
    if best.holds:
        reached = decision.reach(item, about.matter)
        text = words["single" if reached is None else "certain" if reached[0] <= tolerance else "uncertain"]
        upper = {"upper": f"{reached[0]:.2f}", "upper_task": names[reached[1]]} if reached else {}
        values["certainty"] = text.format(**upper)

    # The texts.
    kind = "found" if best.holds else "incomplete" if best.worst is None else "none"
    texts = words["answers"][kind]
    return {
        "kind": kind,
        "head": texts["head"].format(**values),
        "body": texts["body"].format(**values),
        "rule": words["rule"].format(**values),
        "phrases": [line.format(**values) for line in texts["phrases"]],
        "certainty": values["certainty"],
    }
