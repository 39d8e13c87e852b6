"""Two stores compared: what became better or worse, run by run of the same configuration, task and seed."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.report.frame import headline_runs, rows, to_frame
from bench.report.section import Column
from bench.report.summary import sections
from bench.statistics import summarise
from bench.store import Record, write_atomically
from bench.text import escape, markdown_table

KEYS = ["model", "weights", "suite", "column", "config_id"]
VERDICTS = ("worse", "better", "same", "no common seed", "only before", "only now")
LINE = (
    "verdict",
    "difference",
    "ci95_half_width",
    "clear",
    "paired_seeds",
    "before",
    "now",
    "metric",
    "model",
    "suite",
    "task",
    "configuration",
    "seeds_before",
    "seeds_now",
    "bytes_before",
    "bytes_now",
    "latency_ms_before",
    "latency_ms_now",
)
HEAD = "Mean now minus mean before, over the seeds that both stores have; clear: the 95 % interval does not hold 0.\n"


def against(before: list[Record], now: list[Record]) -> pd.DataFrame:
    """Return one line per model, task and configuration with its scores in both stores, worst changes first.

    Raises ConfigError where the stores' scores come from different versions of a task, metric or record.
    """
    frame = to_frame([*before, *now])
    columns: dict[tuple[Any, ...], Column] = {
        (part.model, part.weights, part.suite, column.name): column
        for part in sections(frame, 0)
        for column in part.columns
    }
    old = frame.position < len(before)
    runs = pd.concat(
        [headline_runs(frame[old]).assign(store="before"), headline_runs(frame[~old]).assign(store="now")]
    )
    scored = runs.dropna(subset=["value"])
    lines = [_line(part, columns[key[:4]]) for key, part in scored.groupby(KEYS, sort=True)]
    found = pd.DataFrame(lines, columns=list(LINE))
    rank = found.verdict.map({verdict: place for place, verdict in enumerate(VERDICTS)})
    size = found.difference.astype(float).abs().fillna(0)
    return (
        found.assign(rank=rank, size=-size)
        .sort_values(["rank", "size", "model", "suite", "task", "configuration"], ignore_index=True)
        .drop(columns=["rank", "size"])
    )


def write_against(before: list[Record], now: list[Record], results_dir: Path) -> list[str]:
    """Write tables/against.csv and .md and return what to print; raises BenchError where a store has no records."""
    for name, records in (("the folder of --against", before), (str(results_dir), now)):
        if not records:
            raise BenchError(f"No records in {name}: nothing can be compared.")
    lines = against(before, now)
    write_atomically(results_dir / "tables" / "against.csv", lines.to_csv(index=False, lineterminator="\n"))
    write_atomically(results_dir / "tables" / "against.md", markdown(lines))
    return summary(lines)


def _line(runs: pd.DataFrame, column: Column) -> dict[str, Any]:
    first = runs.iloc[0]
    values = (
        runs.pivot(index="seed", columns="store", values="value").reindex(columns=["before", "now"])
        * column.scale
    )
    pairs = values.dropna()
    change = summarise(list(pairs.now - pairs.before))
    certain = "" if change.half is None else "yes" if abs(change.mean or 0) > change.half else "no"
    clear = "one seed" if change.n == 1 else certain if change.mean else "no"
    seen = {
        "model": first.model,
        "suite": first.suite,
        "task": first.column,
        "configuration": first.configuration,
        "metric": column.unit,
    }
    seen |= {
        "difference": change.mean,
        "ci95_half_width": change.half,
        "paired_seeds": change.n,
        "clear": clear,
    }
    for store in ("before", "now"):
        own = runs[runs.store == store]
        seen |= {
            store: None if pairs.empty else float(pairs[store].mean()),
            f"seeds_{store}": " ".join(map(str, sorted(own.seed))),
        }
        seen |= {
            f"bytes_{store}": own.embedding_bytes.max(),
            f"latency_ms_{store}": pd.to_numeric(own.latency_batch1_ms).median(),
        }
    return seen | {"verdict": _verdict(change.mean, values, column)}


def _verdict(change: float | None, values: pd.DataFrame, column: Column) -> str:
    if change is None:
        return (
            "only now"
            if values.before.isna().all()
            else "only before"
            if values.now.isna().all()
            else "no common seed"
        )
    if math.isclose(change, 0, abs_tol=1e-9):
        return "same"
    return "better" if (change > 0) == column.higher_is_better else "worse"


def markdown(lines: pd.DataFrame) -> str:
    """Return the comparison as a page of Markdown."""
    body = [
        [
            escape(line.model),
            escape(line.task),
            escape(line.configuration),
            escape(line.metric),
            line.verdict,
            _change(line),
            line.clear,
            str(line.paired_seeds),
            f"{_number(line.before)} → {_number(line.now)}",
        ]
        for line in rows(lines)
    ]
    return f"# Compared with another store\n\n{HEAD}\n" + markdown_table(
        [
            "model",
            "task",
            "configuration",
            "metric",
            "verdict",
            "difference",
            "clear",
            "paired seeds",
            "before → now",
        ],
        body,
        4,
    )


def summary(lines: pd.DataFrame) -> list[str]:
    """Return a line for everything that is not the same with the same seeds, and the counts."""
    changed = lines[(lines.verdict != "same") | (lines.seeds_before != lines.seeds_now)]
    said = [
        f"{line.verdict:14} {_change(line):>14}  {line.model} {line.task} {line.configuration} (seeds before: {line.seeds_before or 'none'}, "
        f"now: {line.seeds_now or 'none'}{line.clear and f', clear: {line.clear}'})"
        for line in rows(changed)
    ]
    counts = lines.verdict.value_counts()
    return [*said, " | ".join(f"{verdict} {counts.get(verdict, 0)}" for verdict in VERDICTS)]


def _change(line: Any) -> str:
    return (
        ""
        if pd.isna(line.difference)
        else f"{line.difference:+.2f}"
        + ("" if pd.isna(line.ci95_half_width) else f" ± {line.ci95_half_width:.2f}")
    )


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.2f}"
