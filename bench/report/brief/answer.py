"""The answer for the configured tasks and tolerance, and the data from which brief.js gives another one."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.report import decision
from bench.report.brief import chart, tables
from bench.report.brief.text import fill
from bench.report.decision import Item, Subject, Verdict
from bench.settings.schema import RunConfig

CANDIDATES = 3
SLIDER = 10.0  # points: the largest tolerance that the page offers, unless the configured one is larger
FIRST_TASK = len(tables.CHOSEN) + len(tables.COMPARE)  # its place among the lines
SCRIPT_TEXTS = [
    *(
        "answers",
        "collapsed",
        "sound",
        "certain",
        "uncertain",
        "single",
        "rule",
        "separator",
        "nothing",
        "chart",
    ),
]


def decided(about: Subject, config: RunConfig, words: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows; needs a subject for which there can be an answer."""
    assert about.dense is not None
    items, tolerance = [*about.options, about.dense], config.report.tolerated_loss
    known = [tables.values(item["row"], about.dense["row"], config.cost, words) for item in items]
    device = about.part.device.iloc[0]
    common = {
        "model": about.part.model.iloc[0],
        "device": words["unmeasured"] if pd.isna(device) else device,
        "example": words["example"] if config.cost.example else "",
        **{f"dense_{key}": known[-1][key] for key in ("size", "latency1", "monthly")},
    }
    shown = [
        _shown(item, texts, words, item is about.dense) for item, texts in zip(items, known, strict=True)
    ]
    ranked = decision.rank(about.options, about.matter, tolerance)
    verdicts = [*ranked[:CANDIDATES]]
    order = [verdict.place for verdict in verdicts]
    columns = [_column(items[-1], shown[-1]["cells"], None, about, tolerance)]
    columns += [
        _column(items[verdict.place], shown[verdict.place]["cells"], verdict, about, tolerance)
        for verdict in verdicts
    ]
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
        "answer": _answer(ranked[0], about, tolerance, common | shown[order[0]]["values"], words),
        "labels": [shown[place]["values"]["label"] for place in order],
        "lines": list(zip(tables.lines(about, config.cost, words), zip(*columns, strict=True), strict=True)),
        "chart": chart.svg(items, about.matter, order, words),
        "slider": max(SLIDER, tolerance),
    }


def _shown(item: Item, known: dict[str, str], words: dict[str, Any], dense: bool) -> dict[str, Any]:
    """Return a configuration as the script reads it; lists are in the order of the tasks, `cells` in that of the lines."""
    used = ("label", "size", "size_saved", "total_saved", "monthly", "saving", "latency1")
    return {
        **{key: item[key] for key in ("bytes", "score", "loss", "half", "pairs", "collapsed")},
        "cells": tables.cells(item, known, words, dense),
        "values": {key: known[key] for key in used},
    }


def _column(
    item: Item, cells: Sequence[str], verdict: Verdict | None, about: Subject, tolerance: float
) -> list[tuple[str, bool]]:
    """Return a configuration's cell on each line, and whether it shows a task that is hurt; dense has no verdict."""
    average, worst = decision.mean(item, about.matter), verdict.worst if verdict else None
    chosen = ["–" if average is None else f"{average:.1f}", "–" if worst is None else f"{max(worst, 0):.2f}"]
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
    item, names = about.options[best.place], [column["task"] for column in about.columns]
    tasks = words["separator"].join(names[task] for task in about.matter)
    bad = any(item["collapsed"][task] for task in about.matter)
    values = values | {"tolerance": f"{tolerance:.2f}", "tasks": tasks, "certainty": ""}
    kind = "found" if best.holds else "incomplete" if best.worst is None else "none"
    if best.worst is not None and best.task is not None:
        values |= {"worst": f"{max(best.worst, 0):.2f}", "task": names[best.task]}
        values |= {key: words[key] if bad else "" for key in ("collapsed", "sound")}
    if best.holds:
        reached = decision.reach(item, about.matter)
        text = words["single" if reached is None else "certain" if reached[0] <= tolerance else "uncertain"]
        upper = {} if reached is None else {"upper": f"{reached[0]:.2f}", "upper_task": names[reached[1]]}
        values["certainty"] = fill(text, upper)
    texts = words["answers"][kind]
    filled = {key: fill(texts[key], values) for key in ("head", "body")}
    phrases = [fill(line, values) for line in texts["phrases"]]
    rule, certainty = fill(words["rule"], values), values["certainty"]
    return {"kind": kind, **filled, "rule": rule, "phrases": phrases, "certainty": certainty}
