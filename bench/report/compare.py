"""Two stores compared: which scores became better or worse, by runs of the same configuration, task and seed."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.report.runs import SECTION, headline_runs, to_frame
from bench.report.scores import score_table
from bench.statistics import summarise
from bench.store import Record, write_atomically
from bench.text import escape, markdown_table

KEYS = [*SECTION, "column", "config_id"]
VERDICTS = ("worse", "better", "same", "no common seed", "only before", "only now")
LINE = [
    *("verdict", "difference", "ci95_half_width", "clear", "paired_seeds", "before", "now", "metric"),
    *("model", "suite", "task", "configuration", "seeds_before", "seeds_now"),
    *("bytes_before", "bytes_now", "latency_ms_before", "latency_ms_now"),
]
HEAD = "Mean now minus mean before, over the seeds that both stores have. Clear: the 95 % interval does not hold 0.\n"


def compare(before: list[Record], now: list[Record]) -> pd.DataFrame:
    """Return a line for each model, task and configuration with its scores in both stores, worst changes first.

    Raises ConfigError where the stores' scores come from different versions of a task, metric or record.
    """
    # Both stores' runs, with the facts about their scores.
    frame = to_frame([*before, *now])
    facts = score_table(frame, 0)[[*KEYS, "scale", "metric", "higher_is_better"]]
    frame["store"] = ["before" if position < len(before) else "now" for position in frame.position]
    runs = pd.concat([headline_runs(part) for _, part in frame.groupby("store")])
    scored = runs.dropna(subset=["headline.value"]).merge(facts, on=KEYS)

    # The comparison: verdicts in their order, and of each the largest changes first.
    lines = pd.DataFrame([_line(part) for _, part in scored.groupby(KEYS, sort=True)], columns=LINE)
    rank = lines.verdict.map(VERDICTS.index)
    size = -lines.difference.astype(float).abs().fillna(0)
    order = ["rank", "size", "model", "suite", "task", "configuration"]
    return lines.assign(rank=rank, size=size).sort_values(order, ignore_index=True)[LINE]


def write_comparison(before: list[Record], now: list[Record], results_dir: Path) -> list[str]:
    """Write tables/compare.csv and .md and return what to print; raises BenchError where a store has no records."""
    for name, records in (("the folder of --against", before), (str(results_dir), now)):
        if not records:
            raise BenchError(f"No records in {name}: name a results folder that holds runs.")
    lines = compare(before, now)
    write_atomically(results_dir / "tables" / "compare.csv", lines.to_csv(index=False, lineterminator="\n"))
    write_atomically(results_dir / "tables" / "compare.md", markdown(lines))
    return summary(lines)


def _line(runs: pd.DataFrame) -> dict[Any, Any]:
    """Return the comparison of a configuration on a task."""
    first = runs.iloc[0]
    values = runs.pivot(index="seed", columns="store", values="headline.value") * first["scale"]
    values = values.reindex(columns=["before", "now"])
    pairs = values.dropna()
    change = summarise(list(pairs.now - pairs.before))
    certain = "" if change.half is None else "yes" if abs(change.mean or 0) > change.half else "no"
    line = {
        "verdict": _verdict(change.mean, values, first.higher_is_better),
        "difference": change.mean,
        "ci95_half_width": change.half,
        "clear": "one seed" if change.n == 1 else certain if change.mean else "no",
        "paired_seeds": change.n,
        "task": first.column,
        **first[["metric", "model", "suite", "configuration"]],
    }
    for store in ("before", "now"):
        lines = runs[runs.store == store]
        line |= {
            store: None if pairs.empty else float(pairs[store].mean()),
            f"seeds_{store}": " ".join(map(str, sorted(lines.seed))),
            f"bytes_{store}": lines["size.embedding_bytes"].max(),
            f"latency_ms_{store}": lines["cost.latency_ms.batch1"].astype(float).median(),
        }
    return line


def _verdict(change: float | None, values: pd.DataFrame, higher_is_better: bool) -> str:
    if change is None:
        only = [store for store in ("now", "before") if values.drop(columns=store).isna().all(axis=None)]
        return f"only {only[0]}" if only else "no common seed"
    if math.isclose(change, 0, abs_tol=1e-9):
        return "same"
    return "better" if (change > 0) == higher_is_better else "worse"


def markdown(lines: pd.DataFrame) -> str:
    """Return the comparison as a page of Markdown."""
    names = ["model", "task", "configuration", "metric", "verdict"]
    body = []
    for line in lines.to_dict("records"):
        means = ["" if pd.isna(line[store]) else f"{line[store]:.2f}" for store in ("before", "now")]
        numbers = [_change(line), line["clear"], str(line["paired_seeds"]), " → ".join(means)]
        body.append([escape(line[key]) for key in names] + numbers)
    head = [*names, "difference", "clear", "paired seeds", "before → now"]
    return f"# Compared with another store\n\n{HEAD}\n{markdown_table(head, body, 4)}"


def summary(lines: pd.DataFrame) -> list[str]:
    """Return a line for each score that differs or has other seeds, and the count of each verdict."""
    changed = lines[(lines.verdict != "same") | (lines.seeds_before != lines.seeds_now)]
    texts = [
        f"{line['verdict']:14} {_change(line):>14}  {line['model']} {line['task']} {line['configuration']} "
        f"(seeds before: {line['seeds_before'] or 'none'}, now: {line['seeds_now'] or 'none'}"
        f"{line['clear'] and ', clear: ' + line['clear']})"
        for line in changed.to_dict("records")
    ]
    counts = lines.verdict.value_counts()
    return [*texts, " | ".join(f"{verdict} {counts.get(verdict, 0)}" for verdict in VERDICTS)]


def _change(line: dict[Any, Any]) -> str:
    if pd.isna(line["difference"]):
        return ""
    half = "" if pd.isna(line["ci95_half_width"]) else f" ± {line['ci95_half_width']:.2f}"
    return f"{line['difference']:+.2f}{half}"
