"""The report's numbers as a Markdown table."""

import statistics
from collections.abc import Sequence
from typing import Any

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
    "backbone",
    "embedding",
    "batch",
    "side",
    "training, examples/s",
    "min – max",
    "× Trainer",
    "× Trainer tuned",
    "evaluation, examples/s",
    "matrix rate",
    "peak memory",
    "start",
)


def median(values: list[float]) -> float | None:
    """Return the median, None of nothing."""
    return statistics.median(values) if values else None


def label(row: dict[str, Any]) -> str:
    """Return the side's name for people."""
    name = LABELS[row["side"]] + (f", {row['runs']} side by side" if row["runs"] > 1 else "")
    return f"{name}, fell back" if row["fallback"] else name


def ratio(row: dict[str, Any], rows: list[dict[str, Any]], side: str) -> float | None:
    """Return the row's training throughput over that of `side` on the dense model of the same backbone and batch size."""
    for other in rows:
        if (other["side"], other["embedding"], other["backbone"], other["batch_size"]) == (
            side,
            "dense",
            row["backbone"],
            row["batch_size"],
        ):
            mine, theirs = median(row["examples_per_second"]), median(other["examples_per_second"])
            return mine / theirs if mine and theirs else None
    return None


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown: what was measured where, how each side is set, and a table of the rows."""
    facts, rate, start = report["provenance"], report["matrix_flops_per_second"], report["startup"]
    packages = ", ".join(
        f"{name} {facts['packages'][name]}" for name in ("torch", "transformers") if name in facts["packages"]
    )
    lines = [
        "# Training speed",
        "",
        f"Device: {facts['device']} ({facts['threads']} CPU threads). Python {facts['python']}, {packages}, CUDA {facts['cuda'] or 'none'}. "
        f"Commit {facts['commit']}{' with changes' if facts['dirty'] else ''}.",
        "",
        f"Data: {report['data']}. Medians of {report['settings']['repeats']} repeats of about {report['settings']['examples']} rows, the sides by "
        "turns; ratios are to the Trainer on the dense model with the same batch size."
        + ("" if report["complete"] else " **The measurement was cut off: rows are missing.**"),
        "",
    ]
    lines += [f"- {how}" for how in report["sides"].values()]
    if rate:
        lines += [
            "",
            f'A large bf16 matrix product ran at {rate / 1e12:.0f} TFLOP/s; "matrix rate" is the share of it that a side\'s training '
            "reaches, counted on real tokens.",
        ]
    if start and start["error"]:
        lines += ["", f"The start could not be measured: {start['error']}"]
    elif start:
        lines += [
            "",
            f"From process start to first step: {start['first_step_seconds']:.1f} s with everything cached, Python's bytecode too; "
            f"from one run's end to the next one's first step in a warm worker: {start['next_run_seconds']:.1f} s (MiniLM's architecture).",
        ]
    lines += ["", *_table(COLUMNS, [_cells(row, report) for row in report["rows"]])]
    if report["layers"]:
        lines += [
            "",
            "The embedding layer alone, forward and backward on 32 x 128 random tokens, fp32 (on a GPU as a CUDA graph):",
            "",
        ]
        lines += _table(
            ("backbone", "layer", "ms", "× dense", "peak memory"), [_layer(row) for row in report["layers"]]
        )
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]


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
