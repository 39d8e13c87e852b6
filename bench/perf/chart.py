"""The measured training throughputs as bars: a panel for each backbone and batch size."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.perf.table import label, median, ratio
from bench.report.style import STYLE, save

COLOURS = {"dense": "#000000", "subspace": "#0072B2"}


def draw(report: dict[str, Any], path: Path) -> list[Path]:
    """Write the chart of a report of `bench perf` as PNG and SVG named after `path`, and return the files."""
    rows = [row for row in report["rows"] if row["examples_per_second"]]
    panels = list(dict.fromkeys((row["backbone"], row["batch_size"]) for row in rows))
    if not panels:
        return []
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    with rc_context(STYLE):
        figure = Figure(figsize=(11 * across, 1 + 4.2 * down), layout="constrained")
        title = f"Training throughput on {report['provenance']['device']}, examples/s"
        figure.suptitle(f"{title}\n(random weights, synthetic rows as long as MRPC's)")
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes, panel in zip(grid, panels, strict=False):
            axes.set_title(f"{panel[0]}, batch {panel[1]}")
            _bars(axes, [row for row in rows if (row["backbone"], row["batch_size"]) == panel], rows)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    save(figure, *files)
    return files


def _bars(axes: Axes, shown: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Draw a bar for each row, the first on top, with the spread of its repeats and its ratio to the Trainer as documented."""
    # Bars from a row's median, with whiskers from its slowest repeat to its fastest.
    speeds = [row["examples_per_second"] for row in shown]
    values, fastest = [median(repeats) or 0.0 for repeats in speeds], list(map(max, speeds))
    spread = np.abs([np.subtract(values, list(map(min, speeds))), np.subtract(fastest, values)])
    colours = [COLOURS[row["embedding"]] for row in shown]
    axes.barh(range(len(shown)), values, xerr=spread, color=colours, ecolor="#999999")
    names = [f"{label(row)}, {row['embedding']} ({row['dtype']})" for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(fastest))

    # The number behind each bar.
    for place, (value, end, row) in enumerate(zip(values, fastest, shown, strict=True)):
        times = ratio(row, rows, "trainer")
        text = f"{value:,.0f}" + (f" ({times:.1f}×)" if times else "")
        axes.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", va="center")
