"""The report's numbers as a Markdown table."""

import statistics
from pathlib import Path
from typing import Any

import jinja2

from bench.text import markdown_table

LABELS = {
    "trainer": "Trainer, as documented",
    "trainer_tuned": "Trainer, tuned",
    "eager": "ours, eager",
    "graph": "ours, CUDA graphs",
    "compile": "ours, compiled and CUDA graphs",
    "together": "ours, CUDA graphs",
    "compile_together": "ours, compiled and CUDA graphs",
}
COLUMNS = (
    *(
        "backbone",
        "embedding",
        "batch",
        "side",
        "training, examples/s",
        "min – max",
        "× Trainer",
        "× Trainer tuned",
    ),
    *("evaluation, examples/s", "matrix rate", "peak memory", "start"),
)


LAYER_COLUMNS = ("backbone", "layer", "ms", "× dense", "peak memory")


def median(values: list[float]) -> float | None:
    """Return the median, or None without values."""
    return statistics.median(values) if values else None


def label(row: dict[str, Any]) -> str:
    """Return the side's name for people."""
    name = LABELS[row["side"]] + (f", {row['runs']} side by side" if row["runs"] > 1 else "")
    return f"{name}, fell back" if row["fallback"] else name


def ratio(row: dict[str, Any], rows: list[dict[str, Any]], side: str) -> float | None:
    """Return the row's training throughput over that of `side` on the dense model of the same backbone and batch size."""
    reference = (side, "dense", row["backbone"], row["batch_size"])
    for other in rows:
        if (other["side"], other["embedding"], other["backbone"], other["batch_size"]) == reference:
            ours, theirs = median(row["examples_per_second"]), median(other["examples_per_second"])
            return ours / theirs if ours and theirs else None
    return None


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown: what was measured where, each side's settings, and a table of the rows."""
    context = {
        **report,
        "packages": ", ".join(
            f"{name} {version}"
            for name, version in report["provenance"]["packages"].items()
            if name in ("torch", "transformers")
        ),
        "table": markdown_table(COLUMNS, [_cells(row, report) for row in report["rows"]]),
        "layers": markdown_table(LAYER_COLUMNS, [_layer(row) for row in report["layers"]])
        if report["layers"]
        else "",
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("table.md.j2").render(context).rstrip("\n") + "\n"


def _layer(row: dict[str, Any]) -> list[str]:
    peak, time, ratio = row["peak_memory_bytes"], median(row["milliseconds"]), row["ratio"]
    return [
        row["backbone"],
        row["embedding"],
        row["error"] or f"{time:.3f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if peak is None else f"{peak / 2**20:.1f} MiB",
    ]


def _cells(row: dict[str, Any], report: dict[str, Any]) -> list[str]:
    speeds, rate = row["examples_per_second"], report["matrix_flops_per_second"]
    evaluation, peak, start = (
        median(row["eval_examples_per_second"]),
        row["peak_memory_bytes"],
        row["start_seconds"],
    )
    ratios = [ratio(row, report["rows"], side) for side in ("trainer", "trainer_tuned")]
    return [
        row["backbone"],
        row["embedding"],
        str(row["batch_size"]),
        f"{label(row)} ({row['dtype']})",
        row["error"] or (f"{median(speeds):,.0f}" if speeds else ""),
        f"{min(speeds):,.0f} – {max(speeds):,.0f}" if speeds else "",
        *["" if value is None else f"{value:.1f}" for value in ratios],
        "" if evaluation is None else f"{evaluation:,.0f}",
        f"{row['matrix_flops_per_second'] / rate:.1%}" if rate and speeds and row["dtype"] == "bf16" else "",
        "" if peak is None else f"{peak / 2**30:.1f} GiB",
        "" if start is None else f"{start:.1f} s",
    ]
