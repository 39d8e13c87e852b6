"""Tables as pandas frames (for CSV) and as Markdown (for people)."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench.report.frame import headline_runs, rows
from bench.report.grid import Grid
from bench.report.section import ALL, Cell, Column, Row, Section
from bench.statistics import Summary
from bench.store import STATUSES
from bench.text import escape, markdown_table, one_line

HOW_TO_READ = (
    "Scores are mean ± sample standard deviation over seeds [95 % interval]. Below each: its difference to dense (where there is one, "
    "without recovery and teacher) over the seeds that both have, its percent of dense (the difference's uncertainty included), and the "
    "probability of losing more than the threshold (report.tolerated_loss, in points). Intervals: for one task Student's t over seeds; for "
    "the mean over tasks a stratified bootstrap over task and seed; for one seed binomial over the evaluated rows (Wilson, of a difference "
    "Newcombe, of a mean over tasks MOVER of these), which says nothing about other seeds; none where seeds do not differ. "
    "tables/results.csv names each number's interval. Tasks that at least half of the configurations lack are left out of another mean; "
    "charts show the mean that brings most scores together. Sizes count the embedding only; stored bytes include packed codes.\n"
)
BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.125, 0.25, 1.0)  # of the dense table's bytes
RUN_COLUMNS = [
    *(
        "model",
        "weights",
        "suite",
        "task",
        "not_official",
        "configuration",
        "config_id",
        "seed",
        "status",
        "run_id",
    ),
    *(
        "created_at",
        "task_version",
        "source",
        "data_sha256",
        "train_rows",
        "split",
        "metric",
        "value",
        "collapsed",
    ),
    *("embedding_params", "embedding_bytes", "param_saving", "byte_saving", "total_params", "total_bytes"),
    *("file_bytes", "steps", "seconds", "device", "commit", "error_type", "error_message"),
]
COUNTS = [
    *("task_version", "train_rows", "embedding_params", "embedding_bytes", "total_params", "total_bytes"),
    *("file_bytes", "steps"),
]  # stay integers where some runs have none: as floats, one failed run would rewrite every line


def coverage(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line per model, task and configuration: the seeds of each status and those that only others have."""
    seeds: dict[tuple[Any, ...], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for run in rows(frame):
        seeds[run.model, run.weights, run.suite, run.column, run.config_id][run.status].add(run.seed)
    counted = headline_runs(frame)
    keys = ["model", "weights", "suite", "column", "config_id"]
    collapsed = counted[counted.collapsed.eq(True)].groupby(keys).size()
    lines = []
    for (model, weights, suite), section in frame.groupby(["model", "weights", "suite"]):
        labels = section.drop_duplicates("config_id")[["config_id", "configuration"]]
        for column, runs in section.groupby("column"):
            expected = set(runs.seed)
            for config_id, label in rows(labels):
                key = (model, weights, suite, str(column), config_id)
                own = seeds[key]
                lines.append(
                    {
                        "model": model,
                        "weights": weights,
                        "suite": suite,
                        "task": column,
                        "configuration": label,
                    }
                    | {status: _seeds(own[status]) for status in STATUSES}
                    | {"missing": _seeds(expected.difference(*own.values()))}
                    | {"collapsed": int(collapsed.get(key, 0))}
                )
    return pd.DataFrame(lines)


def _seeds(seeds: Iterable[int]) -> str:
    return " ".join(map(str, sorted(seeds)))


def coverage_counts(lines: pd.DataFrame) -> str:
    """Return a Markdown table: per model and task how many of all configurations have run there, and the number of runs of each status."""
    counted = []
    for (model, weights, suite, task), every in lines.groupby(["model", "weights", "suite", "task"]):
        part = every[begun(every)]
        counts = [sum(len(seeds.split()) for seeds in part[status]) for status in (*STATUSES, "missing")]
        total = sum(counts)
        name = [escape(model), escape(weights), escape(suite), escape(task), f"{len(part)} of {len(every)}"]
        counted.append([*name, f"{counts[0]} of {total}", *map(str, counts[1:]), str(part.collapsed.sum())])
    return markdown_table(
        ["model", "weights", "suite", "task", "configurations", "ok", *STATUSES[1:], "missing", "collapsed"],
        counted,
        9,
    )


def begun(lines: pd.DataFrame) -> pd.Series:
    """Return which lines of the coverage have a run."""
    return (lines[list(STATUSES)] != "").any(axis=1)


def coverage_markdown(lines: pd.DataFrame) -> str:
    """Return the coverage table with the seeds of each status."""
    return markdown_table(
        list(lines.columns), ([escape(cell) for cell in line] for line in lines.itertuples(index=False))
    )


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line for every run that did not finish, with its error's type and its message's first line."""
    failed = frame[frame.status != "ok"].assign(task=lambda rows: rows.column)
    keys = [
        "model",
        "suite",
        "task",
        "configuration",
        "seed",
        "status",
        "run_id",
        "error_type",
        "error_message",
    ]
    return failed[keys].fillna("")


def failures_markdown(lines: pd.DataFrame) -> str:
    """Return the failures as Markdown, messages cut to 200 characters."""
    return markdown_table(
        list(lines.columns), ([escape(_cut(cell)) for cell in line] for line in lines.itertuples(index=False))
    )


def _cut(cell: object) -> str:
    text = one_line(cell)
    return text if len(text) <= 200 else f"{text[:199]}…"


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line a run with every metric (fractions), empty where the model's weights are random."""
    plain = frame.assign(not_official=frame.marks.map("; ".join))[RUN_COLUMNS]
    plain = plain.astype(dict.fromkeys(COUNTS, "Int64"))
    scores = pd.DataFrame(list(frame.scores), index=frame.index)
    return plain.join(scores[sorted(scores.columns)])


def results(section: Section) -> pd.DataFrame:
    """Return one line per configuration and task: score, difference to dense and percent of dense, each with its interval."""
    lines = []
    for row in section.rows:
        for column in section.columns:
            cell = section.cells[row.config_id, column.name]
            lines.append(
                {
                    "model": section.title,
                    "suite": section.suite,
                    "configuration": row.label,
                    "task": column.task,
                }
                | {"not_official": "; ".join(column.marks), "split": column.split, "metric": column.unit}
                | {
                    "embedding_params": row.params,
                    "embedding_bytes": row.bytes,
                    "body": row.body,
                    "total_bytes": row.total_bytes,
                }
                | {"param_saving": row.param_saving, "byte_saving": row.byte_saving}
                | {"mean": cell.score.mean, "sd": cell.score.sd}
                | _interval("ci95", cell.score)
                | {"seeds": _seeds(cell.seeds), "collapsed": cell.collapsed, "no_score": cell.missing}
                | {"difference_to_dense": cell.change.mean, "difference_sd": cell.change.sd}
                | _interval("difference_ci95", cell.change)
                | {"percent_of_dense": cell.share.mean}
                | _interval("percent_ci95", cell.share)
                | {"worse_by": section.threshold, "probability_worse": cell.worse}
                | {"paired_seeds": cell.change.n, "no_difference": cell.unpaired}
            )
    whole = {"embedding_params": "Int64", "embedding_bytes": "Int64", "total_bytes": "Int64"}
    return pd.DataFrame(lines).astype(whole)


def _interval(name: str, summary: Summary) -> dict[str, Any]:
    return {f"{name}_low": summary.low, f"{name}_high": summary.high, f"{name}_is": summary.interval}


def results_grid(section: Section) -> Grid:
    """Return the section's table: a line per configuration, a column per task, what is not official in its head."""
    shown = [
        column for column in section.columns if ": " not in column.task
    ]  # single tags of a category are in the CSV file
    bodies = len(section.embeddings) < len(section.rows)
    head = [
        "configuration",
        "embedding parameters (saved)",
        "stored bytes (saved)",
        *["whole model in bytes (saved)"] * bodies,
    ]
    head += ["\n".join(_heading(column)) for column in shown]
    dense = next((row.total_bytes for row in section.rows if row.kind == "dense"), None)
    rows = [
        [row.label, _count(row.params, row.param_saving), _count(row.bytes, row.byte_saving)]
        + [_count(row.total_bytes, 1 - row.total_bytes / dense if row.total_bytes and dense else None)]
        * bodies
        + [cell_text(section, row, column) for column in shown]
        for row in section.rows
    ]
    return Grid(f"{section.title} on {section.suite}", head, rows, len(head) - 1, _mean_note(section))


def _mean_note(section: Section) -> str:
    """Return why there is no mean over tasks, or why it has no interval."""
    if section.no_mean:
        return (
            ""
            if ALL in {column.name for column in section.columns}
            else f"No average over tasks: {section.no_mean}."
        )
    unsure = [f"{column.task} ({column.metric})" for column in section.unsure]
    single = any(section.cells[row.config_id, section.main.name].score.n == 1 for row in section.rows)
    return (
        f"The mean of one seed has no interval, because these tasks have none: {', '.join(unsure)}."
        if unsure and single
        else ""
    )


def budget_grid(section: Section) -> Grid:
    """Return a line per method, a column per budget: the largest embedding that fits in it and not in the one before.

    It is chosen by its bytes alone, so that no score is picked for being high. Empty without compressed embeddings.
    """
    methods: dict[str, dict[float, Row]] = defaultdict(dict)
    for row in section.embeddings:  # from the largest
        if row.byte_saving is None or row.kind == "dense":
            continue
        budget = next((budget for budget in BUDGETS if 1 - row.byte_saving <= budget), None)
        if budget is not None:
            methods[f"{row.kind} + {row.recovery}" if row.recovery != "none" else row.kind].setdefault(
                budget, row
            )
    used = [budget for budget in BUDGETS if any(budget in found for found in methods.values())]
    body = [
        [
            name,
            *(
                f"{found[b].label}\n{cell_text(section, found[b], section.main)}" if b in found else ""
                for b in used
            ),
        ]
        for name, found in sorted(methods.items())
    ]
    head = ["method", *(f"at most {100 * budget:g} % of dense bytes" for budget in used)]
    title = f"{section.title} on {section.suite}: {', '.join(_heading(section.main))}, by method and budget"
    return Grid(title, head, body, len(used))


def _heading(column: Column) -> list[str]:
    where = f" on {column.split}" if column.split else ""
    marks = [f"not official: {'; '.join(column.marks)}"] if column.marks else []
    return [column.task, f"{column.unit}{where}".strip(), *marks]


def _count(count: int | None, saving: float | None) -> str:
    return (
        "unknown" if count is None else f"{count:,}" + ("" if saving is None else f" ({100 * saving:.2f} %)")
    )


def cell_text(section: Section, row: Row, column: Column) -> str:
    """Return a cell's lines: score, collapsed runs, difference to dense, percent of dense, probability of being worse."""
    cell = section.cells[row.config_id, column.name]
    if cell.missing:
        return cell.missing
    lines = [score_text(cell.score, column.scale)]
    if cell.collapsed:
        lines.append(f"{cell.collapsed} of {cell.score.n * len(column.parts)} collapsed")
    if cell.unpaired:
        lines.append(cell.unpaired)
    elif cell.change.n:
        lines.append(_difference(cell, column.scale))
        lines += (
            [f"{cell.share.mean:.1f}{_ends(cell.share, 1)} % of dense"] if cell.share.mean is not None else []
        )
        lines += (
            [f"P(> {section.threshold:g} below dense) = {cell.worse:.2f}"] if cell.worse is not None else []
        )
    return "\n".join(lines)


def score_text(score: Summary, scale: float) -> str:
    """Return "70.1 ± 0.8 [68.1, 72.1] (3 seeds)", or "70.1 (1 seed)"; one decimal of percent, three of other numbers."""
    digits = 1 if scale == 100 else 3
    spread = "" if score.sd is None else f" ± {score.sd:.{digits}f}"
    return f"{score.mean:.{digits}f}{spread}{_ends(score, digits)} ({score.n} seed{'s' * (score.n > 1)})"


def _ends(summary: Summary, digits: int) -> str:
    return "" if summary.low is None else _minus(f" [{summary.low:.{digits}f}, {summary.high:.{digits}f}]")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _difference(cell: Cell, scale: float) -> str:
    digits = 1 if scale == 100 else 3
    pairs = (
        "" if cell.change.n == cell.score.n else f" ({cell.change.n} paired seed{'s' * (cell.change.n > 1)})"
    )
    return f"{_minus(f'{cell.change.mean:+.{digits}f}')}{_ends(cell.change, digits)} to dense{pairs}"


def cautions(frame: pd.DataFrame) -> list[str]:
    """Return sentences (plain text) about everything that keeps a number from being read as the official one."""
    said = []
    for task, marks in sorted(set(zip(frame.task, frame.marks, strict=True))):
        said += [f"{task}: {mark}" for mark in marks]
    for model in sorted(set(frame[frame.weights == "random"].model)):
        said.append(f"{model}: random weights, so no score is shown")
    ok = frame[frame.status == "ok"]
    for column, part in ok.groupby("column"):
        digests = part.data_sha256.dropna().nunique()
        said += [f"{column}: the data come from {digests} sources or versions"] if digests > 1 else []
    older = Counter(ok.drop(headline_runs(frame).index).column)
    for column, count in sorted(older.items()):
        said.append(f"{column}: {count} older run(s) of the same configuration and seed are left out")
    commits = frame[frame.dirty].commit.nunique()
    said += ["some runs come from a working tree with uncommitted changes"] if commits else []
    return said
