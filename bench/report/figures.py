"""Accuracy against size and cost: the main score alone, small multiples over tasks, and a page of costs."""

import math
import textwrap
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWN, CARETUP
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.labels import Label, Segment, place_labels
from bench.report.runs import rows
from bench.report.scores import FLOORS
from bench.report.style import STYLE, Chart, kind_styles, legend, page, set_title, settle
from bench.statistics import knee, pareto_front
from bench.text import one_line

MOST_LABELS = 12  # a panel with more points labels only dense and the Pareto front; of small multiples half as many, and then
# only dense and the knee of the front
WIDEST = 30  # letters of a label's line
LINEAR_BELOW = 3  # axes whose ends differ by a smaller factor are linear
FRONT = "#009E73"
SHOWN = [
    "ci95_low",
    "ci95_high",
    "ci95_is",
    "n",
    "metric",
    "chance",
    "on_front",
    "knee",
]  # last in the CSV file
FILLINGS: dict[
    str, dict[str, Any]
] = {  # of a marker: half full or empty where the body is stored in fewer bits
    "fp32": {},
    "bf16": {"markeredgewidth": 1.6, "fillstyle": "left", "markerfacecoloralt": "white"},
    "int8": {"markeredgewidth": 1.6, "markerfacecolor": "white"},
}


class Measure(NamedTuple):
    """A size or cost that can be the horizontal axis."""

    name: str  # part of the figure's name
    field: str  # column of the score table
    title: str
    unit: str
    factor: float = 1.0  # from the column's unit to `unit`


SIZES = [
    Measure("params", "size.embedding_params", "embedding parameters", ""),
    Measure("bytes", "size.embedding_bytes", "stored bytes of the embedding", "B"),
]
WHOLE = Measure("total_bytes", "size.total_bytes", "stored bytes of the whole model", "B")


def main_score(part: pd.DataFrame, measure: Measure) -> Chart | None:
    """Return the mean over tasks, or the only task, against a size."""
    return _chart(f"score-{measure.name}", part, measure.title, [(part[part.main], measure)])


def tasks(part: pd.DataFrame, measure: Measure) -> Chart | None:
    """Return small multiples: each task against a size; None where there is only one."""
    panels = [(lines, measure) for _, lines in part[~part.is_mean].groupby("column", sort=False)]
    if len(panels) < 2:
        return None
    return _chart(f"tasks-{measure.name}", part, f"{measure.title}, task by task", panels)


def costs(part: pd.DataFrame) -> Chart | None:
    """Return the main score against latency, memory and file size: those in use where `bench cost` measured them."""
    first = part.iloc[0]
    tokens = "" if pd.isna(first.tokens) else f" × {first.tokens:.0f} tokens"
    measures = [
        Measure(
            size, f"latency_ms.{size}", f"latency of a batch of {first[f'batch.{size}']}{tokens}", "s", 1e-3
        )
        for size in ("small", "large")
    ]
    measures += [
        Measure("memory", "memory_bytes", f"peak memory in {'use' if tokens else 'training'}", "B"),
        Measure("file", "size.file_bytes", "file of the embedding", "B"),
    ]
    against = f"cost on {first.machine}" if first.machine else measures[-1].title
    return _chart("costs", part, against, [(part[part.main], measure) for measure in measures])


DRAWN = [
    *(partial(draw, measure=measure) for measure in (*SIZES, WHOLE) for draw in (main_score, tasks)),
    costs,
]


def _compared(lines: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return the lines that a measure compares: the embeddings, or whole models where some have a body in fewer bits."""
    fp32 = lines.body == "fp32"
    return lines[fp32] if measure != WHOLE else lines.iloc[: 0 if fp32.all() else None]


def _points(lines: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return the lines of one column that can be plotted, with x, floor (drawn as a level), on_front and knee.

    A floor's few bytes would stretch the axis; it comes last and is no part of the front.
    """
    data = lines.assign(x=lines[measure.field].astype(float) * measure.factor)
    data = data[data["mean"].notna() & (data.x > 0)]
    data["floor"] = data.kind.map(lambda kind: kind.partition(",")[0] in FLOORS).astype(bool)
    data = data.sort_values("floor", kind="stable", ignore_index=True)
    sized = data[~data.floor]
    quality = sized["mean"] * (1 if len(data) and data.higher_is_better.iloc[0] else -1)
    front = pareto_front(list(sized.x), list(quality))
    bend = knee(list(sized.x[front]), list(quality[front]))
    data["on_front"] = data.index.isin(front)
    data["knee"] = data.index == (-1 if bend is None else front[bend])
    return data


def _chart(
    name: str, part: pd.DataFrame, against: str, wanted: list[tuple[pd.DataFrame, Measure]]
) -> Chart | None:
    """Return the figure with a panel for each column and measure that has points; None where none has.

    Where there are several configurations a panel needs two points: one compares nothing. One panel is 10 x 6 inches; several
    stand two or three in a line on a wider page whose type grows with it.
    """
    first = part.iloc[0]
    title = f"{first.title} on {first.suite}: score against {against}"
    panels = [
        (points, measure)
        for lines, measure in wanted
        if len(points := _points(_compared(lines, measure), measure))
        >= min(2, len(_compared(lines, measure)))
        and len(points)
    ]
    if not panels:
        return None
    across = min(len(panels), 3 if len(panels) > 4 else 2)
    down = math.ceil(len(panels) / across)
    everything = pd.concat([points for points, _ in panels])
    kinds = kind_styles(set(everything.kind))
    size = ((10, 6), (14, 1.8 + 5.2 * down), (17, 1.8 + 4.4 * down))[across - 1]
    larger = {key: STYLE[key] * (1.0, 1.3, 1.3)[across - 1] for key in ("font.size", "axes.titlesize")}
    with rc_context(STYLE | larger):
        figure = page(title, size, first.provenance)
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.remove()
        repeated = len(panels) > 1 and everything.column.nunique() == 1
        if repeated:
            set_title(figure, "\n".join([title, *_heading(panels[0][0])]))
        handles = _legend(kinds, everything)
        long = max(len(str(handle.get_label())) for handle in handles) > WIDEST
        legend(figure, handles, 4 if long else 3 + across)
        waiting = [
            _panel(axes, *panel, kinds, len(panels) > 1) for axes, panel in zip(grid, panels, strict=False)
        ]
        for axes, (points, _) in zip(grid, [] if repeated else panels, strict=False):
            letters = int(10.5 * axes.get_window_extent().width / figure.dpi)
            axes.set_title("\n".join(textwrap.fill(line, letters) for line in _heading(points)))
        settle(figure)
        for axes, around in zip(grid, waiting, strict=False):
            place_labels(axes, *around)
    columns = ["column", "configuration", "kind", "body"]
    data = [points[[*columns, measure.field, "mean", *SHOWN]] for points, measure in panels]
    return Chart(name, title, pd.concat(data, ignore_index=True), figure)


def _panel(
    axes: Axes, data: pd.DataFrame, measure: Measure, kinds: dict[str, tuple[str, str]], small: bool
) -> tuple[list[Label], list[Segment], list[tuple[float, float]]]:
    """Draw all but the labels; return these, and the line segments and other points that they should keep off."""
    # Levels: dense with its interval, chance, floors.
    column = data.iloc[0]
    _axes(axes, data, measure)
    dense, chance, floors = data[data.kind == "dense"], column.chance, data[data.floor]
    levels = [*dense["mean"], *([] if pd.isna(chance) else [chance]), *floors["mean"]]
    for point in rows(dense):
        axes.axhline(point.mean, color="black", linewidth=1.2, zorder=1)
        if pd.notna(point.ci95_low):
            axes.axhspan(point.ci95_low, point.ci95_high, color="black", alpha=0.08, linewidth=0)
    if pd.notna(chance):
        axes.axhline(chance, color="#555555", linewidth=1.4, linestyle=":", zorder=1)
    for point in rows(floors):
        axes.axhline(point.mean, zorder=1, **_floor(kinds[point.kind][0]))

    # Points with their intervals, a call a kind: one a point takes minutes for thousands of records.
    data = data[~data.floor]
    front = data[data.on_front].sort_values(["x", "mean"])
    axes.step(front.x, front["mean"], where="post", color=FRONT, linewidth=1.8, alpha=0.7, zorder=2)
    for kind, own in data.groupby("kind", sort=False):
        colour, marker = kinds[str(kind)]
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 10,
            "markeredgecolor": "white",
        }
        spread = [own["mean"] - own.ci95_low, own.ci95_high - own["mean"]]
        style |= _filling(own.body.iloc[0], colour)
        axes.errorbar(own.x, own["mean"], spread, linestyle="none", capsize=4, zorder=4, **style)

    # An interval that goes on beyond the panel ends in an arrow head; a ring marks the knee.
    bottom, top = axes.get_ylim()
    for point in rows(data):
        for end, edge, head in ((point.ci95_high, top, CARETUP), (point.ci95_low, bottom, CARETDOWN)):
            if pd.notna(end) and not bottom <= end <= top:
                style = {"marker": head, "markersize": 9, "color": kinds[point.kind][0], "linestyle": "none"}
                axes.plot(point.x, edge, zorder=4, **style)
    for point in rows(data[data.knee]):
        axes.plot(point.x, point.mean, **_ring(20))

    # What is labelled, and what labels keep off.
    crowded = small and len(data) > MOST_LABELS / 2
    needed = (data.kind == "dense") | (data.on_front & (data.knee | (not crowded)))
    named = needed | (not (crowded or len(data) > MOST_LABELS))
    labels = [
        Label(x, y, textwrap.fill(text, WIDEST), bool(must))
        for x, y, text, must in zip(data.x, data["mean"], data.configuration, needed, strict=True)
    ]
    x, y, low, high = list(front.x), list(front["mean"]), *axes.get_xlim()
    segments = [Segment(low, level, high, level) for level in levels]
    segments += [Segment(*corner) for corner in zip(x, y, x[1:], y, strict=False)]
    segments += [Segment(*corner) for corner in zip(x[1:], y, x[1:], y[1:], strict=False)]
    bars = data[data.ci95_low.notna()]
    segments += [Segment(*ends) for ends in zip(bars.x, bars.ci95_low, bars.x, bars.ci95_high, strict=True)]
    unnamed = data[~named]
    return (
        [label for label, shown in zip(labels, named, strict=True) if shown],
        segments,
        list(zip(unnamed.x, unnamed["mean"], strict=True)),
    )


def _filling(body: str, colour: str) -> dict[str, Any]:
    return FILLINGS[body] and FILLINGS[body] | {"markeredgecolor": colour}


def _ring(size: float) -> dict[str, Any]:
    face = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.4}
    return {"marker": "o", "markersize": size, "linestyle": "none", "zorder": 3, **face}


def _floor(colour: str) -> dict[str, Any]:
    return {"color": colour, "linewidth": 1.4, "linestyle": "--"}


def _axes(axes: Axes, data: pd.DataFrame, measure: Measure) -> None:
    """Set limits, ticks and names. A very wide interval is cut at the panel's edge rather than flattening the points."""
    # Vertical: with room for labels.
    column, means = data.iloc[0], data["mean"]
    levels = pd.concat([means, pd.Series([column.chance], dtype=float).dropna()])
    low, high = levels.min(), levels.max()
    span = max(high - low, 0.02 * column.scale)
    bottom = max(data.ci95_low.fillna(means).min(), low - 0.5 * span)
    top = min(data.ci95_high.fillna(means).max(), high + 0.5 * span)
    axes.set_ylim(min(bottom, low) - 0.1 * span, max(top, high) + 0.15 * span)
    where = "" if pd.isna(column["headline.split"]) else f" on {column['headline.split']}"
    axes.set_ylabel(textwrap.fill(f"{column.metric}{where}", WIDEST))

    # Horizontal: logarithmic where sizes differ much.
    sizes = data.x if data.floor.all() else data.x[~data.floor]
    first, last = sizes.min(), sizes.max()
    logarithmic = last / first > LINEAR_BELOW
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(first / (last / first) ** 0.2, last * (last / first) ** 0.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if last / first > 100 else (1.0, 2.0, 5.0)))
    else:
        room = 0.2 * ((last - first) or first)
        axes.set_xlim(first - room, last + room)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(unit=measure.unit))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{measure.title}{' (log scale)' if logarithmic else ''}")


def _heading(data: pd.DataFrame) -> list[str]:
    """Return what is plotted, from how many seeds, and what is not official about it."""
    column, low, high = data.iloc[0], int(data.n.min()), int(data.n.max())
    seeds = f"{low}" if low == high else f"{low} to {high}"
    marks = [f"not official: {column.not_official}"] if column.not_official else []
    return [one_line(line) for line in (f"{column.task} · {seeds} seed{'s' * (high > 1)}", *marks)]


def _legend(kinds: dict[str, tuple[str, str]], data: pd.DataFrame) -> list[Line2D]:
    """Return what the marks mean: kinds first, then lines; only those that are drawn."""
    bodies, floors = dict(zip(data.kind, data.body, strict=True)), set(data[data.floor].kind)
    sized = {"linestyle": "none", "markersize": 9}
    shown: list[dict[str, Any]] = [
        {"label": kind, "color": colour, "marker": marker, **sized, **_filling(bodies[kind], colour)}
        for kind, (colour, marker) in kinds.items()
        if kind not in floors
    ]
    shown += [{"label": kind, **_floor(colour)} for kind, (colour, _) in kinds.items() if kind in floors]
    intervals = data[~data.floor].ci95_is.replace("", None).dropna()
    over = [
        name
        for name, words in (
            ("over seeds", "Student's"),
            ("over tasks and seeds", "Welch's"),
            ("over rows, 1 seed", "Wilson|MOVER"),
        )
        if intervals.str.match(words).any()
    ]
    lines: list[tuple[Any, dict[str, Any]]] = [
        ("dense" in kinds, {"color": "black", "linewidth": 1.2, "label": "dense level"}),
        (data.on_front.any(), {"color": FRONT, "linewidth": 1.8, "alpha": 0.7, "label": "Pareto front"}),
        (data.knee.any(), {"label": "knee of the front", **_ring(14)}),
        (
            data.chance.notna().any(),
            {"color": "#555555", "linewidth": 1.4, "linestyle": ":", "label": "chance"},
        ),
        (
            bool(over),
            {"color": "#555555", "marker": "|", "markersize": 16, "linestyle": "none"}
            | {"label": f"95 % interval {' or '.join(over)}"},
        ),
    ]
    return [Line2D([], [], **style) for style in (*shown, *(style for drawn, style in lines if drawn))]
