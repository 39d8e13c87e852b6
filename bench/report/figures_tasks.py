"""What each task loses against the stored bytes, side by side on the same axes."""

import math
import textwrap

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from bench.report.figures import BYTES, legend_entries, panel, points_of, ring_mark, size_axes
from bench.report.message import Message, message
from bench.report.runs import rows
from bench.report.style import STYLE, Chart, about, figure, legend, page, settle
from bench.text import minus

REACH = (-30.0, 10.0)  # points: what loses or gains more is an arrow head at the edge


@figure("tasks-bytes")
def tasks(part: pd.DataFrame) -> Chart | None:
    """Return what each task loses against the stored bytes, on the same axes for all; None below two tasks in points."""
    lines = part[~part.is_mean & (part.scale == 100) & part.difference_to_dense.notna()]
    lines = lines.assign(sign=lines.higher_is_better.map({True: 1.0, False: -1.0}))
    for key in ("difference_to_dense", "difference_ci95_low", "difference_ci95_high"):
        lines[key] = lines[key] * lines.sign
    panels = [points_of(shown, BYTES) for _, shown in lines.groupby("column", sort=False)]
    if len(panels) < 2:
        return None
    said, across = message(part), min(len(panels), 4)
    down = math.ceil(len(panels) / across)
    everything = pd.concat(panels)
    title, subtitle = (
        _worst(lines, said),
        about(part, "difference to dense in points, the same axes for all tasks"),
    )
    with rc_context(STYLE):
        handles = legend_entries(everything, ring=said is not None)
        size = (max(9, 3.1 * across + 0.8), 1.6 + 2.7 * down + 0.3 * math.ceil(len(handles) / (across + 1)))
        figure = page(title, subtitle, size, part.provenance.iloc[0])
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        legend(figure, handles, across + 1)
        reach = [everything.difference_to_dense.min(), everything.difference_to_dense.max()]
        low, high = max(reach[0], REACH[0]), min(max(reach[1], 0.0), REACH[1])
        grid[0, 0].set_ylim(low - 0.08 * (high - low) - 0.5, high + 0.08 * (high - low) + 0.5)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, data in zip(grid.flat, panels, strict=False):
            _task_panel(axes, data, everything, part, said)
        for axes in grid.flat[max(0, len(panels) - across) : len(panels)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("MB (log scale)")
        for axes in grid[:, 0]:
            axes.set_ylabel("points")
        settle(figure)
    columns = ["column", "configuration", "kind", "plain", BYTES.field, "difference_to_dense"]
    columns += [
        "difference_ci95_low",
        "difference_ci95_high",
        "difference_ci95_is",
        "paired_seeds",
        "majority",
    ]
    return Chart(f"{title} · {subtitle}", pd.concat(panels)[columns], figure)


def _task_panel(
    axes: Axes, data: pd.DataFrame, everything: pd.DataFrame, part: pd.DataFrame, said: Message | None
) -> None:
    """Draw a task's differences, with the level of the majority answer beneath dense's, and a ring at the message's configuration."""
    column = data.iloc[0]
    dense = part[(part.column == column.column) & (part.kind == "dense")]["mean"].max()
    data = data.assign(majority=column.majority - dense)
    size_axes(axes, everything, BYTES, above=False)
    panel(axes, data, "difference_to_dense", ("difference_ci95_low", "difference_ci95_high"), front=False)
    axes.axhline(0, color="black", linewidth=1.2, zorder=1)
    if said:
        for point in rows(data[data.config_id == said.config_id]):
            axes.plot(point.x, point.difference_to_dense, **ring_mark())
    marks = f"\nnot official: {column.not_official}" if column.not_official else ""
    axes.set_title(
        "\n".join(textwrap.wrap(f"{column.task} (dense {dense:.1f})", 30) + textwrap.wrap(marks.strip(), 40)),
        fontsize=11,
    )
    axes.set_xlabel("")


def _worst(lines: pd.DataFrame, said: Message | None) -> str:
    """Return which task loses most with the configuration of the message."""
    mine = lines[lines.config_id == (said.config_id if said else None)].dropna(subset=["difference_to_dense"])
    if said is None or mine.empty:
        return "What each task loses"
    worst = mine.sort_values("difference_to_dense", kind="stable").iloc[0]
    ends = [-worst.difference_ci95_high, -worst.difference_ci95_low]
    interval = "" if pd.isna(ends[0]) else f" (95 % interval {minus(ends[0])} to {minus(ends[1])})"
    lost = minus(-worst.difference_to_dense)
    return f"{said.name}: of {len(mine)} tasks {worst.task} loses most, {lost} points{interval}"
