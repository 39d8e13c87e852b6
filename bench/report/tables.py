"""The tables, from the runs and the score table: as frames for CSV, and as grids of text for people."""

import math
from collections import Counter, defaultdict
from typing import Any

import pandas as pd

from bench.report.grid import Grid
from bench.report.names import known_as, language_name, overlaps, weights_text
from bench.report.runs import SECTION, headline_runs
from bench.report.scores import ALL, FLOORS, SIZE, guessing, quality
from bench.statistics import pareto_front
from bench.text import escape, markdown_table, one_line, size_text

HOW_TO_READ = (
    "A score is the mean over seeds ± half of its 95 % interval. * marks a score whose paired difference to dense has an interval without "
    "0, † a score with a run that predicts a single class. The difference to dense is the mean over the seeds that both have; dense is the "
    "model without recovery and teacher, where it was trained. There are three kinds of interval. Several seeds: Student's t, for a "
    "mean over tasks with Welch and Satterthwaite's degrees of freedom; none where seeds do not differ. Several seeds with packed "
    "predictions: the same with the variance over drawn evaluation rows added. One seed: over the evaluated rows, which says nothing "
    "about other seeds. No mark is corrected for the number of configurations. tables/results.csv names each interval; standard "
    "deviations and percent of dense are there too, and p_noninferiority, the p-value of the hypothesis that the loss is margin "
    "points (report.tolerated_loss) or more, and p_holm, the same corrected for all configurations of a column. A second mean leaves "
    "out the tasks that at least half of the configurations lack; charts show the mean that brings most scores together. Sizes count "
    "the embedding only; stored bytes include packed codes, bits an entry are stored bits divided by the dense table's numbers, and in "
    "memory codes take 2 or 4 bytes each. Trained parameters are the floating-point values that training changes; codes, ids and frozen "
    "int8 or int4 numbers with their scales stand beside them in bits.\n"
)
BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.125, 0.25, 1.0)  # of the dense table's bytes
# The columns of the CSV files: to show another of the frames' columns, name it here.
RESULTS = [
    *("recorded_as", "suite", "configuration", "task", "not_official", "headline.split", "metric"),
    *("size.embedding_bytes", "size.byte_saving", "size.bits_per_entry"),
    *(
        "size.memory_bytes",
        "size.memory_saving",
        "size.embedding_params",
        "size.param_saving",
        "size.code_bits",
    ),
    *("body", "size.total_bytes", "mean", "sd", "ci95_low", "ci95_high", "ci95_is"),
    *("seeds", "collapsed", "no_score", "difference_to_dense", "difference_sd"),
    *("difference_ci95_low", "difference_ci95_high", "difference_ci95_is"),
    *("percent_of_dense", "percent_ci95_low", "percent_ci95_high", "percent_ci95_is"),
    *("margin", "p_noninferiority", "p_holm", "paired_seeds", "no_difference"),
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
    *("size.embedding_params", "size.code_bits", "size.embedding_bytes", "size.memory_bytes"),
    *("size.param_saving", "size.byte_saving", "size.memory_saving", "size.bits_per_entry"),
    *("size.total_params", "size.total_bytes", "size.file_bytes", "training.steps", "training.seconds"),
    *("provenance.device", "provenance.commit", "error.type", "error_message"),
]
FAILURES = [
    *("model", "suite", "column", "configuration", "seed", "status"),
    *("run_id", "error.type", "error_message"),
]


def results(table: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each configuration and task: score, difference to dense and percent of dense, each with its interval."""
    return table[RESULTS].rename(columns={"recorded_as": "model"})


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each run with every metric (fractions), empty where the model's weights are random."""
    metrics = sorted(column for column in frame.columns if column.startswith("metrics."))
    return frame.assign(not_official=frame.marks.map("; ".join))[[*RUNS, *metrics]]


def csv(frame: pd.DataFrame) -> str:
    """Return the frame as CSV, counts as integers: as floats, a single run without them would change every line."""
    pattern = r"(size|training|task)\..*(params|bytes|code_bits|rows|steps|version)"
    counts = frame.columns[frame.columns.str.fullmatch(pattern)]
    whole = frame.astype(dict.fromkeys(counts, "Int64"))
    return str(whole.to_csv(index=False, lineterminator="\n"))


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a line for every run that did not finish, with its error's type and the first line of its message."""
    return frame[frame.status != "ok"][FAILURES].rename(columns={"column": "task"}).fillna("")


def as_markdown(lines: pd.DataFrame) -> str:
    """Return a frame as a Markdown table, its texts cut to 200 characters."""
    rows = [[one_line(cell) for cell in line] for line in lines.itertuples(index=False)]
    cells = [[escape(text if len(text) <= 200 else f"{text[:199]}…") for text in row] for row in rows]
    return markdown_table(list(lines.columns), cells)


def results_grid(part: pd.DataFrame) -> Grid:
    """Return a section's table: a line per configuration, a column per task, and the main score's difference to dense."""
    shown = part[~part.task.str.contains(": ", regex=False)]  # single tags of a category are in the CSV file
    main = part[part.main].iloc[0]
    bodies = bool((part.body != "fp32").any())
    head = ["configuration", "stored bytes (saved)", "bits an entry", "bytes in memory (saved)"]
    head += ["trained parameters + bits of codes"]
    head += ["whole model in bytes (saved)"] * bodies + ["seeds"]
    head += ["\n".join(_heading(column)) for column in shown.drop_duplicates("column").to_dict("records")]
    head.append(f"difference to dense\n{main.task}")
    dense = part[part.kind == "dense"]["size.total_bytes"].max()
    lines: dict[str, list[dict[Any, Any]]] = {}
    for cell in shown.to_dict("records"):  # one call for all lines: it is as slow for one
        lines.setdefault(cell["config_id"], []).append(cell)
    rows = []
    for cells in lines.values():
        first, total = cells[0], cells[0]["size.total_bytes"]
        sizes = [
            _count(first["size.embedding_bytes"], first["size.byte_saving"]),
            "unknown" if pd.isna(first["size.bits_per_entry"]) else f"{first['size.bits_per_entry']:.3g}",
            _count(first["size.memory_bytes"], first["size.memory_saving"]),
            " + ".join(_count(first[f"size.{key}"]) for key in ("embedding_params", "code_bits")),
        ]
        sizes += [_count(total, 1 - total / dense)] * bodies
        seeds = sorted({cell["n"] for cell in cells if cell["n"]})
        change = difference_text(next(cell for cell in cells if cell["main"]))
        many = " to ".join(map(str, dict.fromkeys([*seeds[:1], *seeds[-1:]])))
        rows.append([first["configuration"], *sizes, many, *map(cell_text, cells), change])
    notes = " ".join(filter(None, [_mean_note(part), _overlap_note(part)]))
    return Grid(f"{main.title} on {main.suite}", head, rows, len(head) - 1, notes)


def _overlap_note(part: pd.DataFrame) -> str:
    """Return a sentence about what of the section's tasks the encoder was trained on before, or nothing."""
    tasks = set(part.task)
    seen = [f"{task} ({data})" for task, data in overlaps(part.model.iloc[0]).items() if task in tasks]
    source = "its file in conf/model says from where this is known"
    return f"The encoder itself was trained on data of {', '.join(seen)}; {source}." if seen else ""


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


def best_grid(part: pd.DataFrame) -> Grid:
    """Return a line for dense and for each configuration than which none is smaller and better, without those that may guess."""
    main = part[part.main & (part.body == "fp32") & part["mean"].notna() & part[SIZE].notna()]
    main = main[(main.n >= min(2, main.n.max())) & ~main.kind.isin(FLOORS) & ~guessing(main)]
    front = main.iloc[pareto_front(list(main[SIZE]), list(quality(main)))[::-1]]
    shown = pd.concat([main[(main.kind == "dense") & main.plain.astype(bool)], front[front.kind != "dense"]])
    rows = [
        [
            row["configuration"],
            f"{size_text(row[SIZE])} ({100 * row['size.byte_saving']:.1f} %)",
            size_text(row["size.total_bytes"]),
            cell_text(row),
            difference_text(row),
        ]
        for row in shown.to_dict("records")
    ]
    first = part[part.main].iloc[0]
    head = [
        "configuration",
        "embedding (saved)",
        "whole model",
        ", ".join(_heading(first.to_dict())),
        "difference to dense",
    ]
    return Grid(f"{first.title} on {first.suite}", head, rows, 4)


def budget_grid(part: pd.DataFrame) -> Grid:
    """Return a line per method, a column per budget: the largest embedding that fits in it and not in the budget before.

    It is chosen by its bytes alone, so that no score is picked because it is high. Empty without compressed embeddings.
    """
    methods: dict[str, dict[float, str]] = defaultdict(dict)
    main = part[part.main]
    for row in main[(main.body == "fp32") & (main.kind != "dense")].to_dict("records"):  # from the largest
        budget = next((budget for budget in BUDGETS if 1 - row["size.byte_saving"] <= budget), None)
        if budget is not None:
            name = row["kind"] if row["recovery"] == "none" else f"{row['kind']} + {row['recovery']}"
            methods[name].setdefault(budget, f"{row['configuration']}: {cell_text(row)}")
    used = [budget for budget in BUDGETS if any(budget in cells for cells in methods.values())]
    body = [[name, *(cells.get(budget, "") for budget in used)] for name, cells in sorted(methods.items())]
    head = ["method", *(f"at most {100 * budget:g} % of dense bytes" for budget in used)]
    first = main.iloc[0]
    heading = ", ".join(_heading(first.to_dict()))
    return Grid(f"{first.title} on {first.suite}: {heading}, by method and budget", head, body, len(used))


def _heading(column: dict[Any, Any]) -> list[str]:
    where = "" if pd.isna(column["headline.split"]) else f" on {column['headline.split']}"
    marks = [f"not official: {column['not_official']}"] if column["not_official"] else []
    return [language_name(column["task"]), f"{column['metric']}{where}".strip(), *marks]


def _count(count: float, saving: float = math.nan) -> str:
    if pd.isna(count):
        return "unknown"
    return f"{count:,.0f}" + ("" if pd.isna(saving) else f" ({100 * saving:.2f} %)")


def cell_text(row: dict[Any, Any]) -> str:
    """Return a score such as "70.1 ± 0.8*†", or why there is none; HOW_TO_READ says what the marks mean."""
    if row["no_score"]:
        return str(row["no_score"])
    differs = row["difference_ci95_low"] > 0 or row["difference_ci95_high"] < 0
    marks = ("*" if differs else "") + ("†" if row["collapsed"] else "")
    return f"{_estimate(row, 'mean', 'ci95')}{marks}"


def difference_text(row: dict[Any, Any]) -> str:
    """Return the difference to dense, such as "−5.7 ± 1.2", or why there is none; nothing for dense itself."""
    known = not row["no_score"] and not row["no_difference"] and row["paired_seeds"]
    return (
        _estimate(row, "difference_to_dense", "difference_ci95", "+") if known else str(row["no_difference"])
    )


def _estimate(row: dict[Any, Any], key: str, interval: str, sign: str = "") -> str:
    """Return a number ± half of its interval: one decimal of percent, three of other numbers."""
    digits = 1 if row["scale"] == 100 else 3
    half = (row[f"{interval}_high"] - row[f"{interval}_low"]) / 2
    return f"{row[key]:{sign}.{digits}f}".replace("-", "−") + (
        "" if pd.isna(half) else f" ± {half:.{digits}f}"
    )


def cautions(frame: pd.DataFrame) -> list[str]:
    """Return sentences (plain text) about everything that keeps a number from being the official score."""
    marked = sorted(set(zip(frame.task, frame.marks, strict=True)))
    sentences = [f"{task}: {mark}" for task, marks in marked for mark in marks]
    for model, weights in sorted(set(zip(frame.model, frame.weights, strict=True))):
        if weights != "pretrained":
            consequence = ", so no score is shown" if weights == "random" else ""
            sentences.append(f"{known_as(model)}: {weights_text(weights)}{consequence}")
    ok = frame[frame.status == "ok"]
    for column, part in ok.groupby("column"):
        digests = part["task.data_sha256"].dropna().nunique()
        sentences += [f"{column}: the data come from {digests} sources or versions"] if digests > 1 else []
    for _, part in ok.groupby(["model", "column"]):
        versions, first = sorted(map(str, set(part.training_version))), part.iloc[0]
        if len(versions) > 1:
            sentences.append(
                f"{known_as(first.model)} on {first.column}: trained by versions {', '.join(versions)} of the code; a run is compared "
                "with dense runs of its own version alone"
            )
    for column, count in sorted(Counter(ok.drop(headline_runs(frame).index).column).items()):
        sentences.append(f"{column}: {count} older run(s) of the same configuration and seed are left out")
    return sentences + ["some runs come from a working tree with uncommitted changes"] * bool(
        frame.dirty.any()
    )
