"""The report's numbers as Markdown tables."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from bench.text import markdown_table

LABELS = {
    "trainer": "Trainer, as documented",
    "trainer_tuned": "Trainer, tuned",
    "trainer_best": "Trainer, at its best",
    "trainer_mlm": "Trainer, as run_mlm.py",
    "eager": "ours, eager",
    "graph": "ours, CUDA graphs",
    "compile": "ours, compiled",
    "together": "ours, CUDA graphs",
    "compile_together": "ours, compiled",
    "compile_stored": "ours, compiled, teacher's states stored",
    "compile_stored_together": "ours, compiled, teacher's states stored",
    "predict": "ours",
}
RATIOS = {  # the strongest peer first
    "trainer_best": "× Trainer at its best",
    "trainer": "× Trainer as documented",
    "trainer_tuned": "× Trainer tuned",
}
RUN_MLM = "× Trainer as run_mlm.py"
ROW = 128  # tokens of a row of a pretraining
SPEED = ("examples/s", "min – max")
COLUMNS = {
    "training": ("backbone", "embedding", "batch", "side", *SPEED, *RATIOS.values(), "matrix rate", "peak memory", "start"),
    "distillation": ("backbone", "embedding", "batch", "side", *SPEED, "matrix rate", "peak memory", "start"),
    "evaluation": ("backbone", "side", *SPEED, "seconds for all", RATIOS["trainer_best"], "matrix rate", "peak memory"),
    "pretraining": ("backbone", "embedding", "batch", "side", "tokens/s", RUN_MLM, "matrix rate", "peak memory", "start"),
}  # fmt: skip
COMPRESSED_COLUMNS = ("backbone", "batch", "side", "× dense's examples/s", "× dense's peak memory")
LAYER_COLUMNS = ("backbone", "layer", "ms", "× dense", "peak memory")


def median(values: list[float]) -> float | None:
    """Return the median, or None without values."""
    return statistics.median(values) if values else None


def label(row: dict[str, Any]) -> str:
    """Return the side's name for people."""
    name = LABELS[row["side"]] + (f", {row['runs']} side by side" if row["runs"] > 1 else "")
    return f"{name}, fell back" if row["fallback"] else name


def work_of(row: dict[str, Any]) -> str:
    """Return what the row measures: training | distillation | evaluation | pretraining; reports used to hold training only."""
    return str(row.get("work", "training"))


def counterpart(
    row: dict[str, Any], rows: list[dict[str, Any]], side: str, embedding: str = "dense"
) -> dict[str, Any] | None:
    """Return the row of `side` with `embedding` for the same work, backbone and batch size, or None."""
    wanted = (work_of(row), side, embedding, row["backbone"], row["batch_size"])
    for other in rows:
        if (work_of(other), *(other[k] for k in ("side", "embedding", "backbone", "batch_size"))) == wanted:
            return other
    return None


def ratio(row: dict[str, Any], other: dict[str, Any] | None) -> float | None:
    """Return the row's throughput over that of the other; None where one of them has none."""
    ours, theirs = median(row["examples_per_second"]), median(other["examples_per_second"]) if other else None
    return ours / theirs if ours and theirs else None


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown: what was measured where, each side's settings, and a table for each kind of work."""
    tables = {
        work: _table(
            columns, [_cells(row, columns, report) for row in report["rows"] if work_of(row) == work]
        )
        for work, columns in COLUMNS.items()
    }
    context = {
        **report,
        "packages": ", ".join(
            f"{name} {version}"
            for name, version in report["provenance"]["packages"].items()
            if name in ("torch", "transformers")
        ),
        "tables": tables,
        **{
            name: _table(COMPRESSED_COLUMNS, _compressed(report["rows"], work))
            for name, work in (("compressed", "training"), ("compressed_pretraining", "pretraining"))
        },
        "layers": _table(LAYER_COLUMNS, [_layer(row) for row in report["layers"]]),
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("table.md.j2").render(context).rstrip("\n") + "\n"


def _table(columns: Sequence[str], lines: list[list[str]]) -> str:
    """Return the table; empty without lines."""
    return markdown_table(columns, lines) if lines else ""


def _layer(row: dict[str, Any]) -> list[str]:
    peak, time, ratio = row["peak_memory_bytes"], median(row["milliseconds"]), row["ratio"]
    return [
        row["backbone"],
        row["embedding"],
        row["error"] or f"{time:.3f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if peak is None else f"{peak / 2**20:.1f} MiB",
    ]


def _compressed(rows: list[dict[str, Any]], work: str) -> list[list[str]]:
    """Return a line for each pair of the same work with f=3 tables and dense: the ratios of speed and peak memory."""
    lines = []
    for row in rows:
        dense = counterpart(row, rows, row["side"]) if work_of(row) == work else None
        times = ratio(row, dense)
        if row["embedding"] == "dense" or dense is None or times is None:
            continue
        ours, theirs = row["peak_memory_bytes"], dense["peak_memory_bytes"]
        memory = f"{ours / theirs:.2f}" if ours and theirs else ""
        lines.append([row["backbone"], str(row["batch_size"]), label(row), f"{times:.2f}", memory])
    return lines


def _cells(row: dict[str, Any], columns: tuple[str, ...], report: dict[str, Any]) -> list[str]:
    """Return the row's text for each column."""
    speeds, card = row["examples_per_second"], report["matrix_flops_per_second"]
    peak, start, rate = row["peak_memory_bytes"], row["start_seconds"], row["matrix_flops_per_second"]
    peers = {**RATIOS, "trainer_mlm": RUN_MLM}
    times = {name: ratio(row, counterpart(row, report["rows"], side)) for side, name in peers.items()}
    texts = {
        "backbone": row["backbone"],
        "embedding": row["embedding"],
        "batch": str(row["batch_size"]),
        "side": f"{label(row)} ({row['dtype']})",
        "examples/s": row["error"] or (f"{median(speeds):,.0f}" if speeds else ""),
        "tokens/s": row["error"] or (f"{ROW * statistics.median(speeds):,.0f}" if speeds else ""),
        "min – max": f"{min(speeds):,.0f} – {max(speeds):,.0f}" if speeds else "",
        "seconds for all": f"{row['rows'] / statistics.median(speeds):.1f} s" if speeds else "",
        **{name: "" if value is None else f"{value:.1f}" for name, value in times.items()},
        "matrix rate": f"{rate / card:.1%}" if card and rate and row["dtype"] == "bf16" else "",
        "peak memory": "" if peak is None else f"{peak / 2**30:.1f} GiB",
        "start": "" if start is None else f"{start:.1f} s",
    }
    return [texts[column] for column in columns]
