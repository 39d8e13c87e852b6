"""What models cost in use, as tables: a measurement's own, and beside the scores of the report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from bench import store
from bench.report.frame import embeddings_digest, headline_runs, short_label
from bench.report.section import Section
from bench.report.tables import score_text
from bench.store import LatencyPart, ProfilePart
from bench.text import escape, markdown_table, slug

HOW_TO_READ = (
    "Latency of one model whose embedding alone is exchanged, on token ids drawn uniformly: median and 95th percentile over rounds in which "
    "every embedding answers once, in a new order each; the ratio is the median of the ratios to dense within a round, with a 95 % interval. "
    "Cold start: from the start of a fresh process to its first answer (16 tokens), imports included, files in the page cache; loading is the "
    "part after the imports. Memory on a CPU is resident in that process, on a GPU allocated by torch; before: without any model; peak: after "
    "the largest batch. Times of a shared machine are noisy: compare within one file only.\n"
)
IN_REPORT = "Measured by `bench cost`, ratios within one measurement with a 95 % interval; all cells are in the records and in `cost/`.\n"
SHOWN = [
    "embedding",
    "embedding bytes",
    "model file",
    "cold start (s)",
    "loading (s)",
    "before (MB)",
    "resident (MB)",
    "peak (MB)",
]
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
    """Write <model>--<device>--<digest>.json and .md of what `bench.probes.latency` returns; return the files.

    The digest is that of the embeddings: what was measured of another sweep stays.
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
    sizes = [
        [label, f"{row['embedding_bytes']:,}", *_sizes(row["profile"])]
        for label, row in zip(labels, rows, strict=True)
    ]
    cells = zip(*(row["profile"]["latency"] for row in rows), strict=True)
    lines = [
        [
            str(one["tokens"]),
            str(one["batch"]),
            label,
            str(one["rounds"]),
            f"{one['p50_ms']:.2f}",
            f"{one['p95_ms']:.2f}",
            f"{one['rows_per_second']:.1f}",
            ratio(one),
        ]
        for cell in cells
        for label, one in zip(labels, cell, strict=True)
    ]
    packages = ", ".join(f"{name} {facts['packages'][name]}" for name in ("torch", "transformers"))
    where = f"{facts['device']}, {facts['platform']}, {facts['threads']} threads, Python {facts['python']}, {packages}"
    title = (
        f"# Cost of {report['model']}{' (random weights)' if report['weights'] == 'random' else ''} in use"
    )
    return (
        f"{title}\n\n{escape(where)}; {rows[0]['profile']['dtype']}; commit {facts['commit']}.\n\n{HOW_TO_READ}\n"
        f"{markdown_table(SHOWN, sizes, len(SHOWN) - 1)}\n{markdown_table(LATENCY, lines, 5)}"
    )


def _sizes(one: ProfilePart) -> list[str]:
    memory = [one["before_bytes"], one["resident_bytes"], one["peak_bytes"]]
    return [
        f"{one['file_bytes']:,}",
        f"{one['cold_start_seconds']:.2f}",
        f"{one['load_seconds']:.2f}",
        *("unknown" if value is None else f"{value / 1e6:,.0f}" for value in memory),
    ]


def ratio(one: LatencyPart) -> str:
    """Return "0.98 [0.95, 1.02]", or "1" for dense itself."""
    if one["ratio_to_dense"] is None:
        return "1"
    return f"{one['ratio_to_dense']:.3f} [{one['ratio_low']:.3f}, {one['ratio_high']:.3f}]"


def side_by_side(section: Section, frame: pd.DataFrame) -> str:
    """Return a Markdown table, a line per configuration and device: score, stored bytes, latency, memory; empty where nothing was measured."""
    runs = headline_runs(section.runs(frame))
    profiles = {
        config_id: profiles
        for config_id, profiles in zip(runs.config_id, runs.profiles, strict=True)
        if profiles
    }
    scored = section.main
    lines = []
    for row in section.rows:
        score = section.cells[row.config_id, scored.name].score
        shown = escape(score_text(score, scored.scale)) if score.n else "none"
        for device, one in sorted(profiles.get(row.config_id, {}).items()):
            small, large = one["latency"][0], one["latency"][-1]
            lines.append(
                [
                    escape(row.label),
                    escape(device),
                    shown,
                    f"{row.bytes:,}",
                    *(
                        f"{cell['tokens']} × {cell['batch']}: {cell['p50_ms']:.2f} ({ratio(cell)})"
                        for cell in (small, large)
                    ),
                    f"{large['rows_per_second']:.1f}",
                    *_sizes(one),
                ]
            )
    if not lines:
        return ""
    cells = ["tokens × batch: p50 in ms (ratio to dense)", "tokens × batch: p50 in ms (ratio to dense)"]
    head = [
        "configuration",
        "device",
        f"{scored.task}: {scored.unit}",
        "stored bytes",
        *cells,
        "rows a second",
        *SHOWN[2:],
    ]
    return f"#### Cost in use: {escape(section.title)}\n\n{IN_REPORT}\n{markdown_table(head, lines, len(head) - 2)}"
