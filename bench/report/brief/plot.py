"""The geometry of the brief's chart: scores against stored bytes, on a logarithmic axis."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bench.report.brief.text import UNITS

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 56  # margins
BOX = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "top": TOP,
    "bottom": HEIGHT - BOTTOM,
}


class Tick(NamedTuple):
    """A place on an axis and its text."""

    at: float
    text: str


def x_places(sizes: Sequence[int]) -> tuple[list[float], list[Tick]]:
    """Return where each size lies and the axis's ticks."""
    low, high = math.log10(min(sizes)), math.log10(max(sizes))
    pad = max(0.06 * (high - low), 0.1)
    low, high = low - pad, high + pad

    def place(value: float) -> float:
        return round(LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    steps = (1,) if high - low > 2 else (1, 2, 5)
    values = [step * 10**power for power in range(math.floor(low), math.ceil(high)) for step in steps]
    return [place(size) for size in sizes], [
        Tick(place(value), _tick_text(value)) for value in values if low <= math.log10(value) <= high
    ]


def _tick_text(value: float) -> str:
    unit, factor = next((pair for pair in UNITS if value >= pair[1]), UNITS[-1])
    return f"{value / factor:g}\u00a0{unit}"


def y_domain(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the vertical axis: the values with a tenth to spare on either side."""
    low, high = min(values), max(values)
    pad = max(0.1 * (high - low), 0.5)
    return low - pad, high + pad


def y_place(value: float, domain: tuple[float, float]) -> float:
    """Return where a score lies."""
    low, high = domain
    return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def y_ticks(domain: tuple[float, float]) -> list[Tick]:
    """Return four to eight ticks at round numbers."""
    low, high = domain
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [
        Tick(y_place(k * step, domain), f"{k * step:.{1 if step < 1 else 0}f}")
        for k in range(first, last + 1)
    ]


def front_path(points: Sequence[tuple[float, float]]) -> str:
    """Return the Pareto front as an SVG path: level until the next point, then up to it."""
    (x, y), *rest = points
    return f"M{x} {y}" + "".join(f"H{x}V{y}" for x, y in rest)
