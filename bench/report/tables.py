"""The tables, from the runs and the score table: as frames for CSV, and as grids of text for people."""

from collections import Counter, defaultdict
from typing import Any

import pandas as pd

from bench.report.grid import Grid
from bench.report.runs import SECTION, headline_runs, section_of
from bench.report.scores import ALL
from bench.store import STATUSES
from bench.text import escape, markdown_table, one_line

HOW_TO_READ = (
    "Scores are mean ± sample standard deviation over seeds [95 % interval]. Below each: its difference to dense (where there is one, "
    "without recovery and teacher) over the seeds that both have, its percent of dense (the difference's uncertainty included), and the "
    "probability of losing more than the threshold (report.tolerated_loss, in points). There are two kinds of interval. Over seeds: "
    "Student's t, for a mean over tasks with Welch and Satterthwaite's degrees of freedom; none where seeds do not differ. Over the "
    "evaluated rows, where there is one seed: it says nothing about other seeds. tables/results.csv names each number's interval. Tasks "
    "that at least half of the configurations lack are left out of another mean; charts show the mean that brings most scores together. "
    "Sizes count the embedding only; stored bytes include packed codes.\n"
)
BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.125, 0.25, 1.0)  # of the dense table's bytes
# The columns of the CSV files: to show another one of the frames' columns, name it here.
RESULTS = [
    *("title", "suite", "configuration", "task", "not_official", "headline.split", "metric"),
    *("size.embedding_params", "size.embedding_bytes", "body", "size.total_bytes"),
    *("size.param_saving", "size.byte_saving", "mean", "sd", "ci95_low", "ci95_high", "ci95_is"),
    *("seeds", "collapsed", "no_score", "difference_to_dense", "difference_sd"),
    *("difference_ci95_low", "difference_ci95_high", "difference_ci95_is"),
    *("percent_of_dense", "percent_ci95_low", "percent_ci95_high", "percent_ci95_is"),
    *("worse_by", "probability_worse", "paired_seeds", "no_difference"),
]
RUNS = [
    *(
        *SECTION,
        "task",
        "not_official",
        "configuration",
        "config_id",
        "seed",
        "status",
        "run_id",
        "created_at",
    ),
    *("task.version", "task.source", "task.data_sha256", "training.train_rows"),
    *("headline.split", "headline.metric", "headline.value", "training.collapsed"),
    *("size.embedding_params", "size.embedding_bytes", "size.param_saving", "size.byte_saving"),
    *("size.total_params", "size.total_bytes", "size.file_bytes", "training.steps", "training.seconds"),
    *("provenance.device", "provenance.commit", "error.type", "error_message"),
]


def results(table: pd.DataFrame) -> pd.DataFrame:
    """Return one line per configuration and task: score, difference to dense and percent of dense, each with its interval."""
    return table[RESULTS].rename(columns={"title": "model"})


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line a run with every metric (fractions), empty where the model's weights are random."""
    metrics = sorted(column for column in frame.columns if column.startswith("metrics."))
    return frame.assign(not_official=frame.marks.map("; ".join))[[*RUNS, *metrics]]


def csv(frame: pd.DataFrame) -> str:
    """Return the frame as CSV, counts as integers; as floats, one run without them would rewrite every line."""
    counts = frame.columns[
        frame.columns.str.fullmatch(r"(size|training|task)\..*(params|bytes|rows|steps|version)")
    ]
    whole = frame.astype(dict.fromkeys(counts, "Int64"))
    return str(whole.to_csv(index=False, lineterminator="\n"))


def completeness(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line per model, task and configuration: the seeds of each status and those that only others have."""
    cells = [*SECTION, "column", "config_id"]
    counted = headline_runs(frame)
    collapsed = counted[counted["training.collapsed"].eq(True)].groupby(cells).size()
    seeds = frame.groupby([*cells, "status"]).seed.agg(set)
    lines = []
    for (*section, column), on_task in frame.groupby([*SECTION, "column"]):
        labels = section_of(frame, on_task).drop_duplicates("config_id")
        for config_id, label in zip(labels.config_id, labels.configuration, strict=True):
            key = *section, column, config_id
            own = {status: seeds.get((*key, status), set()) for status in STATUSES}
            missing = set(on_task.seed).difference(*own.values())
            lines.append(
                dict(zip(SECTION, section, strict=True))
                | {"task": column, "configuration": label}
                | {
                    status: " ".join(map(str, sorted(found)))
                    for status, found in (own | {"missing": missing}).items()
                }
                | {"collapsed": int(collapsed.get(key, 0))}
            )
    return pd.DataFrame(lines)


def begun(lines: pd.DataFrame) -> pd.Series:
    """Return which lines of `completeness` have a run."""
    return (lines[list(STATUSES)] != "").any(axis=1)


def completeness_counts(lines: pd.DataFrame) -> str:
    """Return a Markdown table: per model and task how many of all configurations have run there, and the number of runs of each status."""
    counted = []
    for names, every in lines.groupby([*SECTION, "task"]):
        part = every[begun(every)]
        counts = [sum(len(seeds.split()) for seeds in part[status]) for status in (*STATUSES, "missing")]
        shares = [f"{len(part)} of {len(every)}", f"{counts[0]} of {sum(counts)}"]
        counted.append([*map(escape, names), *shares, *map(str, counts[1:]), str(part.collapsed.sum())])
    head = [*SECTION, "task", "configurations", "ok", *STATUSES[1:], "missing", "collapsed"]
    return markdown_table(head, counted, 9)


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one line for every run that did not finish, with its error's type and its message's first line."""
    keys = [
        "model",
        "suite",
        "task",
        "configuration",
        "seed",
        "status",
        "run_id",
        "error.type",
        "error_message",
    ]
    return frame[frame.status != "ok"].assign(task=lambda lines: lines.column)[keys].fillna("")


def as_markdown(lines: pd.DataFrame) -> str:
    """Return a frame as a Markdown table, texts cut to 200 characters."""
    cells = ([one_line(cell) for cell in line] for line in lines.itertuples(index=False))
    return markdown_table(
        list(lines.columns),
        ([escape(text if len(text) <= 200 else f"{text[:199]}…") for text in line] for line in cells),
    )


def results_grid(part: pd.DataFrame) -> Grid:
    """Return a section's table: a line per configuration, a column per task, what is not official in its head."""
    first = part.iloc[0]
    shown = part[~part.task.str.contains(": ", regex=False)]  # single tags of a category are in the CSV file
    columns = shown.drop_duplicates("column").to_dict("records")
    bodies = bool((part.body != "fp32").any())
    head = ["configuration", "embedding parameters (saved)", "stored bytes (saved)"]
    head += ["whole model in bytes (saved)"] * bodies + ["\n".join(_heading(column)) for column in columns]
    dense = part[part.kind == "dense"]["size.total_bytes"].max()
    rows = []
    for _, line in shown.groupby("config_id", sort=False):
        cells = line.to_dict("records")
        own, total = cells[0], cells[0]["size.total_bytes"]
        sizes = [
            _count(own[f"size.embedding_{key}s"], own[f"size.{key}_saving"]) for key in ("param", "byte")
        ]
        sizes += [_count(total, 1 - total / dense)] * bodies
        rows.append([own["configuration"], *sizes, *map(cell_text, cells)])
    return Grid(f"{first.title} on {first.suite}", head, rows, len(head) - 1, _mean_note(part))


def _mean_note(part: pd.DataFrame) -> str:
    """Return why there is no mean over tasks, or why it has no interval."""
    main = part[part.main]
    if main.iloc[0].no_mean:
        return "" if ALL in set(part.column) else f"No average over tasks: {main.iloc[0].no_mean}."
    tasks = part[part.column.isin(main.iloc[0].tasks) & part.rows.isna()].drop_duplicates("column")
    unsure = [f"{task} ({metric})" for task, metric in zip(tasks.task, tasks["headline.metric"], strict=True)]
    if not unsure or not main.n.eq(1).any():
        return ""
    return f"The mean of one seed has no interval, because these tasks have none: {', '.join(unsure)}."


def budget_grid(part: pd.DataFrame) -> Grid:
    """Return a line per method, a column per budget: the largest embedding that fits in it and not in the one before.

    It is chosen by its bytes alone, so that no score is picked for being high. Empty without compressed embeddings.
    """
    methods: dict[str, dict[float, str]] = defaultdict(dict)
    main = part[part.main]
    for row in main[(main.body == "fp32") & (main.kind != "dense")].to_dict("records"):  # from the largest
        budget = next((budget for budget in BUDGETS if 1 - row["size.byte_saving"] <= budget), None)
        if budget is not None:
            name = row["kind"] if row["recovery"] == "none" else f"{row['kind']} + {row['recovery']}"
            methods[name].setdefault(budget, f"{row['configuration']}\n{cell_text(row)}")
    used = [budget for budget in BUDGETS if any(budget in found for found in methods.values())]
    body = [[name, *(found.get(budget, "") for budget in used)] for name, found in sorted(methods.items())]
    head = ["method", *(f"at most {100 * budget:g} % of dense bytes" for budget in used)]
    first = main.iloc[0]
    heading = ", ".join(_heading(first.to_dict()))
    return Grid(f"{first.title} on {first.suite}: {heading}, by method and budget", head, body, len(used))


def _heading(column: dict[Any, Any]) -> list[str]:
    where = "" if pd.isna(column["headline.split"]) else f" on {column['headline.split']}"
    marks = [f"not official: {column['not_official']}"] if column["not_official"] else []
    return [column["task"], f"{column['metric']}{where}".strip(), *marks]


def _count(count: float, saving: float) -> str:
    if pd.isna(count):
        return "unknown"
    return f"{count:,.0f}" + ("" if pd.isna(saving) else f" ({100 * saving:.2f} %)")


def cell_text(row: dict[Any, Any]) -> str:
    """Return a cell's lines: score, collapsed runs, difference to dense, percent of dense, probability of being worse."""
    if row["no_score"]:
        return str(row["no_score"])
    lines = [score_text(row)]
    if row["collapsed"]:
        lines.append(f"{row['collapsed']} of {row['n'] * len(row['tasks'])} collapsed")
    if row["no_difference"]:
        lines.append(row["no_difference"])
    elif row["paired_seeds"]:
        pairs, digits = row["paired_seeds"], _digits(row)
        few = "" if pairs == row["n"] else f" ({pairs} paired seed{'s' * (pairs > 1)})"
        change = f"{row['difference_to_dense']:+.{digits}f}".replace("-", "−")
        lines.append(f"{change}{_ends(row, 'difference_ci95', digits)} to dense{few}")
        if pd.notna(row["percent_of_dense"]):
            lines.append(f"{row['percent_of_dense']:.1f}{_ends(row, 'percent_ci95', 1)} % of dense")
        if pd.notna(row["probability_worse"]):
            lines.append(f"P(> {row['worse_by']:g} below dense) = {row['probability_worse']:.2f}")
    return "\n".join(lines)


def score_text(row: dict[Any, Any]) -> str:
    """Return "70.1 ± 0.8 [68.1, 72.1] (3 seeds)", or "70.1 (1 seed)"; one decimal of percent, three of other numbers."""
    digits, n = _digits(row), row["n"]
    spread = "" if pd.isna(row["sd"]) else f" ± {row['sd']:.{digits}f}"
    return f"{row['mean']:.{digits}f}{spread}{_ends(row, 'ci95', digits)} ({n} seed{'s' * (n > 1)})"


def _digits(row: dict[Any, Any]) -> int:
    return 1 if row["scale"] == 100 else 3


def _ends(row: dict[Any, Any], name: str, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def cautions(frame: pd.DataFrame) -> list[str]:
    """Return sentences (plain text) about everything that keeps a number from being read as the official one."""
    said = []
    for task, marks in sorted(set(zip(frame.task, frame.marks, strict=True))):
        said += [f"{task}: {mark}" for mark in marks]
    for model in sorted(set(frame[frame.weights == "random"].model)):
        said.append(f"{model}: random weights, so no score is shown")
    ok = frame[frame.status == "ok"]
    for column, part in ok.groupby("column"):
        digests = part["task.data_sha256"].dropna().nunique()
        said += [f"{column}: the data come from {digests} sources or versions"] if digests > 1 else []
    for column, count in sorted(Counter(ok.drop(headline_runs(frame).index).column).items()):
        said.append(f"{column}: {count} older run(s) of the same configuration and seed are left out")
    return said + ["some runs come from a working tree with uncommitted changes"] * bool(frame.dirty.any())
