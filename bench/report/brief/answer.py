"""The answer for the configured tasks and tolerance, and the data from which brief.js gives another answer."""

from collections.abc import Sequence
from typing import Any

from bench.report import decision
from bench.report.brief import chart, tables
from bench.report.brief.text import MOST_NAMES, listed, task_name
from bench.report.decision import Item, Subject, Verdict
from bench.settings.schema import RunConfig

CANDIDATES = 4
BEST = (
    2  # of the candidates: the best two come first, then int8 and int4, which need no recovery and no codes
)
SLIDER = 10.0  # points: the largest tolerance that the page offers, unless the configured tolerance is larger
LEVELS = {"safe": 0.9, "likely": 0.5, "unlikely": 0.0}  # advice by the chance that all limits hold
SCRIPT_TEXTS = [
    *("answers", "use", "unmeasured", "advice", "safest", "collapsed", "sound", "many", "measured", "counts"),
    *("likelier", "rule", "separator", "nothing", "chart"),
]
SCRIPT_VALUES = ("label", "total", "total_saved", "stored", "stored_saved", "memory", "monthly", "small0")


def decided(about: Subject, config: RunConfig, words: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows; needs a subject for which there can be an answer."""
    assert about.dense is not None
    items, tolerance = [*about.options, about.dense], config.report.tolerated_loss
    used = tables.usage(about, words)

    # What every answer says, and each configuration as the script reads it.
    texts = [tables.values(item["row"], used, config.price, words) for item in items]
    shown = _for_the_script(items, texts, used, words)
    common = {
        "model": about.part.model.iloc[0],
        "device": used.devices[0].title,
        "example": words["example"] if config.price.example else "",
        **{f"dense_{key}": texts[-1][key] for key in ("total", "memory", "monthly", "small0")},
    }
    lines = tables.lines(about, used, config.price, words)
    first = next(place for place, line in enumerate(lines) if line.table == "hurt")
    names = [task_name(column, words) for column in about.columns]

    # The configured answer: dense and the candidates, side by side.
    ranked = decision.rank(about.options, about.matter, tolerance)
    standard = _standard(about.options)
    order = list(dict.fromkeys([v.place for v in ranked[:BEST]] + standard + [v.place for v in ranked]))
    order = order[:CANDIDATES]
    columns = [
        _column(items[place], shown[place]["cells"], first, place in order, about, tolerance, names, words)
        for place in (-1, *order)
    ]
    return {
        "data": {
            "items": shown,
            "common": common,
            "tasks": names,
            "matter": about.matter,
            "tolerance": tolerance,
            "texts": {key: words[key] for key in SCRIPT_TEXTS},
            "first": first,
            "standard": standard,
            "best": BEST,
            "levels": LEVELS,
            "most": MOST_NAMES,
        },
        "names": names,
        "answer": _answer(ranked[0], about, names, config, [common | one["values"] for one in shown], words),
        "labels": [shown[place]["values"]["label"] for place in order],
        "lines": list(zip(lines, zip(*columns, strict=True), strict=True)),
        "gaps": any(words["unmeasured"] in one["cells"][:first] for one in shown) or len(used.devices) < 2,
        "chart": chart.svg(items, about.matter, order, words),
        "slider": max(SLIDER, tolerance),
    }


def _for_the_script(
    items: Sequence[Item], texts: Sequence[dict[str, str]], used: tables.Usage, words: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return each configuration as brief.js reads it: lists by task, `cells` by line, `values` by name."""
    lists = ("bytes", "score", "loss", "error", "freedom", "collapsed", "seeds")
    return [
        {
            **{key: item[key] for key in lists},
            "cells": tables.cells(item, known, used, words),
            "values": {key: known[key] for key in SCRIPT_VALUES},
        }
        for item, known in zip(items, texts, strict=True)
    ]


def _standard(options: Sequence[Item]) -> list[int]:
    """Return the indices of int4 and int8 rows, of each the one measured on most tasks."""
    found: dict[str, tuple[int, int]] = {}
    for place, item in enumerate(options):
        name, tasks = item["row"]["plain_name"], item["why"].count("")
        if item["row"]["kind"] == "quantised" and tasks > found.get(name, (0, 0))[0]:
            found[name] = (tasks, place)
    return [place for _, place in found.values()]


def _column(
    item: Item,
    cells: Sequence[str],
    first: int,
    candidate: bool,
    about: Subject,
    tolerance: float,
    names: Sequence[str],
    words: dict[str, Any],
) -> list[tuple[str, bool]]:
    """Return a configuration's cell on each line, and whether it shows a task that is hurt; dense has no loss."""
    mean, odds = decision.mean(item, about.matter), decision.chance(item, about.matter, tolerance)
    losses = [item["loss"][task] for task in about.matter if item["loss"][task] is not None]
    without = [names[task] for task in about.matter if item["score"][task] is None]
    seeds = [item["seeds"][task] for task in about.matter if item["seeds"][task]]
    chosen = [
        "–" if mean is None else f"{mean:.1f}",
        f"{max(*losses, 0):.2f}" if candidate and losses else "–",
        ("–" if odds is None else percent(odds)) if candidate else "–",
        words["measured"]["part" if without else "all"].format(
            count=len(about.matter) - len(without), of=len(about.matter), without=listed(without, words)
        ),
        words["counts"]["one" if len(set(seeds)) == 1 else "several"].format(low=min(seeds), high=max(seeds))
        if seeds
        else "–",
    ]
    tasks = first + len(chosen)
    hurt = {
        tasks + task
        for task, loss in enumerate(item["loss"])
        if candidate and (item["collapsed"][task] or (loss is not None and loss > tolerance))
    }
    texts = [*cells[:first], *chosen, *cells[tasks:]]
    return [(text, place in hurt) for place, text in enumerate(texts)]


def _answer(
    best: Verdict,
    about: Subject,
    names: Sequence[str],
    config: RunConfig,
    values: Sequence[dict[str, str]],
    words: dict[str, Any],
) -> dict[str, Any]:
    """Return the texts of the answer and the advice, with the numbers filled in."""
    item, tolerance = about.options[best.place], config.report.tolerated_loss
    filled = values[best.place] | {"tolerance": f"{tolerance:.2f}", "safest": ""}
    filled["tasks"] = listed([names[task] for task in about.matter], words)
    if best.worst is not None and best.task is not None:
        collapsed = any(item["collapsed"][task] for task in about.matter)
        filled |= {"worst": f"{max(best.worst, 0):.2f}", "task": names[best.task]}
        filled |= {key: words[key] if collapsed else "" for key in ("collapsed", "sound")}

    # The chance that all limits hold. Where it is low: the smallest configuration for which it is not, else that of the largest.
    chances = [decision.chance(option, about.matter, tolerance) or 0.0 for option in about.options]
    odds = decision.chance(item, about.matter, tolerance)
    if odds is not None:
        filled |= {"chance": percent(odds), "risk": percent(1 - odds)}
        likely = [place for place, chance in enumerate(chances) if chance >= LEVELS["likely"] > odds]
        other = likely[0] if likely else chances.index(max(chances))
        if percent(chances[other]) != percent(odds):
            facts = {"label": values[other]["label"], "total_saved": values[other]["total_saved"]}
            text = words["likelier" if likely else "safest"]
            filled["safest"] = text.format(**facts, risk=percent(1 - chances[other]))

    known = filled["memory"] != words["unmeasured"]
    filled["use"] = words["use"]["known" if known else "unknown"].format(**filled)
    kind = "found" if best.holds else "incomplete" if best.worst is None else "none"
    level = "unknown" if odds is None else next(name for name, least in LEVELS.items() if odds >= least)
    texts = words["answers"][kind]
    return {
        "kind": kind,
        "level": level,
        "head": texts["head"].format(**filled),
        "body": texts["body"].format(**filled),
        "rule": words["rule"].format(**filled),
        "advice": words["advice"][level if kind == "found" else kind].format(**filled),
    }


def percent(chance: float) -> str:
    """Return a probability without decimals, from 1 to 99 %: what is measured over a few seeds is never certain."""
    return f"{min(99, max(1, round(100 * chance)))}\u00a0%"
