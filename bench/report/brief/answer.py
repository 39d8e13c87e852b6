"""The answer for the configured tasks and tolerance, and the data from which brief.js gives another one."""

from collections.abc import Sequence
from typing import Any

from bench.report import decision
from bench.report.brief import plot, tables
from bench.report.brief.tables import Facts
from bench.report.brief.text import fill
from bench.report.decision import Option, Result, Subject, Verdict
from bench.report.usage import Source
from bench.settings.schema import RunConfig
from bench.statistics import pareto_front

CANDIDATES = 3
SLIDER = 10.0  # points: the largest tolerance that the page offers, unless the configured one is larger
FIRST_TASK = len(tables.CHOSEN) + len(tables.COMPARE)  # its place among the lines
SCRIPT_TEXTS = (
    "answers",
    "collapsed",
    "sound",
    "certain",
    "uncertain",
    "single",
    "rule",
    "separator",
    "nothing",
    "letters",
    "chart",
)


def decided(
    facts: dict[str, Facts], chosen: Source, about: Subject, config: RunConfig, words: dict[str, Any]
) -> dict[str, Any]:
    """Return what the template shows; needs a subject for which there can be an answer."""
    assert about.dense is not None and about.dense.bytes is not None
    everything = [
        *about.options,
        Option(
            about.dense, about.dense.bytes, decision.results_of(about.section, about.dense, about.columns)
        ),
    ]
    known = [
        tables.values(
            option.row,
            facts[option.row.config_id],
            about.dense,
            facts[about.dense.config_id],
            config.cost,
            words,
        )
        for option in everything
    ]
    known[-1]["label"] = words["dense"]
    common = {
        "model": about.section.model,
        "device": chosen.device or words["unmeasured"],
        "example": words["example"] if config.cost.example else "",
        "dense_size": known[-1]["size"],
        "dense_latency": known[-1]["latency1"],
        "dense_monthly": known[-1]["monthly"],
    }
    places, ticks = plot.x_places([option.bytes for option in everything])
    items = [
        _item(option, x, of, words, option.row is about.dense)
        for option, x, of in zip(everything, places, known, strict=True)
    ]
    ranked = decision.rank(about.options, about.matter, config.report.tolerated_loss)
    order = [about.options.index(verdict.option) for verdict in ranked[:CANDIDATES]]
    columns = [_column(items[-1], everything[-1].results, None, about, config.report.tolerated_loss)]
    columns += [
        _column(items[place], verdict.option.results, verdict, about, config.report.tolerated_loss)
        for place, verdict in zip(order, ranked, strict=False)
    ]
    answer = _answer(
        ranked[0], about, config.report.tolerated_loss, common | items[order[0]]["values"], words
    )
    data = {
        "items": items,
        "common": common,
        "tasks": [column.task for column in about.columns],
        "matter": about.matter,
        "tolerance": config.report.tolerated_loss,
        "texts": {key: words[key] for key in SCRIPT_TEXTS},
        "box": plot.BOX,
        "first_task": FIRST_TASK,
    }
    return {
        "data": data,
        "answer": answer,
        "labels": [about.options[place].row.label for place in order],
        "lines": list(
            zip(tables.lines(about, chosen, config.cost, words), zip(*columns, strict=True), strict=True)
        ),
        "chart": _chart(about, everything, items, order, ticks),
        "slider": max(SLIDER, config.report.tolerated_loss),
    }


def _item(
    option: Option, x: float, known: dict[str, str], words: dict[str, Any], dense: bool
) -> dict[str, Any]:
    """Return a configuration as brief.js reads it; lists are in the order of the tasks, `cells` in that of the lines."""
    results = option.results
    used = {key: known[key] for key in ("label", "size", "saved", "total_saved", "monthly", "saving")} | {
        "latency": known["latency1"]
    }
    return {
        "x": x,
        "bytes": option.bytes,
        "score": [r.score for r in results],
        "loss": [r.loss for r in results],
        "half": [r.half for r in results],
        "pairs": [r.pairs for r in results],
        "collapsed": [r.collapsed for r in results],
        "cells": tables.cells(results, known, words, dense),
        "values": used,
    }


def _column(
    item: dict[str, Any], results: Sequence[Result], verdict: Verdict | None, about: Subject, tolerance: float
) -> list[tuple[str, bool]]:
    """Return a configuration's cell on each line, and whether it shows a task that is hurt; dense has no verdict."""
    average, worst = decision.mean(results, about.matter), verdict.worst if verdict else None
    chosen = ["–" if average is None else f"{average:.1f}", "–" if worst is None else f"{max(worst, 0):.2f}"]
    hurt = {
        FIRST_TASK + place for place, result in enumerate(results) if verdict and _hurt(result, tolerance)
    }
    return [(text, place in hurt) for place, text in enumerate([*chosen, *item["cells"][len(chosen) :]])]


def _hurt(result: Result, tolerance: float) -> bool:
    return result.collapsed > 0 or (result.loss is not None and result.loss > tolerance)


def _answer(
    best: Verdict, about: Subject, tolerance: float, values: dict[str, str], words: dict[str, Any]
) -> dict[str, Any]:
    """Return the texts of the answer, with the numbers filled in."""
    tasks = words["separator"].join(about.columns[place].task for place in about.matter)
    values = values | {"tolerance": f"{tolerance:.2f}", "tasks": tasks}
    kind = "found" if best.holds else "incomplete" if best.worst is None else "none"
    if best.worst is not None and best.task is not None:
        bad = any(best.option.results[place].collapsed for place in about.matter)
        values |= {
            "worst": f"{max(best.worst, 0):.2f}",
            "task": about.columns[best.task].task,
            "collapsed": words["collapsed"] if bad else "",
            "sound": words["sound"] if bad else "",
        }
    values["certainty"] = _certainty(best, about, tolerance, words) if best.holds else ""
    texts = words["answers"][kind]
    return {
        "kind": kind,
        "head": fill(texts["head"], values),
        "body": fill(texts["body"], values),
        "rule": fill(words["rule"], values),
        "phrases": [fill(line, values) for line in texts["phrases"]],
        "certainty": values["certainty"],
    }


def _certainty(best: Verdict, about: Subject, tolerance: float, words: dict[str, Any]) -> str:
    """Return what the intervals say about an answer that holds in the mean."""
    reached = []
    for place in about.matter:
        result = best.option.results[place]
        if result.loss is None or result.half is None or result.pairs < 2:
            return str(words["single"])
        reached.append((round(result.loss + result.half, 2), about.columns[place].task))
    upper, task = max(reached, key=lambda pair: pair[0])
    return (
        str(words["certain"])
        if upper <= tolerance
        else fill(words["uncertain"], {"upper": f"{upper:.2f}", "upper_task": task})
    )


def _chart(
    about: Subject,
    everything: Sequence[Option],
    items: Sequence[dict[str, Any]],
    order: Sequence[int],
    ticks: Sequence[plot.Tick],
) -> dict[str, Any]:
    """Return the chart's points and lines; a configuration without every task that matters has no height and is not shown."""
    means = [decision.mean(option.results, about.matter) for option in everything]
    shown = [place for place, value in enumerate(means) if value is not None]
    domain = plot.y_domain([value for value in means if value is not None])
    heights = [None if value is None else plot.y_place(value, domain) for value in means]
    front = [
        shown[place]
        for place in pareto_front([everything[p].bytes for p in shown], [means[p] or 0.0 for p in shown])
    ]
    points = [
        {
            "place": place,
            "x": item["x"],
            "y": y,
            "front": place in front,
            "letter": order.index(place) if place in order else None,
            "dense": place == len(items) - 1,
            "layer": order.index(place) + 1 if place in order else 0,
            "values": item["values"],
        }
        for place, (item, y) in enumerate(zip(items, heights, strict=True))
    ]  # candidates are drawn last, above the others
    path = [(float(items[place]["x"]), y) for place in front if (y := heights[place]) is not None]
    return {
        "points": points,
        "x_ticks": ticks,
        "y_ticks": plot.y_ticks(domain),
        "path": plot.front_path(path) if path else "",
        "box": plot.BOX,
    }
