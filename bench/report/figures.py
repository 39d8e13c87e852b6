"""Accuracy against size: one figure per section and size measure, with the plotted points as a frame beside it."""

import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from bench.report.labels import Label, Segment, place_labels
from bench.report.markdown import one_line
from bench.report.statistics import pareto_front
from bench.report.summary import Column, Section

# Okabe & Ito's colours, each with a marker of its own for print in black and white.
STYLES = {
    "dense": ("#000000", "s"),
    "sequential": ("#E69F00", "^"),
    "random": ("#CC79A7", "X"),
    "contextual": ("#0072B2", "o"),
    "pq": ("#D55E00", "D"),
    "residual": ("#56B4E9", "P"),
    "codebook": ("#8C7A00", "<"),
    "low_rank": ("#009E73", "v"),
    "quantised": ("#7A3E9D", "h"),
    "trimmed": ("#A0522D", ">"),
    "truncated": ("#E377C2", "d"),
    "hashing": ("#666666", "p"),
    "quotient_remainder": ("#17A2B8", "H"),
    "mean": ("#B0B0B0", "1"),
    "hash_only": ("#808080", "2"),
}
OTHERS = [("#009E73", "v"), ("#56B4E9", "P"), ("#8C7A00", "<"), ("#666666", ">")]
MOST_LABELS = 12  # a panel with more points labels only dense and the Pareto front
STYLE: Any = {  # matplotlib types its settings by a list of literal names
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "text.parse_math": False,  # names are text, whatever dollars they hold
    "svg.hashsalt": "bench",  # the same records give the same bytes
    "figure.dpi": 120,
}


class Measure(NamedTuple):
    """A size that can be the horizontal axis."""

    key: str  # attribute of a row
    field: str  # name in records
    title: str
    unit: str


MEASURES = [
    Measure("params", "embedding_params", "embedding parameters", ""),
    Measure("bytes", "embedding_bytes", "stored bytes of the embedding", "B"),
]


class Point(NamedTuple):
    """One configuration in one panel."""

    panel: str  # a column's name
    configuration: str
    kind: str
    size: int
    mean: float
    half: float | None  # of the 95 % interval; None with one seed
    seeds: int
    unit: str
    chance: float | None
    on_front: bool


def points(section: Section, measure: Measure) -> list[Point]:
    """Return what can be plotted, panel by panel: the mean over tasks first, then task by task."""
    found = []
    for column in sorted(section.columns, key=lambda column: column is not section.mean):
        panel = []
        for row in section.rows:
            score, size = section.cells[row.config_id, column.name].score, getattr(row, measure.key)
            if score.mean is not None and size:
                shown = (column.name, row.label, row.kind, size, score.mean, score.half, score.n)
                panel.append(Point(*shown, column.unit, column.chance, False))
        sign = 1 if column.higher_is_better else -1
        front = set(pareto_front([point.size for point in panel], [sign * point.mean for point in panel]))
        found += [point._replace(on_front=index in front) for index, point in enumerate(panel)]
    return found


def as_frame(data: list[Point], measure: Measure) -> pd.DataFrame:
    """Return the points as they stand beside the figure."""
    return pd.DataFrame(data).rename(columns={"size": measure.field, "half": "ci95_half_width"})


def draw(section: Section, measure: Measure, data: list[Point]) -> Figure:
    """Return the figure of one section: a panel per task, the mean over tasks first where there is one.

    One panel is 10 x 6 inches; several stand two in a line on a wider page whose type grows with it.
    """
    columns = {column.name: column for column in section.columns}
    panels = [columns[name] for name in dict.fromkeys(point.panel for point in data)]
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    grow = 1.3 if across == 2 else 1.0
    sizes = {key: STYLE[key] * grow for key in ("font.size", "axes.titlesize")}
    with rc_context(STYLE | sizes):
        engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(14, 1.3 + 5.4 * down) if across == 2 else (10, 6), layout=engine)
        FigureCanvasAgg(figure)
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.remove()
        drawn = list(zip(grid, panels, strict=False))
        figure.suptitle(f"{section.title} on {section.suite}: score against {measure.title}", fontweight="bold")
        kinds = _styles(data)
        figure.legend(handles=_legend(kinds, data), loc="outside lower center", ncols=3 + across, frameon=False)
        waiting = [
            _panel(axes, column, [point for point in data if point.panel == column.name], measure, kinds)
            for axes, column in drawn
        ]
        engine.execute(figure)
        figure.set_layout_engine("none")
        for (axes, _), (labels, lines) in zip(drawn, waiting, strict=True):
            place_labels(axes, labels, lines)
    return figure


def _styles(data: list[Point]) -> dict[str, tuple[str, str]]:
    """Return the styles of the kinds that are drawn."""
    return kind_styles({point.kind for point in data})


def kind_styles(shown: set[str]) -> dict[str, tuple[str, str]]:
    """Return kind -> colour and marker; kinds that are not known share what is left in alphabetical order."""
    extra = {kind: OTHERS[index % len(OTHERS)] for index, kind in enumerate(sorted(shown - set(STYLES)))}
    return {kind: style for kind, style in (STYLES | extra).items() if kind in shown}


def _panel(
    axes: Axes, column: Column, data: list[Point], measure: Measure, kinds: dict[str, tuple[str, str]]
) -> tuple[list[Label], list[Segment]]:
    """Draw all but the labels; return these and the line segments that they should keep off."""
    axes.set_xscale("log")
    _limits(axes, column, data)
    _describe(axes, column, data, measure)
    dense = [point for point in data if point.kind == "dense"]
    for point in dense:
        axes.axhline(point.mean, color="black", linewidth=1.2, zorder=1)
        if point.half is not None:
            axes.axhspan(point.mean - point.half, point.mean + point.half, color="black", alpha=0.08, linewidth=0)
    levels = [point.mean for point in dense]
    if column.chance is not None:
        axes.axhline(column.chance, color="#555555", linewidth=1.4, linestyle=":", zorder=1)
        levels.append(column.chance)
    front = sorted((point.size, point.mean) for point in data if point.on_front)
    sizes, means = [size for size, _ in front], [mean for _, mean in front]
    axes.step(sizes, means, where="post", color="#009E73", linewidth=1.8, alpha=0.7, zorder=2)
    for point in data:
        colour, marker = kinds[point.kind]
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 10, "markeredgecolor": "white"}
        axes.errorbar(point.size, point.mean, point.half, linestyle="none", capsize=4, zorder=4, **style)
    labels = [Label(p.size, p.mean, p.configuration, p.on_front or p.kind == "dense") for p in data]
    if len(labels) > MOST_LABELS:
        labels = [label for label in labels if label.needed]
    low, high = axes.get_xlim()
    segments = [Segment(low, level, high, level) for level in levels]
    segments += [Segment(x, y, after, y) for x, y, after in zip(sizes, means, sizes[1:], strict=False)]
    segments += [Segment(x, y, x, up) for x, y, up in zip(sizes[1:], means, means[1:], strict=False)]
    segments += [Segment(p.size, p.mean - p.half, p.size, p.mean + p.half) for p in data if p.half is not None]
    return labels, segments


def _limits(axes: Axes, column: Column, data: list[Point]) -> None:
    """Leave room for labels; a very wide interval is cut at the panel's edge rather than flattening the points."""
    levels = [point.mean for point in data] + ([] if column.chance is None else [column.chance])
    low, high = min(levels), max(levels)
    span = max(high - low, 0.02 * column.scale)
    bottom = max(min(point.mean - (point.half or 0) for point in data), low - 0.5 * span)
    top = min(max(point.mean + (point.half or 0) for point in data), high + 0.5 * span)
    axes.set_ylim(min(bottom, low) - 0.1 * span, max(top, high) + 0.15 * span)
    first, last = _ends(data)
    room = max(last / first, 10.0)
    axes.set_xlim(first / room**0.16, last * room**0.16)


def _ends(data: list[Point]) -> tuple[int, int]:
    return min(point.size for point in data), max(point.size for point in data)


def _describe(axes: Axes, column: Column, data: list[Point], measure: Measure) -> None:
    first, last = _ends(data)
    decades = math.log10(last / first)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(unit=measure.unit))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{measure.title}{' (log scale)'}")
    where = f" on {column.split}" if column.split else ""
    axes.set_ylabel(f"{column.unit}{where}")
    low, high = min(point.seeds for point in data), max(point.seeds for point in data)
    seeds = f"{low}" if low == high else f"{low} to {high}"
    heading = [f"{column.task} · {seeds} seed{'s' * (high > 1)}"]
    heading += [f"not official: {'; '.join(column.marks)}"] if column.marks else []
    letters = int(10.5 * axes.get_window_extent().width / axes.figure.dpi)
    axes.set_title("\n".join(textwrap.fill(one_line(line), letters) for line in heading))


def _legend(kinds: dict[str, tuple[str, str]], data: list[Point]) -> list[Line2D]:
    """Return what the marks mean: kinds first, then lines; only those that are drawn."""
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=9, label=kind)
        for kind, (colour, marker) in kinds.items()
    ]
    if "dense" in kinds:
        handles.append(Line2D([], [], color="black", linewidth=1.2, label="dense level"))
    handles.append(Line2D([], [], color="#009E73", linewidth=1.8, alpha=0.7, label="Pareto front"))
    if any(point.chance is not None for point in data):
        handles.append(Line2D([], [], color="#555555", linewidth=1.4, linestyle=":", label="chance"))
    if any(point.half is not None for point in data):
        bar: dict[str, Any] = {"marker": "|", "markersize": 16, "linestyle": "none"}
        handles.append(Line2D([], [], color="#555555", label="95 % interval over seeds", **bar))
    return handles


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write the figure twice, without dates, so that equal records give equal bytes.

    The canvases are called directly because Figure.savefig draws everything once more to find a layout that is fixed.
    """
    with rc_context(STYLE):
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
