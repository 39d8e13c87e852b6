"""What is lost against what is saved: the main score over a size."""

import math
import textwrap
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWN, CARETUP
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.report.labels import Label, Segment, place_labels
from bench.report.message import Message, message, point_name
from bench.report.runs import rows
from bench.report.scores import FLOORS, guessing, quality
from bench.report.style import STYLE, Chart, about, figure, kind_styles, legend, mark, page, settle
from bench.statistics import pareto_front
from bench.text import one_line, signed, size_text

MOST_LABELS = 6
APART = 1.1  # the least ratio of the sizes of labelled points
FRONT = "#9A9A9A"
MAJORITY: dict[str, Any] = {"color": "#555555", "linewidth": 1.6, "linestyle": ":"}
SHOWN = ["ci95_low", "ci95_high", "ci95_is", "n", "metric", "majority", "on_front", "label"]
SIZES = {"fp32": 10.0, "bf16": 7.5, "int8": 5.0}  # of a marker, by the body's form


class Measure(NamedTuple):
    """A size that can be the horizontal axis."""

    name: str  # part of the figure's name
    field: str  # column of the score table
    dense: str  # that of the dense model's size
    title: str


WHOLE = Measure("total_bytes", "size.total_bytes", "dense_total", "stored size of the whole model")
BYTES = Measure("bytes", "size.embedding_bytes", "size.dense_embedding_bytes", "stored size of the embedding")
MEMORY = Measure(
    "memory", "size.memory_bytes", "size.dense_embedding_bytes", "size of the embedding in memory"
)


def main_score(part: pd.DataFrame, measure: Measure) -> Chart | None:
    """Return the mean over tasks, or the only task, against a size; at most six points have a label, which a table explains."""
    data = points_of(part[part.main], measure)
    if len(data) < min(2, part.config_id.nunique()) or data.empty:
        return None
    said = message(part, measure.field)
    data["label"] = _labelled(data, said, measure)
    listed = data[data.label != ""].sort_values(measure.field, ascending=False)
    first = data.iloc[0]
    few, many = int(data.n.min()), int(data.n.max())
    seeds = f"{few} to {many} seeds" if few < many else f"{many} seed{'s' * (many > 1)}"
    marks = f"; not official: {first.not_official}" if first.not_official else ""
    task = "" if first.task == first.suite else f"{first.task}, "
    subtitle = about(part, one_line(f"{task}{first.metric}, {seeds}{marks}"))
    title = said.text if said else f"Score over the {measure.title}"
    with rc_context(STYLE):
        handles = legend_entries(data)
        lines = 1 + sum(len(_settings(row)) for row in listed.to_dict("records"))
        below = 0.35 * math.ceil(len(handles) / 4) + 0.23 * lines
        figure = page(title, subtitle, (10, 5.6 + below), part.provenance.iloc[0])
        axes, table = figure.subplots(2, 1, height_ratios=[4.2, 0.23 * lines + 0.1])
        legend(figure, handles, 4)
        size_axes(axes, data, measure)
        obstacles = panel(axes, data, "mean", ("ci95_low", "ci95_high"))
        axes.set_ylabel(f"{first.metric} (higher is better)" if first.higher_is_better else first.metric)
        _table(table, listed, measure)
        settle(figure)
        labels = [Label(row.x, row.mean, row.label) for row in rows(listed)]
        others = data[(data.label == "") & ~data.floor]
        place_labels(axes, labels, obstacles, list(zip(others.x, others["mean"], strict=True)))
    columns = ["column", "configuration", "kind", "body", "plain", measure.field, "mean", *SHOWN]
    return Chart(f"{title} · {subtitle}", data[columns], figure)


for measure in (BYTES, MEMORY, WHOLE):
    figure(f"score-{measure.name}")(partial(main_score, measure=measure))


def points_of(lines: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return a column's lines that can be plotted, with x in MB, floor (drawn as a level) and on_front.

    Of the embedding's sizes these are the lines with a body in fp32, of the whole model's all where some body has fewer bits. A
    floor's few bytes would stretch the axis. Floors come last and are no part of the front; nor is a single seed beside several.
    """
    fp32 = lines.body == "fp32"
    lines = lines[fp32] if measure != WHOLE else lines.iloc[: 0 if fp32.all() else None]
    data = lines.assign(x=lines[measure.field].astype(float) / 1e6)
    data["dense_total"] = data[data.kind == "dense"]["size.total_bytes"].max()
    data = data[data["mean"].notna() & (data.x > 0)]
    data["floor"] = data.kind.map(lambda kind: kind.partition(",")[0] in FLOORS).astype(bool)
    data = data.sort_values("floor", kind="stable", ignore_index=True)
    sized = data[~data.floor & (data.n >= min(2, data.n.max()))]
    front = pareto_front(list(sized.x), list(quality(sized)))
    data["on_front"] = data.index.isin(sized.index[front])
    return data


def _labelled(data: pd.DataFrame, said: Message | None, measure: Measure) -> list[str]:
    """Return each point's label, empty for most: dense, those that the message names, and others spread over the front, unless they guess."""
    plain = data[(data.kind == "dense") & data.plain.astype(bool)].index[:1]
    named = [said.config_id, said.smaller_id] if said else []
    chosen = [*plain, *data.index[data.config_id.isin(named)]]
    known = data[data.on_front & (data.kind != "dense") & ~guessing(data)]
    # Of points almost above each other one is labelled: one that has a label, else the best.
    taken = data.x[chosen].to_numpy()
    ratios = known.x.to_numpy()[:, None] / taken
    known = known[(np.abs(np.log(ratios)) > np.log(APART)).all(axis=1)]
    rest = list(known.index[pareto_front(list(known.x), list(quality(known)), APART)])
    room = min(MOST_LABELS - len(chosen), len(rest))
    chosen += [rest[place] for place in np.linspace(0, len(rest) - 1, room).round().astype(int)]
    found = enumerate(data.to_dict("records"))
    return [point_name(row, measure.field) if place in chosen else "" for place, row in found]


def size_axes(axes: Axes, data: pd.DataFrame, measure: Measure, above: bool = True) -> None:
    """Set the horizontal axis: MB below; above, the share of dense and, of the embedding's bytes, the bits an entry."""
    sizes = data.x if data.floor.all() else data.x[~data.floor]
    first, last = sizes.min(), sizes.max()
    room = max((last / first) ** 0.12, 1.3)
    axes.set_xscale("log")
    axes.set_xlim(first / room, last * room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if last / first > 20 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{measure.title} in MB (log scale)")
    dense = float(data[measure.dense].max()) / 1e6
    if not above or math.isnan(dense):
        return
    functions: Any = (lambda x: 100 * x / dense, lambda share: share * dense / 100)
    top = axes.secondary_xaxis("top", functions=functions)
    top.xaxis.set_major_locator(LogLocator(subs=(1.0,) if last / first > 20 else (1.0, 2.0, 5.0)))
    top.xaxis.set_minor_locator(NullLocator())
    bits = measure == BYTES
    top.xaxis.set_major_formatter(
        FuncFormatter(lambda share, _: f"{share:g} %" + (f"\n{0.32 * share:g} bit" if bits else ""))
    )
    top.set_xlabel("share of dense" + ", and bits for each entry of the table" * bits, fontsize=11)
    top.tick_params(labelsize=10)


def panel(
    axes: Axes, data: pd.DataFrame, key: str, ends: tuple[str, str], front: bool = True
) -> list[Segment]:
    """Draw levels, front, points and light intervals; return the lines that labels should keep off."""
    # Levels: dense, the majority answer, floors.
    styles, column = kind_styles(set(data.kind)), data.iloc[0]
    dense = data[(data.kind == "dense") & data.plain.astype(bool)][key]
    black: dict[str, Any] = {"color": "black", "linewidth": 1.2}
    levels = [(level, black) for level in dense[: 1 if front else 0]]
    levels += [] if pd.isna(column.majority) else [(column.majority, MAJORITY)]
    levels += [(point[key], _floor(styles[point["kind"]])) for point in data[data.floor].to_dict("records")]
    for level, look in levels:
        axes.axhline(level, zorder=1, **look)

    # Points, a call for each kind: a call for each point takes minutes with thousands of records.
    data = data[~data.floor]
    best = data[data.on_front].sort_values(["x", key]) if front else data.iloc[:0]
    axes.step(best.x, best[key], where="post", color=FRONT, linewidth=1.4, zorder=2)
    bottom, top = axes.get_ylim() if not front else _limits(axes, data, [level for level, _ in levels])
    for _, points in data.groupby(["kind", "plain", "body"], sort=False):
        kind, plain, body = points[["kind", "plain", "body"]].iloc[0]
        style, shown = styles[kind], points[points[key].between(bottom, top)]
        spread = [shown[key] - shown[ends[0]].clip(bottom), shown[ends[1]].clip(upper=top) - shown[key]]
        face: Any = mark(style, SIZES.get(body, 8.0) * (1 if front else 0.75), hollow=bool(plain))
        bars = axes.errorbar(shown.x, shown[key], spread, zorder=4, **face, elinewidth=1.1)
        for line in bars[2]:
            line.set_alpha(0.5)
        beyond = points[~points[key].between(bottom, top)]
        for x, value in zip(beyond.x, beyond[key], strict=True):
            arrow = mark((style[0], CARETUP if value > top else CARETDOWN), 7, hollow=bool(plain))
            axes.plot(x, top if value > top else bottom, clip_on=False, zorder=5, **arrow)

    # What labels keep off.
    low, high = axes.get_xlim()
    segments = [Segment(low, level, high, level) for level, _ in levels]
    steps = list(pairwise(zip(best.x, best[key], strict=True)))
    segments += [Segment(x0, y0, x1, y0) for (x0, y0), (x1, _) in steps]
    segments += [Segment(x1, y0, x1, y1) for (_, y0), (x1, y1) in steps]
    bars_ = data[data[ends[0]].notna()]
    return segments + [
        Segment(*line) for line in zip(bars_.x, bars_[ends[0]], bars_.x, bars_[ends[1]], strict=True)
    ]


def _limits(axes: Axes, data: pd.DataFrame, levels: list[float]) -> tuple[float, float]:
    """Set the vertical axis with room for labels; a very wide interval is cut rather than flattening the points."""
    values = [*data["mean"], *levels]
    low, high = min(values), max(values)
    span = max(high - low, 0.02 * data.scale.iloc[0])
    bottom = max(data.ci95_low.fillna(low).min(), low - 0.5 * span)
    top = min(data.ci95_high.fillna(high).max(), high + 0.5 * span)
    axes.set_ylim(min(bottom, low) - 0.12 * span, max(top, high) + 0.2 * span)
    return axes.get_ylim()


def _settings(row: dict[Any, Any]) -> list[str]:
    return textwrap.wrap(row["configuration"], 54)


def _table(axes: Axes, listed: pd.DataFrame, measure: Measure) -> None:
    """Write the labelled configurations' settings, sizes and losses beneath the panel."""
    axes.axis("off")
    found = listed.to_dict("records")
    lines = 1 + sum(len(_settings(row)) for row in found)
    places: list[tuple[float, str]] = [
        (0.0, "left"),
        (0.2, "left"),
        (0.68, "right"),
        (0.79, "right"),
        (1.0, "right"),
    ]
    head = ["labelled", "settings", "size", "bits an entry", "points [95 % interval]"]
    if measure != BYTES:
        head[3] = "of dense"
    at = 0
    for cells in [head, *(_cells(row, measure) for row in found)]:
        for (x, side), text in zip(places, cells, strict=True):
            look: dict[str, Any] = {"fontsize": 9, "color": "#555555" if at == 0 else "black"}
            axes.text(
                x,
                1 - (at + text.count("\n")) / lines,  # the baseline of the last line
                text,
                ha=side,
                va="baseline",
                transform=axes.transAxes,
                linespacing=1.15,
                **look,
            )
        at += cells[1].count("\n") + 1


def _cells(row: dict[Any, Any], measure: Measure) -> list[str]:
    """Return the table's cells of a configuration."""
    size, low, high = 1e6 * row["x"], row["difference_ci95_low"], row["difference_ci95_high"]
    ends = "" if pd.isna(low) else f" [{signed(low)}, {signed(high)}]"
    change = "–" if pd.isna(row["difference_to_dense"]) else signed(row["difference_to_dense"]) + ends
    shown = (
        f"{100 * size / row[measure.dense]:.3g} %"
        if measure != BYTES
        else f"{row['size.bits_per_entry']:.3g}"
    )
    return [row["label"].partition(", ")[0], "\n".join(_settings(row)), size_text(size), shown, change]


def ring_mark() -> dict[str, Any]:
    face = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.3}
    return {"marker": "o", "markersize": 15, "linestyle": "none", "zorder": 6, **face}


def _floor(style: tuple[str, Any]) -> dict[str, Any]:
    return {"color": style[0], "linewidth": 1.4, "linestyle": "--" if style[1] == "1" else "-."}


def legend_entries(data: pd.DataFrame, ring: bool = False) -> list[Line2D]:
    """Return the legend's entries: kinds first, then lines and marks; only those that are drawn."""
    styles, floors = kind_styles(set(data.kind)), set(data[data.floor].kind)
    names = dict(zip(data.kind, data.plain_name, strict=True))
    shown: list[dict[str, Any]] = []
    for kind, style in styles.items():
        bodies = data[data.kind == kind].body
        name = "int8 and int4" if kind == "quantised" else names[kind]
        look = _floor(style) if kind in floors else mark(style, SIZES.get(bodies.iloc[0], 8.0))
        shown.append({"label": name, **look})
    sized, grey = data[~data.floor], ("#444444", "o")
    plain = sized.plain.astype(bool)
    lines = [
        ((~plain).any() and plain.any(), {"label": "filled: recovered or with teacher", **mark(grey, 8)}),
        ((~plain).any() and plain.any(), {"label": "hollow: neither", **mark(grey, 8, hollow=True)}),
        (data.majority.notna().any(), {"label": "always the commonest answer", **MAJORITY}),
        (not ring and data.on_front.any(), {"label": "best for its size", "color": FRONT, "linewidth": 1.4}),
        (ring, {"label": "configuration of the title", **ring_mark(), "markersize": 11}),
    ]
    return [Line2D([], [], **style) for style in (*shown, *(style for drawn, style in lines if drawn))]
