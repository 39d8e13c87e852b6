"""Accuracy against size and cost: the main score alone, small multiples over tasks, and a page of costs."""

import math
import textwrap
from functools import partial
from itertools import compress, pairwise
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
from bench.report.style import (
    STYLE,
    Chart,
    figure,
    kind_styles,
    legend,
    mark,
    page,
    set_title,
    settle,
    title_of,
)
from bench.statistics import knee, pareto_front
from bench.text import one_line

# A panel with more points labels only dense and the Pareto front; of small multiples half as many, and then only dense and the
# knee of the front.
MOST_LABELS = 12
WIDEST = 30  # letters of a label's line
LINEAR_BELOW = 3  # axes whose ends differ by a smaller factor are linear
FRONT = "#009E73"
CHANCE: dict[str, Any] = {"color": "#555555", "linewidth": 1.4, "linestyle": ":"}
# Last in the CSV file.
SHOWN = ["ci95_low", "ci95_high", "ci95_is", "n", "metric", "chance", "on_front", "knee"]
# Of a marker: half full or empty where the body is stored in fewer bits.
EMPTY = {"markeredgewidth": 1.6, "markerfacecolor": "white"}
FILLINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"markeredgewidth": 1.6, "fillstyle": "left", "markerfacecoloralt": "white"},
}


class Measure(NamedTuple):
    """A size or cost that can be the horizontal axis."""

    name: str  # part of the figure's name
    field: str  # column of the score table
    title: str
    unit: str
    factor: float = 1.0  # from the column's unit to `unit`


WHOLE = Measure("total_bytes", "size.total_bytes", "stored bytes of the whole model", "B")
SIZES = [
    Measure("params", "size.embedding_params", "embedding parameters", ""),
    Measure("bytes", "size.embedding_bytes", "stored bytes of the embedding", "B"),
    WHOLE,
]


def main_score(part: pd.DataFrame, measure: Measure) -> Chart | None:
    """Return the mean over tasks, or the only task, against a size."""
    return _chart(part, measure.title, [(part[part.main], measure)])


def tasks(part: pd.DataFrame, measure: Measure) -> Chart | None:
    """Return small multiples: each task against a size; None for a single task."""
    panels = [(lines, measure) for _, lines in part[~part.is_mean].groupby("column", sort=False)]
    return _chart(part, f"{measure.title}, task by task", panels) if len(panels) > 1 else None


for measure in SIZES:
    figure(f"score-{measure.name}")(partial(main_score, measure=measure))
    figure(f"tasks-{measure.name}")(partial(tasks, measure=measure))


@figure("costs")
def costs(part: pd.DataFrame) -> Chart | None:
    """Return the main score against latency, memory and file size: those in use where `bench latency` measured them."""
    first = part.iloc[0]
    tokens = "" if pd.isna(first.tokens) else f" × {first.tokens:.0f} tokens"
    batches = {
        f"latency_ms.{size}": f"batch of {first[f'batch.{size}']}{tokens}" for size in ("small", "large")
    }
    measures = [
        *(Measure(field, field, f"latency of a {batch}", "s", 1e-3) for field, batch in batches.items()),
        Measure("memory", "memory_bytes", f"peak memory in {'use' if tokens else 'training'}", "B"),
        Measure("file", "size.file_bytes", "file of the embedding", "B"),
    ]
    against = f"cost on {first.machine}" if first.machine else measures[-1].title
    return _chart(part, against, [(part[part.main], measure) for measure in measures])


def _compared(lines: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return the lines that a measure compares: embeddings with a body in fp32, or whole models where some body has fewer bits."""
    fp32 = lines.body == "fp32"
    return lines[fp32] if measure != WHOLE else lines.iloc[: 0 if fp32.all() else None]


def _points(lines: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return a column's lines that can be plotted, with x, floor (drawn as a level), on_front and knee.

    A floor's few bytes would stretch the axis. Floors come last and are no part of the front.
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


def _chart(part: pd.DataFrame, against: str, choice: list[tuple[pd.DataFrame, Measure]]) -> Chart | None:
    """Return the figure with a panel for each column and measure that has points; None where none has.

    Where there are several configurations a panel needs two points: a single point compares nothing. One panel is 10 x 6 inches;
    several stand two or three in a line on a wider page whose type grows with it.
    """
    compared = [(_compared(lines, measure), measure) for lines, measure in choice]
    plotted = [(_points(lines, measure), min(2, len(lines)), measure) for lines, measure in compared]
    panels = [(points, measure) for points, least, measure in plotted if len(points) >= max(least, 1)]
    if not panels:
        return None
    title = title_of(part, f"score against {against}")
    across = min(len(panels), 3 if len(panels) > 4 else 2)
    down = math.ceil(len(panels) / across)
    everything = pd.concat([points for points, _ in panels])
    kinds = kind_styles(set(everything.kind))
    size = ((10, 6), (14, 1.8 + 5.2 * down), (17, 1.8 + 4.4 * down))[across - 1]
    larger = {key: STYLE[key] * (1.0, 1.3, 1.3)[across - 1] for key in ("font.size", "axes.titlesize")}
    with rc_context(STYLE | larger):
        # The page, its title and its legend.
        figure = page(title, size, part.provenance.iloc[0])
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.remove()
        repeated = len(panels) > 1 and everything.column.nunique() == 1
        if repeated:
            set_title(figure, "\n".join([title, *_heading(panels[0][0])]))
        handles = _legend(kinds, everything)
        long = max(len(str(handle.get_label())) for handle in handles) > WIDEST
        legend(figure, handles, 4 if long else 3 + across)

        # The panels; their labels last, when nothing moves any more.
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
    return Chart(title, pd.concat(data, ignore_index=True), figure)


def _panel(
    axes: Axes, data: pd.DataFrame, measure: Measure, kinds: dict[str, tuple[str, str]], small: bool
) -> tuple[list[Label], list[Segment], list[tuple[float, float]]]:
    """Draw all but the labels. Return the labels, and the line segments and points that they should keep off."""
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
        axes.axhline(chance, zorder=1, **CHANCE)
    for point in rows(floors):
        axes.axhline(point.mean, zorder=1, **_floor(kinds[point.kind][0]))

    # Points with their intervals, a call for each kind: a call for each point takes minutes with thousands of records.
    data = data[~data.floor]
    front = data[data.on_front].sort_values(["x", "mean"])
    axes.step(front.x, front["mean"], where="post", color=FRONT, linewidth=1.8, alpha=0.7, zorder=2)
    for kind, points in data.groupby("kind", sort=False):
        style = kinds[str(kind)]
        spread = [points["mean"] - points.ci95_low, points.ci95_high - points["mean"]]
        look = {**mark(style, 10), "markeredgecolor": "white", **_filling(points.body.iloc[0], style[0])}
        axes.errorbar(points.x, points["mean"], spread, capsize=4, zorder=4, **look)

    # An interval that goes on beyond the panel ends in an arrow head; a ring marks the knee.
    bottom, top = axes.get_ylim()
    for point in rows(data):
        for end, edge, head in ((point.ci95_high, top, CARETUP), (point.ci95_low, bottom, CARETDOWN)):
            if pd.notna(end) and not bottom <= end <= top:
                axes.plot(point.x, edge, zorder=4, **mark((kinds[point.kind][0], head), 9))
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
    low, high = axes.get_xlim()
    segments = [Segment(low, level, high, level) for level in levels]
    steps = list(pairwise(zip(front.x, front["mean"], strict=True)))
    segments += [Segment(x0, y0, x1, y0) for (x0, y0), (x1, _) in steps]
    segments += [Segment(x1, y0, x1, y1) for (_, y0), (x1, y1) in steps]
    bars = data[data.ci95_low.notna()]
    segments += [Segment(*ends) for ends in zip(bars.x, bars.ci95_low, bars.x, bars.ci95_high, strict=True)]
    unnamed = list(data.loc[~named, ["x", "mean"]].itertuples(index=False, name=None))
    return list(compress(labels, named)), segments, unnamed


def _filling(body: str, colour: str) -> dict[str, Any]:
    filling = FILLINGS.get(body, EMPTY)
    return filling and filling | {"markeredgecolor": colour}


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
    """Return a panel's heading: the task, the number of seeds, and what is not official."""
    column, low, high = data.iloc[0], int(data.n.min()), int(data.n.max())
    seeds = f"{low}" if low == high else f"{low} to {high}"
    marks = [f"not official: {column.not_official}"] if column.not_official else []
    return [one_line(line) for line in (f"{column.task} · {seeds} seed{'s' * (high > 1)}", *marks)]


def _legend(kinds: dict[str, tuple[str, str]], data: pd.DataFrame) -> list[Line2D]:
    """Return the legend's entries: kinds first, then lines; only those that are drawn."""
    bodies, floors = dict(zip(data.kind, data.body, strict=True)), set(data[data.floor].kind)
    shown: list[dict[str, Any]] = [
        {"label": kind, **mark(style, 9), **_filling(bodies[kind], style[0])}
        for kind, style in kinds.items()
        if kind not in floors
    ]
    shown += [{"label": kind, **_floor(colour)} for kind, (colour, _) in kinds.items() if kind in floors]
    intervals = data[~data.floor].ci95_is.replace("", None).dropna()
    words = {
        "over seeds": "Student's",
        "over tasks and seeds": "Welch's",
        "over rows, 1 seed": "Wilson|MOVER",
    }
    over = " or ".join(name for name, pattern in words.items() if intervals.str.match(pattern).any())
    front = {"color": FRONT, "linewidth": 1.8, "alpha": 0.7}
    lines: list[tuple[Any, dict[str, Any]]] = [
        ("dense" in kinds, {"label": "dense level", "color": "black", "linewidth": 1.2}),
        (data.on_front.any(), {"label": "Pareto front", **front}),
        (data.knee.any(), {"label": "knee of the front", **_ring(14)}),
        (data.chance.notna().any(), {"label": "chance", **CHANCE}),
        (over, {"label": f"95 % interval {over}", **mark(("#555555", "|"), 16)}),
    ]
    return [Line2D([], [], **style) for style in (*shown, *(style for drawn, style in lines if drawn))]
