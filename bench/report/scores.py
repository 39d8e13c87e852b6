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

from bench.report.figures import STYLE, Chart, kind_styles, legend, page, set_title, settle
from bench.report.labels import Label, Segment, place_labels
from bench.report.section import FLOORS, Column, Row, Section
from bench.statistics import knee, pareto_front
from bench.text import one_line

MOST_LABELS = 12  # a panel with more points labels only dense and the Pareto front; of small multiples half as many, and then
# only dense and the knee of the front
WIDEST = 30  # letters of a label's line
LINEAR_BELOW = 3  # axes whose ends differ by a smaller factor are linear
FRONT = "#009E73"


class Measure(NamedTuple):
    """A size or cost that can be the horizontal axis."""

    key: str  # attribute of a row, and part of the figure's name
    field: str  # name in the CSV file
    title: str
    unit: str
    factor: float = 1.0  # from the record's unit to `unit`


SIZES = [
    Measure("params", "embedding_params", "embedding parameters", ""),
    Measure("bytes", "embedding_bytes", "stored bytes of the embedding", "B"),
]
WHOLE = Measure("total_bytes", "total_bytes", "stored bytes of the whole model", "B")
COSTS = [
    Measure("latency_batch1_ms", "latency_batch1_ms", "latency of a batch of 1", "s", 1e-3),
    Measure("latency_batch32_ms", "latency_batch32_ms", "latency of a batch of 32", "s", 1e-3),
    Measure("peak_memory_bytes", "peak_memory_bytes", "peak memory in training", "B"),
    Measure("file_bytes", "file_bytes", "file of the embedding", "B"),
]


class Point(NamedTuple):
    """One configuration in one panel."""

    panel: str  # a column's name
    configuration: str
    kind: str
    body: str
    size: float
    mean: float
    low: float | None  # ends of the 95 % interval
    high: float | None
    interval: str
    seeds: int
    unit: str
    chance: float | None
    on_front: bool
    knee: bool

    @property
    def floor(self) -> bool:
        """Return whether it is drawn as a level: its few bytes would stretch the axis."""
        return self.kind.partition(",")[0] in FLOORS


def main_score(section: Section, measure: Measure) -> Chart | None:
    """Return the mean over tasks, or the only task, against a size."""
    return _chart(f"score-{measure.key}", _title(section, measure.title), section, [(section.main, measure)])


def tasks(section: Section, measure: Measure) -> Chart | None:
    """Return small multiples: each task against a size; None where there is only one."""
    title = f"{_title(section, measure.title)}, task by task"
    wanted = [(column, measure) for column in section.tasks]
    return _chart(f"tasks-{measure.key}", title, section, wanted) if len(wanted) > 1 else None


def costs(section: Section) -> Chart | None:
    """Return the main score against latency, memory and file size: those in use where `bench cost` measured them."""
    *latencies, memory, file = COSTS
    if section.tokens:
        latencies = [
            measure._replace(title=f"{measure.title} × {section.tokens} tokens") for measure in latencies
        ]
        memory = memory._replace(title="peak memory in use")
    measures = [(section.main, measure) for measure in (*latencies, memory, file)]
    return _chart(
        "costs",
        _title(section, f"cost on {section.machine}" if section.machine else file.title),
        section,
        measures,
    )


DRAWN = [
    *(partial(draw, measure=measure) for measure in (*SIZES, WHOLE) for draw in (main_score, tasks)),
    costs,
]


def _title(section: Section, what: str) -> str:
    return f"{section.title} on {section.suite}: score against {what}"


def _rows(section: Section, measure: Measure) -> list[Row]:
    """Return what a measure compares: the embeddings, or whole models where some have a body in fewer bits."""
    return (
        section.embeddings
        if measure != WHOLE
        else section.rows
        if len(section.rows) > len(section.embeddings)
        else []
    )


def _points(section: Section, column: Column, measure: Measure) -> list[Point]:
    """Return what can be plotted of one task, or of the mean over tasks."""
    panel = []
    for row in _rows(section, measure):
        score, size = section.cells[row.config_id, column.name].score, getattr(row, measure.key)
        if score.mean is not None and size:
            panel.append(
                Point(
                    column.name,
                    row.label,
                    row.kind,
                    row.body,
                    size * measure.factor if measure.factor != 1 else size,
                    score.mean,
                    score.low,
                    score.high,
                    score.interval,
                    score.n,
                    column.unit,
                    column.chance,
                    False,
                    False,
                )
            )
    panel.sort(key=lambda point: point.floor)  # last, so that a place among the others is one in the panel
    sign, sized = 1 if column.higher_is_better else -1, [point for point in panel if not point.floor]
    front = pareto_front([point.size for point in sized], [sign * point.mean for point in sized])
    bend = knee([panel[i].size for i in front], [sign * panel[i].mean for i in front])
    for place, index in enumerate(front):
        panel[index] = panel[index]._replace(on_front=True, knee=place == bend)
    return panel


def _chart(name: str, title: str, section: Section, wanted: list[tuple[Column, Measure]]) -> Chart | None:
    """Return the figure with a panel for each column and measure that has points; None where none has.

    Where there are several configurations a panel needs two points: one compares nothing. One panel is 10 x 6 inches; several
    stand two or three in a line on a wider page whose type grows with it.
    """
    panels = [
        (column, measure, points)
        for column, measure in wanted
        if len(points := _points(section, column, measure)) >= min(2, len(_rows(section, measure))) and points
    ]
    if not panels:
        return None
    across = min(len(panels), 3 if len(panels) > 4 else 2)
    down = math.ceil(len(panels) / across)
    everything = [point for *_, points in panels for point in points]
    kinds = kind_styles({point.kind for point in everything})
    with rc_context(
        STYLE | {key: STYLE[key] * (1.0, 1.3, 1.3)[across - 1] for key in ("font.size", "axes.titlesize")}
    ):
        figure = page(
            title, ((10, 6), (14, 1.8 + 5.2 * down), (17, 1.8 + 4.4 * down))[across - 1], section.provenance
        )
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.remove()
        repeated = len(panels) > 1 and len({column.name for column, *_ in panels}) == 1
        if repeated:
            set_title(figure, "\n".join([title, *_heading(panels[0][0], panels[0][2])]))
        handles = _legend(kinds, everything)
        legend(
            figure,
            handles,
            4 if max(len(str(handle.get_label())) for handle in handles) > WIDEST else 3 + across,
        )
        waiting = [
            _panel(axes, *panel, kinds, len(panels) > 1) for axes, panel in zip(grid, panels, strict=False)
        ]
        for axes, (column, _, data) in zip(grid, [] if repeated else panels, strict=False):
            letters = int(10.5 * axes.get_window_extent().width / figure.dpi)
            axes.set_title("\n".join(textwrap.fill(line, letters) for line in _heading(column, data)))
        settle(figure)
        for axes, around in zip(grid, waiting, strict=False):
            place_labels(axes, *around)
    frames = [
        pd.DataFrame(points).rename(columns={"size": measure.field, "low": "ci95_low", "high": "ci95_high"})
        for _, measure, points in panels
    ]
    return Chart(name, title, pd.concat(frames, ignore_index=True), figure)


def _panel(
    axes: Axes,
    column: Column,
    measure: Measure,
    data: list[Point],
    kinds: dict[str, tuple[str, str]],
    small: bool,
) -> tuple[list[Label], list[Segment], list[tuple[float, float]]]:
    """Draw all but the labels; return these, and the line segments and other points that they should keep off."""
    _limits(axes, column, data)
    _describe(axes, column, data, measure)
    dense = [point for point in data if point.kind == "dense"]
    for point in dense:
        axes.axhline(point.mean, color="black", linewidth=1.2, zorder=1)
        if point.low is not None and point.high is not None:
            axes.axhspan(point.low, point.high, color="black", alpha=0.08, linewidth=0)
    levels = [point.mean for point in dense]
    if column.chance is not None:
        axes.axhline(column.chance, color="#555555", linewidth=1.4, linestyle=":", zorder=1)
        levels.append(column.chance)
    for point in (point for point in data if point.floor):
        axes.axhline(point.mean, zorder=1, **_floor(kinds[point.kind][0]))
        levels.append(point.mean)
    data = [point for point in data if not point.floor]
    front = sorted((point.size, point.mean) for point in data if point.on_front)
    sizes, means = [size for size, _ in front], [mean for _, mean in front]
    axes.step(sizes, means, where="post", color=FRONT, linewidth=1.8, alpha=0.7, zorder=2)
    for kind in dict.fromkeys(
        point.kind for point in data
    ):  # a call a kind: one a point takes minutes for thousands of records
        colour, marker = kinds[kind]
        own = [point for point in data if point.kind == kind]
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 10,
            "markeredgecolor": "white",
        } | _filling(own[0].body, colour)
        spread = [
            [math.nan if p.low is None else p.mean - p.low for p in own],
            [math.nan if p.high is None else p.high - p.mean for p in own],
        ]
        axes.errorbar(
            [p.size for p in own],
            [p.mean for p in own],
            spread,
            linestyle="none",
            capsize=4,
            zorder=4,
            **style,
        )
    bottom, top = axes.get_ylim()
    for point in data:  # an interval that goes on beyond the panel ends in an arrow head
        for end, edge, head in ((point.high, top, CARETUP), (point.low, bottom, CARETDOWN)):
            if end is not None and not bottom <= end <= top:
                axes.plot(
                    point.size,
                    edge,
                    marker=head,
                    markersize=9,
                    color=kinds[point.kind][0],
                    linestyle="none",
                    zorder=4,
                )
    for point in (point for point in data if point.knee):
        axes.plot(point.size, point.mean, **_ring(20))
    crowded = small and len(data) > MOST_LABELS / 2
    chosen = [p.kind == "dense" or (p.on_front and (not crowded or p.knee)) for p in data]
    named = [needed or not (crowded or len(data) > MOST_LABELS) for needed in chosen]
    labels = [
        Label(p.size, p.mean, textwrap.fill(p.configuration, WIDEST), needed)
        for p, needed, shown in zip(data, chosen, named, strict=True)
        if shown
    ]
    unnamed = [(p.size, p.mean) for p, shown in zip(data, named, strict=True) if not shown]
    low, high = axes.get_xlim()
    segments = [Segment(low, level, high, level) for level in levels]
    segments += [Segment(x, y, after, y) for x, y, after in zip(sizes, means, sizes[1:], strict=False)]
    segments += [Segment(x, y, x, up) for x, y, up in zip(sizes[1:], means, means[1:], strict=False)]
    segments += [
        Segment(p.size, p.low, p.size, p.high) for p in data if p.low is not None and p.high is not None
    ]
    return labels, segments, unnamed


def _filling(body: str, colour: str) -> dict[str, Any]:
    """Return what shows that the body is stored in fewer bits: a marker that is half full (bf16) or empty (int8)."""
    edge = {"markeredgecolor": colour, "markeredgewidth": 1.6}
    return {
        "fp32": {},
        "bf16": edge | {"fillstyle": "left", "markerfacecoloralt": "white"},
        "int8": edge | {"markerfacecolor": "white"},
    }[body]


def _ring(size: float) -> dict[str, Any]:
    return {
        "marker": "o",
        "markersize": size,
        "markerfacecolor": "none",
        "markeredgecolor": "black",
        "markeredgewidth": 1.4,
        "linestyle": "none",
        "zorder": 3,
    }


def _floor(colour: str) -> dict[str, Any]:
    return {"color": colour, "linewidth": 1.4, "linestyle": "--"}


def _limits(axes: Axes, column: Column, data: list[Point]) -> None:
    """Leave room for labels; a very wide interval is cut at the panel's edge rather than flattening the points."""
    levels = [point.mean for point in data] + ([] if column.chance is None else [column.chance])
    low, high = min(levels), max(levels)
    span = max(high - low, 0.02 * column.scale)
    bottom = max(min(point.mean if point.low is None else point.low for point in data), low - 0.5 * span)
    top = min(max(point.mean if point.high is None else point.high for point in data), high + 0.5 * span)
    axes.set_ylim(min(bottom, low) - 0.1 * span, max(top, high) + 0.15 * span)
    first, last = _ends(data)
    if last / first > LINEAR_BELOW:
        axes.set_xscale("log")
        axes.set_xlim(first / (last / first) ** 0.2, last * (last / first) ** 0.2)
    else:
        room = 0.2 * ((last - first) or first)
        axes.set_xlim(first - room, last + room)


def _ends(data: list[Point]) -> tuple[float, float]:
    sizes = [point.size for point in data if not point.floor] or [point.size for point in data]
    return min(sizes), max(sizes)


def _describe(axes: Axes, column: Column, data: list[Point], measure: Measure) -> None:
    first, last = _ends(data)
    logarithmic = last / first > LINEAR_BELOW
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0,) if last / first > 100 else (1.0, 2.0, 5.0)) if logarithmic else MaxNLocator(4)
    )
    axes.xaxis.set_major_formatter(EngFormatter(unit=measure.unit))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{measure.title}{' (log scale)' if logarithmic else ''}")
    where = f" on {column.split}" if column.split else ""
    axes.set_ylabel(textwrap.fill(f"{column.unit}{where}", WIDEST))


def _heading(column: Column, data: list[Point]) -> list[str]:
    """Return what is plotted, from how many seeds, and what is not official about it."""
    low, high = min(point.seeds for point in data), max(point.seeds for point in data)
    seeds = f"{low}" if low == high else f"{low} to {high}"
    marks = [f"not official: {'; '.join(column.marks)}"] if column.marks else []
    return [one_line(line) for line in (f"{column.task} · {seeds} seed{'s' * (high > 1)}", *marks)]


def _legend(kinds: dict[str, tuple[str, str]], data: list[Point]) -> list[Line2D]:
    """Return what the marks mean: kinds first, then lines; only those that are drawn."""
    bodies = {point.kind: point.body for point in data}
    floors = [point.kind for point in data if point.floor]
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=9,
            label=kind,
            **_filling(bodies[kind], colour),
        )
        for kind, (colour, marker) in kinds.items()
        if kind not in floors
    ]
    handles += [
        Line2D([], [], label=kind, **_floor(colour)) for kind, (colour, _) in kinds.items() if kind in floors
    ]
    if "dense" in kinds:
        handles.append(Line2D([], [], color="black", linewidth=1.2, label="dense level"))
    if any(point.on_front for point in data):
        handles.append(Line2D([], [], color=FRONT, linewidth=1.8, alpha=0.7, label="Pareto front"))
    if any(point.knee for point in data):
        handles.append(Line2D([], [], label="knee of the front", **_ring(14)))
    if any(point.chance is not None for point in data):
        handles.append(Line2D([], [], color="#555555", linewidth=1.4, linestyle=":", label="chance"))
    if intervals := sorted(
        {point.interval.split()[0] for point in data if point.interval and not point.floor}
    ):
        bar: dict[str, Any] = {"marker": "|", "markersize": 16, "linestyle": "none"}
        names = {
            "Student's": "over seeds",
            "stratified": "over tasks and seeds",
            "Wilson": "over rows, 1 seed",
            "MOVER": "over rows, 1 seed",
        }
        handles.append(
            Line2D(
                [],
                [],
                color="#555555",
                label=f"95 % interval {' or '.join(names[name] for name in intervals)}",
                **bar,
            )
        )
    return handles
