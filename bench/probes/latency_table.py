"""A measurement of `bench latency` as a JSON file and a page with two tables."""

import json
from pathlib import Path
from typing import Any

from bench import store
from bench.report.latency import SHOWN, ratio, sizes
from bench.report.names import embeddings_digest, short_label
from bench.store import LatencyPart
from bench.text import escape, markdown_table, slug

HOW_TO_READ = (
    "Latency: one model, of which only the embedding is exchanged, on uniformly drawn token ids. Median and 95th percentile over rounds; "
    "in a round every embedding answers once, in random order. The ratio is the median of the ratios to dense within a round, with a "
    "95 % interval. Cold start: from the start of a fresh process to its first answer (16 tokens), with imports, and with the files in the "
    "page cache; loading is the part after the imports. Memory: on a CPU resident in that process once all weights have been read, on a "
    "GPU allocated by torch; before: without any model; peak: after the largest batch. Times of a shared machine are noisy: compare "
    "within one file only.\n"
)
LATENCY = [
    "tokens",
    "batch",
    "embedding",
    "rounds",
    "p50 (ms)",
    "p95 (ms)",
    "rows a second",
    "ratio to dense",
]


def write_cost(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write the report of `bench.probes.latency` to <model>--<device>--<digest>.json and .md; return the files.

    The digest is that of the embeddings, so measurements of another sweep are not overwritten.
    """
    name = f"{report['model']}-random" if report["weights"] == "random" else report["model"]
    stem = folder / slug(name, report["device"], embeddings_digest(row["config"] for row in report["rows"]))
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".json", ".md")]
    store.write_atomically(paths[0], json.dumps(report, indent=1, allow_nan=False) + "\n")
    store.write_atomically(paths[1], as_markdown(report))
    return paths


def as_markdown(report: dict[str, Any]) -> str:
    """Return the measurement as a page with two tables."""
    facts, rows = report["provenance"], report["rows"]
    labels = [escape(short_label(row["config"] | {"recovery": None}, None)) for row in rows]
    measured = [
        [label, f"{row['embedding_bytes']:,}", *sizes(row["profile"])]
        for label, row in zip(labels, rows, strict=True)
    ]
    cells = zip(*(row["profile"]["latency"] for row in rows), strict=True)
    lines = [
        [str(cell["tokens"]), str(cell["batch"]), label, *_times(cell)]
        for same_shape in cells
        for label, cell in zip(labels, same_shape, strict=True)
    ]
    packages = ", ".join(f"{name} {facts['packages'][name]}" for name in ("torch", "transformers"))
    where = f"{facts['device']}, {facts['platform']}, {facts['threads']} threads, Python {facts['python']}, {packages}"
    weights = "" if report["weights"] == "pretrained" else f" ({report['weights']} weights)"
    head = ["embedding", "embedding bytes", *SHOWN]
    return (
        f"# Cost of {report['model']}{weights} in use\n\n{escape(where)}; {rows[0]['profile']['dtype']}; commit {facts['commit']}.\n\n"
        f"{HOW_TO_READ}\n{markdown_table(head, measured, len(head) - 1)}\n{markdown_table(LATENCY, lines, 5)}"
    )


def _times(cell: LatencyPart) -> list[str]:
    speed = f"{cell['rows_per_second']:.1f}"
    return [str(cell["rounds"]), f"{cell['p50_ms']:.2f}", f"{cell['p95_ms']:.2f}", speed, ratio(cell)]
