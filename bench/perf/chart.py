"""The measured throughputs as bars: a panel for each kind of work, backbone and batch size."""

from pathlib import Path
from statistics import mean
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.perf.table import counterpart, label, median, ratio, work_of
from bench.report.style import STYLE, save

COLOURS = {"dense": "#666666", "subspace": "#0072B2"}
NAMES = {"dense": "dense table", "subspace": "f=3 sub-tables"}
PEERS = ("trainer_best", "trainer")  # the stronger one first
OF_PRETRAINING = ("trainer_mlm",)
WIDTH, LINE = 14.0, 36  # of the figure in inches, of a side's name in letters


def draw(report: dict[str, Any], path: Path) -> list[Path]:
    """Write the chart of a report of `bench perf` as PNG and SVG named after `path`, and return the files."""
    rows = [row for row in report["rows"] if row["examples_per_second"]]
    panels = dict[tuple[str, ...], list[dict[str, Any]]]()
    for row in rows:
        panel = (work_of(row), row["backbone"], str(row["batch_size"]))
        panels.setdefault(panel, []).append(row)
    if not panels:
        return []

    # Two panels in a line, which is as high as the fuller one's bars.
    across = min(2, len(panels))
    bars = [len(shown) for shown in panels.values()]
    heights = [max(bars[at : at + across]) + 2.5 for at in range(0, len(bars), across)]
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.36 * sum(heights)), layout="constrained")
        figure.suptitle(
            f"Rows a second on {report['provenance']['device']}, random weights, synthetic rows\n"
            "×: times transformers' Trainer on the dense model, at its best / as documented"
        )
        grid = list(figure.subplots(len(heights), across, squeeze=False, height_ratios=heights).flat)
        for axes, (work, backbone, batch_size) in zip(grid, panels, strict=False):
            axes.set_title(f"{work}, {backbone}" + f", batch {batch_size}" * (work != "evaluation"))
            _bars(axes, panels[work, backbone, batch_size], rows)
        for axes in grid[len(panels) :]:
            axes.remove()
        drawn = [kind for kind in COLOURS if any(row["embedding"] == kind for row in rows)]
        handles = [Patch(color=COLOURS[kind], label=NAMES[kind]) for kind in drawn]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    save(figure, *files)
    return files


def _bars(axes: Axes, shown: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Draw a bar for each row, those of a side together, with the spread of its repeats and its ratios to the Trainer."""
    # Bars from a row's median, with whiskers from its slowest repeat to its fastest.
    sides = list(dict.fromkeys(row["side"] for row in shown))
    shown = sorted(shown, key=lambda row: sides.index(row["side"]))
    speeds = [row["examples_per_second"] for row in shown]
    values, fastest = [median(repeats) or 0.0 for repeats in speeds], list(map(max, speeds))
    spread = np.abs([np.subtract(values, list(map(min, speeds))), np.subtract(fastest, values)])
    colours = [COLOURS[row["embedding"]] for row in shown]
    axes.barh(range(len(shown)), values, xerr=spread, color=colours, ecolor="#bbbbbb")
    axes.invert_yaxis()
    axes.set_xlim(0, 2.1 * max(fastest))  # room for the numbers beside the longest bar
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter("{x:,.0f}")

    # A side's name, in the middle of its bars.
    places = {side: [n for n, row in enumerate(shown) if row["side"] == side] for side in sides}
    names = {row["side"]: fill(f"{label(row)} ({row['dtype']})", LINE) for row in shown}
    axes.set_yticks([mean(at) for at in places.values()], [names[side] for side in places])

    # The numbers behind each bar.
    for place, (value, end, row) in enumerate(zip(values, fastest, shown, strict=True)):
        peers = OF_PRETRAINING if work_of(row) == "pretraining" else PEERS
        times = [ratio(row, counterpart(row, rows, peer)) for peer in peers]
        words = " / ".join(f"{number:.1f}×" if number else "–" for number in times)
        text = f"{value:,.0f}" + (f" ({words})" if any(times) else "")
        axes.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", va="center")
