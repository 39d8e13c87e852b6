"""Fits before training as a table and a chart: error and kept neighbours against stored bytes."""

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

FLOORS = {"mean": "--", "hash_only": ":"}  # drawn as levels: they store next to nothing


def write_fit(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write <model>--<digest>.csv, .md, .png and .svg of the rows that `bench.probes.fit.fits` returns; return the files.

    The digest is that of the embeddings: the fits of another sweep stay.
    """
    frame = as_frame(rows)
    stem = folder / slug(rows[0]["model"], embeddings_digest(row["config"] for row in rows))
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".csv", ".md", ".png", ".svg")]
    store.write_atomically(paths[0], frame.to_csv(index=False))
    shown = frame.drop(columns=["kind", *(f"decile_{i}" for i in range(2, DECILES))])
    cells = [
        [escape(_cell(str(name), value)) for name, value in line.items()] for line in shown.to_dict("records")
    ]
    store.write_atomically(
        paths[1], markdown_table(list(shown.columns), cells, numeric=len(shown.columns) - 1)
    )
    save(draw(frame, rows[0]["model"]), paths[2], paths[3])
    return paths


def as_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one line an embedding, smallest first; decile_1 is the error of the most frequent tenth of the tokens."""
    lines = []
    for row in rows:
        facts = {key: value for key, value in row.items() if key not in ("model", "config", "decile_errors")}
        tenths = {f"decile_{i}": error for i, error in enumerate(row["decile_errors"], 1)}
        lines.append(
            {
                "embedding": short_label(row["config"] | {"recovery": None}, None),
                "kind": kind(row["config"]),
                **facts,
                **tenths,
            }
        )
    return pd.DataFrame(lines).sort_values(["embedding_bytes", "embedding"], ignore_index=True)


def _cell(name: str, value: Any) -> str:
    if name == "byte_share":
        return f"{value:.3%}"
    return (
        f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def draw(frame: pd.DataFrame, model: str) -> Figure:
    """Return the figure: a panel a measure, a line a kind of embedding."""
    with rc_context(STYLE):
        figure = Figure(figsize=(15, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        set_title(figure, f"{model}: fit to the pretrained table before any training")
        styles = kind_styles(set(frame.kind) - {"dense"})
        for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            for one, (colour, marker) in styles.items():
                line = frame[frame.kind == one]
                if one in FLOORS:
                    axes.axhline(
                        line[name].iloc[0],
                        color=colour,
                        linestyle=FLOORS[one],
                        linewidth=1.2,
                        label=f"{one} (floor)",
                    )
                    continue
                axes.plot(
                    line.embedding_bytes,
                    line[name],
                    color=colour,
                    marker=marker,
                    markersize=8,
                    linewidth=1.2,
                    label=one,
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("stored bytes of the embedding (log scale)")
            axes.set_ylabel(title)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
    return figure
