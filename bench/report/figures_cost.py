"""Time and memory in use beside the dense model's."""

import math

import pandas as pd
from matplotlib import rc_context

from bench.report.message import message, point_name
from bench.report.scores import FLOORS
from bench.report.style import STYLE, Chart, about, figure, page, settle
from bench.text import size_text

MOST_BARS = 6  # configurations


@figure("costs")
def costs(part: pd.DataFrame) -> Chart | None:
    """Return time and memory in use as shares of the dense model's, from zero; None where nothing but dense was measured."""
    first = part.iloc[0]
    if pd.isna(first.tokens):
        return None
    shape = {size: f"{first[f'batch.{size}']} × {first.tokens:.0f} tokens" for size in ("small", "large")}
    fields = {
        **{f"latency_ms.{size}": f"time for {text}" for size, text in shape.items()},
        "memory_bytes": "peak memory in use",
        "size.total_bytes": "stored model",
    }
    lines = part[part.main & (part.body == "fp32")].drop_duplicates("config_id")
    lines = lines.dropna(subset=["latency_ms.small", "memory_bytes"])
    dense = lines[lines.kind == "dense"].head(1)
    others = lines[(lines.kind != "dense") & ~lines.kind.isin(FLOORS)]
    # With and without recovery an embedding is one measurement.
    others = others.drop_duplicates(list(fields)).iloc[:: max(1, math.ceil(len(others) / MOST_BARS))]
    if dense.empty or others.empty:
        return None
    shares = 100 * others[list(fields)].astype(float).div(dense[list(fields)].astype(float).iloc[0])
    said = message(part)
    spoken = [place for place, name in enumerate(others.config_id) if said and name == said.config_id]
    place = spoken[0] if spoken else len(others) - 1
    time, memory = shares.iloc[place]["latency_ms.small"], shares.iloc[place]["memory_bytes"]
    name = point_name(others.iloc[place].to_dict())
    title = (
        f"{name}: {time:.0f} % of dense's time for an answer, {memory:.0f} % of its {fields['memory_bytes']}"
    )
    subtitle = about(part, f"shares of dense on {first.machine}")
    with rc_context(STYLE):
        figure = page(title, subtitle, (11, 2.2 + 0.5 * len(others)), part.provenance.iloc[0])
        grid = figure.subplots(1, len(fields), sharex=True, sharey=True)
        for axes, (field, head) in zip(grid, fields.items(), strict=True):
            axes.axvline(100, color="black", linewidth=1.2, zorder=1)
            axes.barh(range(len(others)), shares[field], color="#0072B2", height=0.5, zorder=2)
            for place, value in enumerate(others[field].astype(float)):
                inside = shares[field].iloc[place] > 40
                start, colour = (3, "white") if inside else (shares[field].iloc[place] + 3, "black")
                axes.text(start, place, _text(field, value), color=colour, va="center", fontsize=10)
            axes.set_title(f"{head}\ndense: {_text(field, dense[field].astype(float).iloc[0])}", fontsize=11)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel("% of dense", fontsize=11)
        names = [point_name(row) for row in others.to_dict("records")]
        grid[0].set_yticks(range(len(others)), names)
        grid[0].invert_yaxis()
        grid[0].set_xlim(0, max(115.0, 1.05 * float(shares.to_numpy().max())))
        settle(figure)
    data = pd.concat([dense, others])[["configuration", "kind", "plain", *fields]]
    return Chart(f"{title} · {subtitle}", data, figure)


def _text(field: str, value: float) -> str:
    return size_text(value) if "bytes" in field else f"{value:.2f} ms"
