"""Table and chart of fits before training: error and preserved neighbours against stored bytes."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from bench import store
from bench.embeddings.table_error import DECILES
from bench.report.names import embeddings_digest, kind, short_label
from bench.report.style import STYLE, kind_styles, save, set_title
from bench.text import escape, markdown_table, slug

PANELS = {
    "relative_error": "relative error",
    "weighted_error": "relative error, tokens by frequency",
    "neighbour_overlap": "nearest neighbours kept",
}

# These store next to nothing, so a horizontal line shows their level.
FLOORS = {"mean": "--", "hash_only": ":"}


def write_fit(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the rows of `bench.probes.fit.fits` to <model>--<digest>.csv, .md, .png and .svg; return the files.

    The digest is that of the embeddings, so the fits of another sweep are not overwritten.
    """
    frame = as_frame(rows)
    stem = folder / slug(rows[0]["model"], embeddings_digest(row["config"] for row in rows))
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".csv", ".md", ".png", ".svg")]
    store.write_atomically(paths[0], frame.to_csv(index=False))
    shown = frame.drop(columns=["kind", *(f"decile_{i}" for i in range(2, DECILES))])
    lines = shown.to_dict("records")
    cells = [[escape(_cell(str(name), value)) for name, value in line.items()] for line in lines]
    store.write_atomically(paths[1], markdown_table(list(shown.columns), cells, numeric=shown.shape[1] - 1))
    save(draw(frame, rows[0]["model"]), paths[2], paths[3])
    return paths


def as_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return a line for each embedding, smallest first; decile_1 is the error of the most frequent tenth of the tokens."""
    lines = []
    for row in rows:
        facts = {key: value for key, value in row.items() if key not in ("model", "config", "decile_errors")}
        tenths = {f"decile_{i}": error for i, error in enumerate(row["decile_errors"], 1)}
        label = short_label(row["config"] | {"recovery": None}, None)
        lines.append({"embedding": label, "kind": kind(row["config"]), **facts, **tenths})
    return pd.DataFrame(lines).sort_values(["embedding_bytes", "embedding"], ignore_index=True)


def _cell(name: str, value: Any) -> str:
    if name == "byte_share":
        return f"{value:.3%}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw(frame: pd.DataFrame, model: str) -> Figure:
    """Return the figure: a panel for each measure, a line for each kind of embedding."""
    with rc_context(STYLE):
        figure = Figure(figsize=(15, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        set_title(figure, f"{model}: fit to the pretrained table before any training")
        styles = kind_styles(set(frame.kind) - {"dense"})
        for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            for family, (colour, marker) in styles.items():
                line, style = frame[frame.kind == family], {"color": colour, "linewidth": 1.2}
                if family in FLOORS:
                    level = line[name].iloc[0]
                    axes.axhline(level, linestyle=FLOORS[family], label=f"{family} (floor)", **style)
                else:
                    sizes = line.embedding_bytes
                    axes.plot(sizes, line[name], marker=marker, markersize=8, label=family, **style)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("stored bytes of the embedding (log scale)")
            axes.set_ylabel(title)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
    return figure
