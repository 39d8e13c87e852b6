"""The page's three tables: what stands at the head of each line, and a configuration's cell on each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from bench.report.brief import costing
from bench.report.brief.text import fill, mark_text, percent_text, reason_text, signed, size_text
from bench.report.decision import Result, Subject, results_of
from bench.report.frame import headline_runs
from bench.report.section import Column, Row
from bench.report.usage import Source, profiled, source
from bench.settings.schema import PriceConfig

COMPARE = ("size", "file", "total", "latency1", "latency32", "memory", "monthly")
COST = ("fit", "for_memory", "hours", "for_work", "instances", "monthly", "saving")
CHOSEN = (
    "mean",
    "worst",
)  # lines that depend on the tasks that matter; a configuration's own cells leave them empty


class Line(NamedTuple):
    """The head of a line; its place among all lines is where a configuration's cell is found."""

    table: str  # compare | hurt | cost
    head: str
    note: str = ""


class Facts(NamedTuple):
    """What was measured of a configuration beside its scores; None: nothing."""

    file_bytes: float | None = None
    total_bytes: float | None = None
    latency1: float | None = None  # ms, of the small batch
    latency32: float | None = None  # of the large one
    memory: float | None = None  # bytes
    bill: costing.Bill | None = None


def measured(
    frame: pd.DataFrame, about: Subject, dense: Row, cost: PriceConfig
) -> tuple[dict[str, Facts], Source]:
    """Return config_id -> facts, and the source of times and memory, which are medians over a configuration's runs on one device."""
    section = about.section
    runs = headline_runs(section.runs(frame))
    chosen = source(runs[runs.config_id == dense.config_id])
    if chosen.dense:
        noted = pd.DataFrame([_in_use(profiles, chosen) for profiles in runs.profiles], runs.index)
    else:
        columns = {
            "latency1": "latency_batch1_ms",
            "latency32": "latency_batch32_ms",
            "memory": "peak_memory_bytes",
        }
        compared = bool(runs[runs.config_id == dense.config_id].latency_batch1_ms.notna().any())
        noted = pd.DataFrame(
            {
                key: runs[column].where((runs.device == chosen.device) & compared)
                for key, column in columns.items()
            }
        )
    known = (
        runs[["config_id", "file_bytes", "total_bytes"]]
        .join(noted)
        .set_index("config_id")
        .apply(pd.to_numeric)
        .groupby(level=0)
        .median()
    )
    found = {}
    for config_id, values in known.to_dict("index").items():
        facts = Facts(**{str(key): None if pd.isna(value) else value for key, value in values.items()})
        request = None if facts.latency32 is None else facts.latency32 / chosen.large
        if facts.total_bytes is not None:
            facts = facts._replace(bill=costing.bill(cost, facts.total_bytes, request))
        found[str(config_id)] = facts
    return found, chosen


def _in_use(profiles: dict[str, Any] | None, chosen: Source) -> dict[str, float | None]:
    times, memory = profiled(profiles, chosen)
    return {"latency1": times.get(chosen.small), "latency32": times.get(chosen.large), "memory": memory}


def values(
    row: Row, facts: Facts, dense: Row, dense_facts: Facts, cost: PriceConfig, words: dict[str, Any]
) -> dict[str, str]:
    """Return everything that texts and tables say about a configuration, whatever tasks matter."""
    none = words["unmeasured"]
    found = {
        "label": row.label,
        "size": size_text(row.bytes or 0),
        "saved": _saved(row.bytes, dense.bytes, none),
    }
    found |= {"total_saved": _saved(facts.total_bytes, dense_facts.total_bytes, none)}
    sizes = (
        ("size_cell", row.bytes, dense.bytes),
        ("file", facts.file_bytes, dense_facts.file_bytes),
        ("total", facts.total_bytes, dense_facts.total_bytes),
    )
    for key, own, whole in sizes:
        found[key] = (
            none
            if own is None
            else size_text(own)
            if row is dense or not whole
            else fill(
                words["compare"]["smaller" if own <= whole else "larger"],
                {"size": size_text(own), "saved": percent_text(abs(1 - own / whole))},
            )
        )
    for key, time in (("latency1", facts.latency1), ("latency32", facts.latency32)):
        found[key] = none if time is None else f"{time:.1f}\u00a0ms"
    found["memory"] = none if facts.memory is None else size_text(facts.memory)
    return found | _money(facts.bill, dense_facts.bill, cost, words)


def _saved(own: float | None, whole: float | None, none: str) -> str:
    return none if own is None or not whole else percent_text(1 - own / whole)


def _money(
    bill: costing.Bill | None, dense: costing.Bill | None, cost: PriceConfig, words: dict[str, Any]
) -> dict[str, str]:
    none = words["unmeasured"]
    if bill is None:
        return dict.fromkeys(
            COST, words["cost"]["no_price" if cost.price_per_gpu_hour is None else "no_room"]
        )
    less = 0.0 if dense is None else dense.monthly - bill.monthly
    change = {
        "amount": _amount(abs(less), cost),
        "share": percent_text(abs(less) / dense.monthly if dense and less else 0.0),
    }
    saving = fill(
        words["cost"][
            "no_dense" if dense is None else "saved" if less > 0 else "more" if less < 0 else "zero"
        ],
        change,
    )
    return {
        "fit": f"{bill.fit:,}",
        "for_memory": f"{bill.for_memory:,}",
        "hours": none if bill.hours is None else f"{bill.hours:,.1f}",
        "for_work": none if bill.for_work is None else f"{bill.for_work:,}",
        "instances": f"{bill.instances:,}",
        "monthly": _amount(bill.monthly, cost),
        "saving": saving,
    }


def _amount(amount: float, cost: PriceConfig) -> str:
    return f"{cost.currency}\u00a0{amount:,.0f}"


def cells(results: Sequence[Result], known: dict[str, str], words: dict[str, Any], dense: bool) -> list[str]:
    """Return a configuration's cells in the order of `lines`."""
    compare = [known["size_cell" if key == "size" else key] for key in COMPARE]
    cost = ["–" if dense and key == "saving" else known[key] for key in COST]
    return ["" for _ in CHOSEN] + compare + [_task_cell(result, words, dense) for result in results] + cost


def _task_cell(result: Result, words: dict[str, Any], dense: bool) -> str:
    if result.score is None or (result.loss is None and not dense):
        return fill(words["hurt"]["without"], {"why": reason_text(result.why, words)})
    interval = f" ±\u00a0{result.half:.2f}" if result.half is not None else ""
    text = f"{result.score:.1f}" if dense else signed(0.0 - (result.loss or 0)) + interval
    counts = {"text": text, "count": result.collapsed, "seeds": result.seeds}
    return fill(words["hurt"]["collapsed"], counts) if result.collapsed else text


def lines(about: Subject, chosen: Source, cost: PriceConfig, words: dict[str, Any]) -> list[Line]:
    """Return the heads of all lines: the comparison, the tasks, the cost."""
    tokens = fill(words["compare"]["tokens"], {"tokens": chosen.tokens}) if chosen.tokens else ""
    shown = {
        "device": chosen.device or words["unmeasured"],
        "small": chosen.small,
        "large": chosen.large,
        "tokens": tokens,
        "example": words["example"] if cost.example else "",
        "memory_gb": f"{cost.memory_gb:g}",
        "replicas": f"{cost.replicas:,}",
        "requests": f"{cost.requests_per_day:,.0f}",
        "utilisation": f"{100 * cost.utilisation:g}",
        "price": f"{cost.currency}\u00a0{cost.price_per_gpu_hour or 0:.2f}",
        "hours_per_month": f"{cost.hours_per_month:g}",
    }
    tasks = [
        Line("hurt", column.task, _task_note(column, place, about, words))
        for place, column in enumerate(about.columns)
    ]
    compare = words["compare"] | ({"memory": words["compare"]["memory_in_use"]} if chosen.dense else {})
    return (
        [Line("compare", fill(compare[key], shown)) for key in (*CHOSEN, *COMPARE)]
        + tasks
        + [Line("cost", fill(words["cost"][key], shown)) for key in COST]
    )


def _task_note(column: Column, place: int, about: Subject, words: dict[str, Any]) -> str:
    """Return metric, split, what is not official and the seeds of a task."""
    texts = words["hurt"]
    marks = [fill(texts["marked"], {"mark": mark_text(mark, words)}) for mark in column.unofficial]
    everything = [
        *(option.results for option in about.options),
        *([results_of(about.section, about.dense, about.columns)] if about.dense else []),
    ]
    counts = [seeds for results in everything if (seeds := results[place].seeds)]
    low, high = min(counts, default=0), max(counts, default=0)
    shown = fill(texts["seed" if low == high else "seeds"], {"low": low, "high": high})
    metric = f"{words['metrics'].get(column.metric, column.metric)}{column.scaling}"
    return " · ".join([metric, fill(texts["split"], {"split": column.split}), *marks, shown])
