"""Tables as pandas frames (for CSV) and as Markdown (for people)."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench.report.frame import headline_runs, rows
from bench.report.markdown import escape, one_line, table
from bench.report.statistics import Summary
from bench.report.summary import Cell, Column, Row, Section
from bench.store import STATUSES

HOW_TO_READ = (
    "Scores are mean ± sample standard deviation over seeds. Below each: its difference to dense, as the mean over the "
    "seeds that both have. Sizes count the embedding only; stored bytes include packed codes.\n"
)
RUN_COLUMNS = [
    *("model", "weights", "suite", "task", "not_official", "configuration", "config_id", "seed", "status", "run_id"),
    *("created_at", "task_version", "source", "data_sha256", "train_rows", "split", "metric", "value", "collapsed"),
    *("embedding_params", "embedding_bytes", "param_saving", "byte_saving", "total_params", "total_bytes"),
    *("file_bytes", "steps", "seconds", "device", "commit", "error_type", "error_message"),
]


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
                    {"model": model, "weights": weights, "suite": suite, "task": column, "configuration": label}
                    | {status: _seeds(own[status]) for status in STATUSES}
                    | {"missing": _seeds(expected.difference(*own.values()))}
                    | {"collapsed": int(collapsed.get(key, 0))}
                )
    return pd.DataFrame(lines)


def _seeds(seeds: Iterable[int]) -> str:
    return " ".join(map(str, sorted(seeds)))


def coverage_counts(lines: pd.DataFrame) -> str:
    """Return a Markdown table: per model and task the number of configurations and of runs of each status."""
    counted = []
    for (model, weights, suite, task), part in lines.groupby(["model", "weights", "suite", "task"]):
        counts = [sum(len(seeds.split()) for seeds in part[status]) for status in (*STATUSES, "missing")]
        total = sum(counts)
        name = [escape(model), escape(weights), escape(suite), escape(task), str(len(part))]
        counted.append([*name, f"{counts[0]} of {total}", *map(str, counts[1:]), str(part.collapsed.sum())])
    return table(
        ["model", "weights", "suite", "task", "configurations", "ok", *STATUSES[1:], "missing", "collapsed"], counted, 9
    )


def coverage_markdown(lines: pd.DataFrame) -> str:
    """Return the coverage table with the seeds of each status."""
    return table(list(lines.columns), ([escape(cell) for cell in line] for line in lines.itertuples(index=False)))


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line for every run that did not finish, with its error's type and its message's first line."""
    failed = frame[frame.status != "ok"].assign(task=lambda rows: rows.column)
    keys = ["model", "suite", "task", "configuration", "seed", "status", "run_id", "error_type", "error_message"]
    return failed[keys].fillna("")


def failures_markdown(lines: pd.DataFrame) -> str:
    """Return the failures as Markdown, messages cut to 200 characters."""
    return table(list(lines.columns), ([escape(_cut(cell)) for cell in line] for line in lines.itertuples(index=False)))


def _cut(cell: object) -> str:
    text = one_line(cell)
    return text if len(text) <= 200 else f"{text[:199]}…"


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line a run with every metric (fractions), empty where the model's weights are random."""
    plain = frame.assign(not_official=frame.marks.map("; ".join))[RUN_COLUMNS]
    scores = pd.DataFrame(list(frame.scores), index=frame.index)
    return plain.join(scores[sorted(scores.columns)])


def results(section: Section) -> pd.DataFrame:
    """Return one line per configuration and task: mean, sd, interval and difference to dense, in the column's unit."""
    lines = []
    for row in section.rows:
        for column in section.columns:
            cell = section.cells[row.config_id, column.name]
            lines.append(
                {"model": section.title, "suite": section.suite, "configuration": row.label, "task": column.task}
                | {"not_official": "; ".join(column.marks), "split": column.split, "metric": column.unit}
                | {"embedding_params": row.params, "embedding_bytes": row.bytes}
                | {"param_saving": row.param_saving, "byte_saving": row.byte_saving}
                | {"mean": cell.score.mean, "sd": cell.score.sd, "ci95_half_width": cell.score.half}
                | {"seeds": _seeds(cell.seeds), "collapsed": cell.collapsed, "no_score": cell.missing}
                | {"difference_to_dense": cell.change.mean, "difference_sd": cell.change.sd}
                | {"difference_ci95_half_width": cell.change.half, "paired_seeds": cell.change.n}
                | {"no_difference": cell.unpaired}
            )
    whole = {"embedding_params": "Int64", "embedding_bytes": "Int64"}
    return pd.DataFrame(lines).astype(whole)


def results_markdown(section: Section) -> str:
    """Return the section's table: a line per configuration, a column per task, what is not official in its head."""
    head = ["configuration", "embedding parameters (saved)", "stored bytes (saved)"]
    head += ["<br>".join(map(escape, _heading(column))) for column in section.columns]
    rows = [
        [escape(row.label), _count(row.params, row.param_saving), _count(row.bytes, row.byte_saving)]
        + [_cell(section.cells[row.config_id, column.name], column, row) for column in section.columns]
        for row in section.rows
    ]
    note = "" if section.mean else f"\nNo average over tasks: {section.no_mean}.\n"
    return table(head, rows, len(head) - 1) + note


def parts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line per configuration and part of a split (a language, a category): mean and sd over seeds, as a fraction.

    The split's own line has no part; it is the mean over languages, or the score of all rows. Empty where no task has parts.
    """
    lines = []
    keys = ["model", "suite", "column", "configuration", "param_saving"]
    for run in rows(headline_runs(frame)):
        for name, value in run.scores.items():
            where, _, metric = name.rpartition(".")
            split, _, part = where.removeprefix(run.split).partition("/")
            if not split and metric in (run.metric, "gap") and any(f"{run.split}/" in other for other in run.scores):
                lines.append([*(getattr(run, key) for key in keys), run.split, part, metric, run.seed, value])
    table = pd.DataFrame(lines, columns=[*keys, "split", "part", "metric", "seed", "value"]).rename(columns={"column": "task"})
    grouped = table.groupby([*table.columns[:8]], sort=False, dropna=False).value
    return grouped.agg(mean="mean", sd="std", seeds="count").reset_index()


def parts_markdown(lines: pd.DataFrame) -> str:
    """Return a table for each model and task: a line per configuration, a column per language or whole category (× 100)."""
    texts = []
    for (model, task, split), table_lines in lines.groupby(["model", "task", "split"], sort=False):
        shown = table_lines[~table_lines.part.str.contains(": ")]  # single tags of a category are in the CSV file
        names = shown.part.where(shown.part != "", shown.metric.where(shown.metric == "gap", "all"))
        cells = shown.assign(name=names).pivot_table(index="configuration", columns="name", values="mean", sort=False)
        columns = ["all", *(["gap"] if "gap" in cells else []), *sorted({str(name) for name in cells} - {"all", "gap"})]
        body = [[escape(label), *("" if pd.isna(value) else f"{100 * value:.1f}" for value in values)]
                for label, values in zip(cells.index, cells[columns].to_numpy(), strict=True)]
        metric = shown.metric[shown.metric != "gap"].iloc[0]
        texts.append(f"#### {escape(task)}, {escape(model)}: {escape(metric)} × 100 on {escape(split)}\n\n"
                     + table(["configuration", *map(escape, columns)], body, len(columns)))
    return "\n".join(texts)


def _heading(column: Column) -> list[str]:
    where = f" on {column.split}" if column.split else ""
    marks = [f"not official: {'; '.join(column.marks)}"] if column.marks else []
    return [column.task, f"{column.unit}{where}".strip(), *marks]


def _count(count: int | None, saving: float | None) -> str:
    return "unknown" if count is None else f"{count:,} ({100 * (saving or 0):.2f} %)"


def _cell(cell: Cell, column: Column, row: Row) -> str:
    if cell.missing:
        return cell.missing
    lines = [score_text(cell.score, column.scale)]
    if cell.collapsed:
        lines.append(f"{cell.collapsed} of {cell.score.n} collapsed")
    if cell.unpaired:
        lines.append(cell.unpaired)
    elif cell.change.n:
        lines.append(_difference(cell, column.scale))
    return "<br>".join(lines)


def score_text(score: Summary, scale: float) -> str:
    """Return "70.1 ± 0.8 (3 seeds)", or "70.1 (1 seed)"; one decimal of percent, three of other numbers."""
    digits = 1 if scale == 100 else 3
    if score.sd is None:
        return f"{score.mean:.{digits}f} (1 seed)"
    return f"{score.mean:.{digits}f} ± {score.sd:.{digits}f} ({score.n} seeds)"


def _difference(cell: Cell, scale: float) -> str:
    sign = f"{cell.change.mean:+.{1 if scale == 100 else 3}f}".replace("-", "−")
    pairs = "" if cell.change.n == cell.score.n else f" ({cell.change.n} paired seed{'s' * (cell.change.n > 1)})"
    return f"{sign} to dense{pairs}"


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
