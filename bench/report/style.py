"""What all figures share: the registry, one style, the kinds' colours and markers, the page with its foot, and how it is saved."""

import logging
import textwrap
import warnings
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.report.names import suite_name
from bench.report.tables import csv

log = logging.getLogger("bench")
# Okabe & Ito's colours, each with its marker for print in black and white. A method that is not named here gets one of OTHERS.
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
OTHERS: list[tuple[str, Any]] = [
    ("#332288", "*"),
    ("#AA4499", "8"),
    ("#117733", (4, 1, 0)),
    ("#882255", (3, 1, 0)),
]
OWN_FONT = "DejaVu Sans"  # comes with matplotlib
# For letters that it lacks, where one is installed.
EAST_ASIAN = {"Noto Sans CJK JP", "IPAexGothic", "Hiragino Sans", "Yu Gothic"}
STYLE: Any = {  # matplotlib types its settings by a list of literal names
    # All of matplotlib's own settings, so that none of a personal matplotlibrc is left; only pyplot uses a backend.
    **{key: rcParamsDefault[key] for key in rcParamsDefault if key != "backend"},
    "font.family": [OWN_FONT, *sorted({font.name for font in fontManager.ttflist} & EAST_ASIAN)],
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
FOOT = 0.3  # inches that the provenance line takes


class Chart(NamedTuple):
    """A drawn figure: its message and what is shown, and the points that it shows."""

    title: str
    data: pd.DataFrame
    figure: Figure


class Draw(Protocol):
    """Draws a section's lines of the score table; None where they hold no data for the figure."""

    def __call__(self, part: pd.DataFrame) -> Chart | None: ...


class FigureKind(NamedTuple):
    """A figure that every report draws."""

    name: str  # first part of its files' names
    draw: Draw
    of_breakdown: bool  # it shows a task's languages or categories rather than a suite's tasks


FIGURES: list[FigureKind] = []
"""All figures, in the order in which INDEX.md shows them."""


def figure(name: str, *, of_breakdown: bool = False) -> Callable[[Draw], Draw]:
    """Return a decorator that registers a function as a figure."""

    def register(draw: Draw) -> Draw:
        FIGURES.append(FigureKind(name, draw, of_breakdown))
        return draw

    return register


def write_figure(kind: FigureKind, part: pd.DataFrame, stem: Path) -> tuple[str, list[Path]]:
    """Write the figure as PNG, SVG and PDF and its points as CSV. Return its title and the files; no file where it has no data."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        chart = kind.draw(part)
        if chart is None:
            return "", []
        files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg", "pdf", "csv")]
        save(chart.figure, *files[:3])
    files[3].write_text(csv(chart.data), encoding="utf-8", newline="\n")
    missing = {text for warning in caught if "missing from font" in (text := str(warning.message))}
    for other in {str(warning.message) for warning in caught} - missing:
        log.warning("figures/%s: %s", files[0].name, other)
    if missing:
        log.warning(
            "figures/%s: %d of its letters are in no installed font and are drawn as boxes: install one that has them, for "
            "Chinese, Japanese and Korean Debian's fonts-noto-cjk.",
            files[0].name,
            len(missing),
        )
    return chart.title, files


def about(part: pd.DataFrame, what: str) -> str:
    """Return a figure's subtitle: the section, and what is shown of it."""
    return f"{part.title.iloc[0]} on {suite_name(part.suite.iloc[0])}: {what}"


def mark(style: tuple[str, Any], size: float, hollow: bool = False) -> dict[str, Any]:
    """Return matplotlib's settings of markers without a line, from a colour and a marker.

    Untreated embeddings have hollow markers, those with a recovery or a teacher full ones.
    """
    look = {"markerfacecolor": "white", "markeredgewidth": 1.7} if hollow else {"markeredgecolor": "white"}
    return {"color": style[0], "marker": style[1], "markersize": size, "linestyle": "none"} | look


def page(title: str, subtitle: str, size: tuple[float, float], foot: str) -> Figure:
    """Return an empty figure: on top the message as a title with what is shown beneath, at its foot a line about the records."""
    heads, top = [], 0.1  # inches from the page's top
    looks: list[dict[str, Any]] = [
        {"fontsize": 15, "fontweight": "bold"},
        {"fontsize": 11, "color": "#555555"},
    ]
    for text, look in zip((title[:1].upper() + title[1:], subtitle), looks, strict=True):
        lines = textwrap.wrap(text, int(size[0] * (132 if look["fontsize"] < 12 else 116) / look["fontsize"]))
        heads.append((top, "\n".join(lines), look))
        top += 0.08 + len(lines) * look["fontsize"] * 1.25 / 72
    low, high = FOOT / size[1], top / size[1]
    figure = Figure(
        figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, rect=(0, low, 1, 1 - low - high))
    )
    FigureCanvasAgg(figure)
    for start, text, look in heads:
        figure.text(0.012, 1 - start / size[1], text, va="top", linespacing=1.15, **look)
    figure.text(0.012, 0.08 / size[1], foot, fontsize=8, color="#555555", va="bottom")
    return figure


def set_title(figure: Figure, title: str) -> None:
    """Set the figure's title, in lines that fit on its page."""
    letters = int(figure.get_figwidth() * 97 / matplotlib.rcParams["font.size"])
    figure.suptitle("\n".join(textwrap.fill(line, letters) for line in title.splitlines()), fontweight="bold")


def legend(figure: Figure, handles: list[Any], columns: int) -> None:
    """Set the legend between the panels and the foot."""
    pad = 72 * FOOT / 10.5  # a legend's distances are counted in its letters' height
    look: dict[str, Any] = {"borderaxespad": pad, "ncols": columns, "frameon": False, "fontsize": 10.5}
    look |= {"columnspacing": 1.3, "handlelength": 1.6, "handletextpad": 0.6}
    figure.legend(handles=handles, loc="outside lower center", **look)


def settle(figure: Figure) -> None:
    """Compute the layout once and freeze it: what is drawn afterwards moves nothing.

    The solver's last digit differs between processes, so positions are rounded: the same records give the same bytes.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
        for axes in figure.axes:
            axes.set_position(np.round(axes.get_position().bounds, 5))


def label_ends(axes: Axes, ends: list[tuple[float, float, str]]) -> None:
    """Write each text (x, y, text) right of all lines, at its line's end, moved up off the text below and down from the top."""
    # Heights without overlap, as shares of the panel's.
    ordered = [(x, y, textwrap.fill(text, 28)) for x, y, text in sorted(ends, key=lambda end: end[1])]
    points = np.array([2 + 13 * (1 + text.count("\n")) for *_, text in ordered])  # each text's height
    steps = (points[1:] + points[:-1]) / 2 / axes.get_window_extent().height * axes.figure.dpi / 72
    places = axes.transAxes.inverted().transform(axes.transData.transform([end[:2] for end in ordered]))
    heights = places[:, 1]
    for place, step in enumerate(steps, 1):
        heights[place] = max(heights[place], heights[place - 1] + step)
    heights = np.minimum(heights, 1 - np.append(np.cumsum(steps[::-1])[::-1], 0))

    # The texts, each with a line to its end.
    for (x, y, text), height in zip(ordered, heights, strict=True):
        axes.annotate(
            text,
            (x, y),
            (places[:, 0].max() + 0.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=11,
            color="#222222",
            arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.7, "relpos": (0, 0.5)},
        )


def kind_styles(shown: set[str]) -> dict[str, tuple[str, Any]]:
    """Return kind -> colour and marker, the same for each body; kinds without a style share OTHERS in alphabetical order."""
    names = {kind.partition(",")[0] for kind in shown}
    extra = zip(sorted(names - set(STYLES)), cycle(OTHERS))
    return {
        kind: style
        for name, style in (STYLES | dict(extra)).items()
        for kind in sorted(shown)
        if kind.partition(",")[0] == name
    }


def save(figure: Figure, *paths: Path) -> None:
    """Write the figure in the format of each path (png, svg, pdf), without dates, so that equal records give equal bytes.

    The canvases are called directly because Figure.savefig draws everything once more to find a layout that is fixed.
    """
    with rc_context(STYLE):
        for path in paths:
            if path.suffix == ".png":
                FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
            elif path.suffix == ".svg":
                FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
            else:
                FigureCanvasPdf(figure).print_pdf(path, metadata={"CreationDate": None})
