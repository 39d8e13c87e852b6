"""The page's three tables: the head of each line, and a configuration's cell on it."""

from typing import Any, NamedTuple

import pandas as pd

from bench.report.brief import costing
from bench.report.brief.text import mark_text, reason_text
from bench.report.decision import Item, Subject
from bench.settings.schema import PriceConfig
from bench.text import percent_text, size_text

# Lines that depend on the tasks that matter: `cells` leaves them empty.
CHOSEN = ("mean", "worst")
COMPARE = ("size", "file", "total", "latency1", "latency32", "memory", "monthly")
COST = ("fit", "for_memory", "hours", "for_work", "instances", "monthly", "saving")


class Line(NamedTuple):
    """The head of a line; a configuration's cell has the same index in `cells`."""

    table: str  # compare | hurt | cost
    head: str
    note: str = ""


def values(
    row: dict[str, Any], dense: dict[str, Any], price: PriceConfig, words: dict[str, Any]
) -> dict[str, str]:
    """Return all texts about a configuration that do not depend on the tasks that matter. `row` is its main line, `dense` dense's."""
    none = words["unmeasured"]
    texts = {"label": row["configuration"] if row is not dense else words["dense"]}
    for name, key in (("size", "embedding_bytes"), ("file", "file_bytes"), ("total", "total_bytes")):
        stored, whole = row[f"size.{key}"], dense[f"size.{key}"]
        known = pd.notna(stored) and pd.notna(whole)
        saved = percent_text(abs(1 - stored / whole)) if known else none
        texts[name] = texts[f"{name}_cell"] = none if pd.isna(stored) else size_text(stored)
        texts[f"{name}_saved"] = percent_text(1 - stored / whole) if known else none
        if known and row is not dense:
            change = words["compare"]["smaller" if stored <= whole else "larger"]
            texts[f"{name}_cell"] = change.format(size=texts[name], saved=saved)
    for name, key in (("latency1", "latency_ms.small"), ("latency32", "latency_ms.large")):
        texts[name] = none if pd.isna(row[key]) else f"{row[key]:.1f}\u00a0ms"
    texts["memory"] = none if pd.isna(row["memory_bytes"]) else size_text(row["memory_bytes"])
    return texts | _money(costing.bill(price, row), costing.bill(price, dense), price, words)


def _money(
    bill: costing.Bill | None, dense: costing.Bill | None, price: PriceConfig, words: dict[str, Any]
) -> dict[str, str]:
    none, texts = words["unmeasured"], words["cost"]
    if bill is None:
        return dict.fromkeys(COST, texts["no_price" if price.price_per_gpu_hour is None else "no_room"])
    less = 0.0 if dense is None else dense.monthly - bill.monthly
    kind = "no_dense" if dense is None else "saved" if less > 0 else "more" if less < 0 else "zero"
    share = percent_text(abs(less) / dense.monthly if dense and less else 0.0)
    return {
        "fit": f"{bill.fit:,}",
        "for_memory": f"{bill.for_memory:,}",
        "hours": none if bill.hours is None else f"{bill.hours:,.1f}",
        "for_work": none if bill.for_work is None else f"{bill.for_work:,}",
        "instances": f"{bill.instances:,}",
        "monthly": f"{price.currency}\u00a0{bill.monthly:,.0f}",
        "saving": texts[kind].format(amount=f"{price.currency}\u00a0{abs(less):,.0f}", share=share),
    }


def cells(item: Item, known: dict[str, str], words: dict[str, Any], dense: bool) -> list[str]:
    """Return a configuration's cells in the order of `lines`."""
    compare = [known[f"{key}_cell" if f"{key}_cell" in known else key] for key in COMPARE]
    tasks = [_task_cell(item, task, words, dense) for task in range(len(item["score"]))]
    cost = ["–" if dense and key == "saving" else known[key] for key in COST]
    return ["" for _ in CHOSEN] + compare + tasks + cost


def _task_cell(item: Item, task: int, words: dict[str, Any], dense: bool) -> str:
    score, loss, half = (item[key][task] for key in ("score", "loss", "half"))
    if score is None or (loss is None and not dense):
        return str(words["hurt"]["without"].format(why=reason_text(item["why"][task], words)))
    interval = "" if half is None else f" ±\u00a0{half:.2f}"
    text = f"{score:.1f}" if dense else f"{0.0 - loss:+.2f}".replace("-", "−") + interval
    collapsed = item["collapsed"][task]
    counted = words["hurt"]["collapsed"].format(text=text, count=collapsed, seeds=item["seeds"][task])
    return str(counted) if collapsed else text


def lines(about: Subject, price: PriceConfig, words: dict[str, Any]) -> list[Line]:
    """Return the heads of all lines: the comparison, the tasks, the cost."""
    first, compare = about.part.iloc[0], dict(words["compare"])
    in_use = pd.notna(first.tokens)
    if in_use:
        compare["memory"] = compare["memory_in_use"]
    shown = {
        "device": words["unmeasured"] if pd.isna(first.device) else first.device,
        "small": first["batch.small"],
        "large": first["batch.large"],
        "tokens": compare["tokens"].format(tokens=int(first.tokens)) if in_use else "",
        "example": words["example"] if price.example else "",
        "memory_gb": f"{price.memory_gb:g}",
        "replicas": f"{price.replicas:,}",
        "requests": f"{price.requests_per_day:,.0f}",
        "utilisation": f"{100 * price.utilisation:g}",
        "price": f"{price.currency}\u00a0{price.price_per_gpu_hour or 0:.2f}",
        "hours_per_month": f"{price.hours_per_month:g}",
    }
    beside = about.part["size.tokenizer_bytes"].max()
    notes = {} if pd.isna(beside) else {"total": compare["tokenizer"].format(size=size_text(beside))}
    heads = [Line("compare", compare[key].format(**shown), notes.get(key, "")) for key in (*CHOSEN, *COMPARE)]
    tasks = [
        Line("hurt", column["task"], _task_note(column, place, about, words))
        for place, column in enumerate(about.columns)
    ]
    return heads + tasks + [Line("cost", words["cost"][key].format(**shown)) for key in COST]


def _task_note(column: dict[str, Any], place: int, about: Subject, words: dict[str, Any]) -> str:
    """Return a task's metric, split, marks and number of seeds."""
    texts = words["hurt"]
    marks = [texts["marked"].format(mark=mark_text(mark, words)) for mark in column["unofficial"]]
    items = [*about.options, *([about.dense] if about.dense else [])]
    counts = [item["seeds"][place] for item in items if item["seeds"][place]]
    low, high = min(counts, default=0), max(counts, default=0)
    shown = texts["seed" if low == high else "seeds"].format(low=low, high=high)
    metric = column["headline.metric"]
    split = texts["split"].format(split=column["headline.split"])
    return " · ".join([f"{words['metrics'].get(metric, metric)}{column['scaling']}", split, *marks, shown])
