"""Draw how a subspace embedding makes a token's vector: `python docs/draw_method.py` writes docs/method.svg."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.assignment.digits import sequential
from bench.embeddings import method
from bench.report.style import STYLE, STYLES, save
from bench.settings.embeddings import DenseConfig, EmbeddingConfig, SubspaceConfig

VOCABULARY, WIDTH = 30_522, 384  # of all-MiniLM-L6-v2
WORD, TOKEN = "coffee", 4157  # in its vocabulary
SMALL = SubspaceConfig(subspaces=3, rows=32)  # drawn, with the digits of the id as codes
LARGER = SubspaceConfig(subspaces=48, rows=60)
COLOURS = [STYLES[name][0] for name in ("contextual", "pq", "low_rank")]
GREY, HEIGHT = "#555555", 0.36
LEVEL = 2.35  # of the token, its codes and its vector


def draw() -> Figure:
    """Return the drawing. Its sizes are computed by the formulas that the benchmark counts bytes with."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.3))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0, 4.3))
        axes.set_axis_off()
        codes = sequential(VOCABULARY, SMALL.subspaces or 0, SMALL.rows or 0)
        axes.text(0.8, LEVEL + 0.15, f"“{WORD}”", ha="center", fontsize=15, fontweight="bold")
        axes.text(0.8, LEVEL - 0.25, f"token {TOKEN:,}", ha="center", fontsize=11, color=GREY)
        _draw_codes(axes, codes)
        _draw_tables(axes, codes[TOKEN])
        _draw_sizes(axes)
    return figure


def _draw_codes(axes: Axes, codes: np.ndarray) -> None:
    """Draw the token's codes between those of its neighbours."""
    _head(axes, 2.9, "1  its codes", f"{SMALL.subspaces} small integers for each token")
    _arrow(axes, (1.5, LEVEL), (2.0, LEVEL))
    for line in range(-2, 3):
        for part, code in enumerate(codes[TOKEN + line]):
            x, y = 2.15 + part * 0.5, LEVEL - line * HEIGHT - HEIGHT / 2
            face, ink = (COLOURS[part], "white") if line == 0 else ("#F2F2F2", "#888888")
            axes.add_patch(Rectangle((x, y), 0.5, HEIGHT, facecolor=face, edgecolor="white", linewidth=1.5))
            axes.text(x + 0.25, LEVEL - line * HEIGHT, str(code), ha="center", va="center", color=ink)


def _draw_tables(axes: Axes, codes: np.ndarray) -> None:
    """Draw the small tables, each with the row that the code names, and these rows side by side."""
    sub_dim = WIDTH // len(codes)
    _head(
        axes, 5.75, "2  a row of each small table", f"{len(codes)} tables of {SMALL.rows} × {sub_dim} numbers"
    )
    _head(axes, 8.4, "3  its vector", f"the rows side by side, {WIDTH} numbers")
    for part, (code, colour) in enumerate(zip(codes, COLOURS, strict=True)):
        middle = LEVEL + (1 - part) * 0.85
        _arrow(axes, (3.75, LEVEL), (4.2, middle), colour)
        axes.text(4.9, middle, f"row {code}", ha="right", va="center", color=colour, fontweight="bold")
        for line in range(-2, 3):
            face, edge = (colour, colour) if line == 0 else ("#F2F2F2", "#D0D0D0")
            box = Rectangle((5.0, middle + line * 0.13 - 0.065), 1.5, 0.13, facecolor=face, edgecolor=edge)
            axes.add_patch(box)
        _arrow(axes, (6.6, middle), (7.25, LEVEL + (1 - part) * 0.1), colour)
        x = 7.35 + part * 0.7
        axes.add_patch(Rectangle((x, LEVEL - HEIGHT / 2), 0.7, HEIGHT, facecolor=colour, edgecolor="white"))


def _draw_sizes(axes: Axes) -> None:
    """Write what a file holds of the dense table, and of two sizes of small tables."""
    sizes = [
        (f"dense: {VOCABULARY:,} × {WIDTH} numbers", _megabytes(DenseConfig(), False)),
        (f"{SMALL.subspaces} tables of {SMALL.rows} rows, codes computed", _megabytes(SMALL, False)),
        (f"{LARGER.subspaces} tables of {LARGER.rows} rows, codes stored", _megabytes(LARGER, True)),
    ]
    for place, (text, size) in enumerate(sizes):
        x = 0.35 + place * 3.3
        axes.text(x, 0.5, f"{size:.2f} MB", fontsize=15, fontweight="bold")
        axes.text(x, 0.2, text, fontsize=11, color=GREY)


def _megabytes(config: EmbeddingConfig, codes_stored: bool) -> float:
    chosen = method(config.name)
    resolved = chosen.resolve(config, VOCABULARY, WIDTH)
    return chosen.size(resolved, VOCABULARY, WIDTH, codes_stored).bytes / 1e6


def _head(axes: Axes, x: float, title: str, text: str) -> None:
    axes.text(x, 4.0, title, ha="center", fontsize=13, fontweight="bold")
    axes.text(x, 3.73, text, ha="center", fontsize=11, color=GREY)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    look = {"arrowstyle": "->", "color": colour, "linewidth": 1.5}
    axes.annotate("", end, start, arrowprops=look)


if __name__ == "__main__":
    save(draw(), Path(__file__).with_name("method.svg"))
