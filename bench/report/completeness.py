"""Which runs there are and which are missing: seed by seed, counted, and in a sentence."""

import pandas as pd

from bench.report.runs import SECTION, headline_runs, section_of
from bench.report.tables import as_markdown
from bench.store import STATUSES
from bench.text import escape, markdown_table


def completeness(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each model, task and configuration: the seeds of each status, and those that only others have."""
    counted = headline_runs(frame)
    collapsed = (
        counted[counted["training.collapsed"].eq(True)].groupby([*SECTION, "column", "config_id"]).size()
    )
    lines = []
    for (*section, column), on_task in frame.groupby([*SECTION, "column"]):
        seeds = on_task.groupby(["config_id", "status"]).seed.agg(set)
        labels = section_of(frame, on_task).drop_duplicates("config_id")
        for config_id, label in zip(labels.config_id, labels.configuration, strict=True):
            by_status = {status: seeds.get((config_id, status), set()) for status in STATUSES}
            by_status["missing"] = set(on_task.seed).difference(*by_status.values())
            texts = {status: " ".join(map(str, sorted(numbers))) for status, numbers in by_status.items()}
            line = dict(zip(SECTION, section, strict=True)) | {"task": column, "configuration": label} | texts
            lines.append(line | {"collapsed": int(collapsed.get((*section, column, config_id), 0))})
    return pd.DataFrame(lines)


def begun(lines: pd.DataFrame) -> pd.Series:
    """Return which lines of `completeness` have a run."""
    return (lines[list(STATUSES)] != "").any(axis=1)


def counts(lines: pd.DataFrame) -> str:
    """Return a Markdown table: for each model and task how many configurations have a run, and the number of runs of each status."""
    counted = []
    for names, every in lines.groupby([*SECTION, "task"]):
        part = every[begun(every)]
        counts = [sum(len(seeds.split()) for seeds in part[status]) for status in (*STATUSES, "missing")]
        shares = [f"{len(part)} of {len(every)}", f"{counts[0]} of {sum(counts)}"]
        counted.append([*map(escape, names), *shares, *map(str, counts[1:]), str(part.collapsed.sum())])
    head = [*SECTION, "task", "configurations", "ok", *STATUSES[1:], "missing", "collapsed"]
    return markdown_table(head, counted, 9)


def gaps(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of `completeness` that have a run and lack another: it did not finish, or only other configurations have it."""
    return lines[begun(lines) & (lines[[*STATUSES[1:], "missing"]] != "").any(axis=1)]


def summary(lines: pd.DataFrame) -> str:
    """Return a sentence with the numbers of runs that finished, did not finish, and are missing."""
    part = lines[begun(lines)]
    ok, *broken, missing = (sum(map(len, part[key].str.split())) for key in (*STATUSES, "missing"))
    return f"Runs: {ok:,} finished, {sum(broken):,} did not; seeds that only other configurations have: {missing:,}."


def page(lines: pd.DataFrame) -> str:
    """Return the Markdown page of `completeness`, what is not complete first."""
    late = gaps(lines)
    first = (
        "## Not complete\n\nA seed is missing if another configuration has it on the task. A sweep may plan fewer seeds for some "
        f"configurations; `make status` shows its plan.\n\n{as_markdown(late)}\n## All\n\n"
    )
    return f"# Completeness (seeds)\n\n{first if len(late) else ''}{as_markdown(lines)}"
