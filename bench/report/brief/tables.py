"""The page's three tables: the head of each line, and a configuration's cell on it."""

from typing import Any, NamedTuple

import pandas as pd

from bench.report.brief import costing
from bench.report.brief.text import mark_text, reason_text, task_name
from bench.report.decision import Item, Subject
from bench.report.latency import Device, InUse, devices, on_device
from bench.settings.schema import PriceConfig
from bench.text import percent_text, size_text, time_text

# Lines that depend on the tasks that matter: `cells` leaves them empty.
CHOSEN = ("mean", "worst", "chance", "measured", "seeds")
USE = ("resident", "small", "large")  # on each device
DISK = ("stored", "held")  # the embedding's bytes in the file and in memory
COST = ("fit", "for_memory", "hours", "for_work", "instances", "monthly", "saving")


class Line(NamedTuple):
    """The head of a line; a configuration's cell has the same index in `cells`."""

    table: str  # compare | hurt | cost
    head: str
    note: str = ""


class Usage(NamedTuple):
    """The devices that are shown, and how the dense model does there."""

    devices: list[Device]
    dense: dict[str, Any]  # the dense model's main line of the score table

    def of(self, row: dict[str, Any]) -> list[InUse]:
        """Return a configuration's time and memory on each device."""
        profiles, dense = (line["profiles"] for line in (row, self.dense))
        known = isinstance(profiles, dict) and isinstance(dense, dict)
        return [on_device(profiles, dense, device) if known else InUse() for device in self.devices]


def usage(about: Subject, words: dict[str, Any]) -> Usage:
    """Return where the page's dense model was measured in use; else the device of its runs, where nothing was."""
    assert about.dense is not None
    dense, first = about.dense["row"], about.part.iloc[0]
    if isinstance(dense["profiles"], dict):
        return Usage(devices(dense["profiles"]), dense)
    name = words["unmeasured"] if pd.isna(first.device) else first.device
    return Usage([Device(name, None, int(first["batch.small"]), int(first["batch.large"]))], dense)


def values(row: dict[str, Any], used: Usage, price: PriceConfig, words: dict[str, Any]) -> dict[str, str]:
    """Return all texts about a configuration that do not depend on the tasks that matter. `row` is its main line."""
    none, dense = words["unmeasured"], used.dense
    texts = {"label": row["configuration"] if row is not dense else words["dense"]}
    for name, key in (("total", "total_bytes"), ("stored", "embedding_bytes"), ("held", "memory_bytes")):
        ours, whole = row[f"size.{key}"], dense[f"size.{key}"]
        known = pd.notna(ours) and pd.notna(whole)
        texts[name] = texts[f"{name}_cell"] = none if pd.isna(ours) else size_text(ours)
        texts[f"{name}_saved"] = percent_text(1 - ours / whole) if known else none
        if known and row is not dense:
            change = words["compare"]["smaller" if ours <= whole else "larger"]
            saved = percent_text(abs(1 - ours / whole))
            texts[f"{name}_cell"] = change.format(size=texts[name], saved=saved)
    ours = used.of(row)
    for place, on in enumerate(ours):
        texts[f"resident{place}"] = size_text(on.resident) if on.resident else none
        for key, time in (("small", on.small), ("large", on.large)):
            texts[f"{key}{place}"] = none if time is None else time_text(time)
    texts["memory"], batch = texts["resident0"], used.devices[0].large
    return texts | _money(ours[0], used.of(dense)[0], batch, price, words)


def _money(
    ours: InUse, theirs: InUse, batch: int, price: PriceConfig, words: dict[str, Any]
) -> dict[str, str]:
    none, texts = words["unmeasured"], words["cost"]
    bill, dense = (costing.bill(price, used, batch) for used in (ours, theirs))
    if bill is None:
        unpriced = price.price_per_gpu_hour is None
        why = texts["no_price"] if unpriced else none if ours.resident is None else texts["no_room"]
        return dict.fromkeys(COST, why)
    less = 0.0 if dense is None else dense.monthly - bill.monthly
    kind = "no_dense" if dense is None else "saved" if less > 0 else "more" if less < 0 else "zero"
    share = percent_text(abs(less) / dense.monthly if dense and less else 0.0)
    return {
        "fit": f"{bill.fit:,}",
        "for_memory": f"{bill.for_memory:,}",
        "hours": none if bill.hours is None else f"{bill.hours:,.1f}",
        "for_work": none if bill.for_work is None else f"{bill.for_work:,}",
        "instances": f"{bill.instances:,}",
        "monthly": f"{price.currency} {bill.monthly:,.0f}",
        "saving": texts[kind].format(amount=f"{price.currency}\u00a0{abs(less):,.0f}", share=share),
    }


def _keys(used: Usage) -> list[str]:
    """Return the keys of the comparison's lines: the whole model, its use on each device, its cost, its embedding."""
    in_use = [f"{key}{place}" for place in range(len(used.devices)) for key in USE]
    return ["total", *in_use, "monthly", *DISK]


def cells(item: Item, known: dict[str, str], used: Usage, words: dict[str, Any]) -> list[str]:
    """Return a configuration's cells in the order of `lines`."""
    dense = item["row"] is used.dense
    compare = [known.get(f"{key}_cell", known[key]) for key in _keys(used)]
    tasks = [_task_cell(item, task, words, dense) for task in range(len(item["score"]))]
    cost = ["–" if dense and key == "saving" else known[key] for key in COST]
    return compare + ["" for _ in CHOSEN] + tasks + cost


def _task_cell(item: Item, task: int, words: dict[str, Any], dense: bool) -> str:
    score, loss, half = (item[key][task] for key in ("score", "loss", "half"))
    if score is None or (loss is None and not dense):
        return str(words["hurt"]["without"].format(why=reason_text(item["why"][task], words)))
    interval = "" if half is None else f" ±\u00a0{half:.2f}"
    text = f"{score:.1f}" if dense else f"{0.0 - loss:+.2f}".replace("-", "−") + interval
    collapsed = item["collapsed"][task]
    counted = words["hurt"]["collapsed"].format(text=text, count=collapsed, seeds=item["seeds"][task])
    return str(counted) if collapsed else text


def lines(about: Subject, used: Usage, price: PriceConfig, words: dict[str, Any]) -> list[Line]:
    """Return the heads of all lines: size, use and cost; what is lost; how the cost is worked out."""
    compare, hurt = words["compare"], words["hurt"]
    example = words["example"] if price.example else ""
    heads = {"total": compare["total"], "monthly": compare["monthly"].format(example=example)}
    heads |= {key: compare[key] for key in DISK}
    for place, device in enumerate(used.devices):
        tokens = "" if device.tokens is None else compare["tokens"].format(tokens=device.tokens)
        shape = {"device": device.title, "tokens": tokens, "small": device.small, "large": device.large}
        heads |= {f"{key}{place}": compare[key].format(**shape) for key in USE}
    beside = about.part["size.tokenizer_bytes"].max()
    notes = {} if pd.isna(beside) else {"total": compare["tokenizer"].format(size=size_text(beside))}
    tasks = [
        Line("hurt", task_name(column, words), _task_note(column, about, words)) for column in about.columns
    ]
    shown = {
        "large": used.devices[0].large,
        "device": used.devices[0].title,
        "memory_gb": f"{price.memory_gb:g}",
        "replicas": f"{price.replicas:,}",
        "requests": f"{price.requests_per_day:,.0f}",
        "utilisation": f"{100 * price.utilisation:g}",
        "price": f"{price.currency}\u00a0{price.price_per_gpu_hour or 0:.2f}",
        "hours_per_month": f"{price.hours_per_month:g}",
    }
    return [
        *(Line("compare", heads[key], notes.get(key, "")) for key in _keys(used)),
        *(Line("hurt", hurt[key]) for key in CHOSEN),
        *tasks,
        *(Line("cost", words["cost"][key].format(**shown)) for key in COST),
    ]


def _task_note(column: dict[str, Any], about: Subject, words: dict[str, Any]) -> str:
    """Return a task's metric, split and marks; "" for a language, as the page tells them once."""
    if about.languages:
        return ""
    texts, metric = words["hurt"], column["headline.metric"]
    marks = [texts["marked"].format(mark=mark_text(mark, words)) for mark in column["unofficial"]]
    split = texts["split"].format(split=column["headline.split"])
    return " · ".join([f"{words['metrics'].get(metric, metric)}{column['scaling']}", split, *marks])
