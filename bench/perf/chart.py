"""The measured training throughputs as bars: a panel for each backbone and batch size."""

import math
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.perf.table import label, median, ratio
from bench.report.style import STYLE, save

COLOURS = {"dense": "#000000", "subspace": "#0072B2"}


def draw(report: dict[str, Any], path: Path) -> list[Path]:
    """Write the chart of a report of `bench perf` as PNG and SVG named after `path`; return the files."""
    rows = [row for row in report["rows"] if row["examples_per_second"]]
    panels = list(dict.fromkeys((row["backbone"], row["batch_size"]) for row in rows))
    if not panels:
        return []
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    with rc_context(STYLE):
        figure = Figure(figsize=(11 * across, 1 + 4.2 * down), layout="constrained")
        device = report["provenance"]["device"]
        figure.suptitle(
            f"Training throughput on {device}, examples/s\n(random weights, synthetic rows as long as MRPC's)"
        )
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
    """Draw one bar a row, the first on top, with the spread of its repeats and its ratio to the Trainer as documented."""
    values = [median(row["examples_per_second"]) or 0.0 for row in shown]
    spread = [
        [value - min(row["examples_per_second"]) for value, row in zip(values, shown, strict=True)],
        [max(row["examples_per_second"]) - value for value, row in zip(values, shown, strict=True)],
    ]
    axes.barh(
        range(len(shown)),
        values,
        xerr=spread,
        color=[COLOURS[row["embedding"]] for row in shown],
        ecolor="#999999",
    )
    axes.set_yticks(
        range(len(shown)), [f"{label(row)}, {row['embedding']} ({row['dtype']})" for row in shown]
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(max(row["examples_per_second"]) for row in shown))
    for place, (value, row) in enumerate(zip(values, shown, strict=True)):
        times = ratio(row, rows, "trainer")
        axes.annotate(
            f"{value:,.0f}" + (f" ({times:.1f}×)" if times else ""),
            (max(row["examples_per_second"]), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
