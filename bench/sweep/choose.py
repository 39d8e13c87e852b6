"""`bench choose`: of a sweep's trials the best for each kind of table, written to a file that `tuned=<kind>` sets in any run."""

from pathlib import Path
from typing import Any

import pandas as pd

from bench import store
from bench.errors import BenchError, ConfigError
from bench.report.names import kind
from bench.runs.identity import Prepared
from bench.sweep.plan import UNDONE, Plan, check_held_out
from bench.sweep.select import value_of

KEYS = ["embedding.init", "training.learning_rate", "training.table_factor", "training.epochs"]


def choose(plan: Plan, folder: Path) -> pd.DataFrame:
    """Write the best trial of each kind of table to `folder/<kind>.yaml`, and return a row for each trial.

    A row has the kind, its value of each of KEYS, the headline of each task, their `mean`, which decides, and `chosen`. Of
    equal trials the first in the sweep is chosen; one with a failed run is not. Raises ConfigError where a run is scored on a
    reported split or kinds differ in their number of trials, and BenchError for runs without a record.
    """
    _check(plan)
    runs = pd.DataFrame([_row(run, plan) for run in plan.runs])
    by_task = runs.groupby(["kind", *KEYS, "task"], sort=False).score
    trials = by_task.agg(lambda scores: scores.mean(skipna=False)).unstack(sort=False)
    tasks = sorted(trials.columns)
    trials = trials[tasks].assign(mean=trials[tasks].mean(axis=1, skipna=False)).reset_index()

    # Every kind has the same number of trials, and one that did not fail.
    kinds = trials.groupby("kind", sort=False)["mean"]
    if kinds.size().nunique() > 1:
        numbers = ", ".join(f"{name} {number}" for name, number in kinds.size().items())
        raise ConfigError(
            f"The kinds of table differ in their number of trials ({numbers}): give each the same number."
        )
    if failed := [str(name) for name, number in kinds.count().items() if not number]:
        raise BenchError(f"No trial of {', '.join(failed)} has a score: `bench status` lists the failures.")

    trials["chosen"] = trials.index.isin(kinds.idxmax())
    for _, trial in trials[trials.chosen].iterrows():
        paths = [plan.path(run) for run in plan.runs if _kind(run) == trial.kind]
        digest = store.sha256("\n".join(path.read_text() for path in sorted(paths)))
        store.make_folder(folder)
        store.write_atomically(
            folder / f"{trial.kind}.yaml",
            f"# @package _global_\n# {trial.kind}: the best of {len(trials) // len(kinds)} trials of sweep={plan.sweep.name}, "
            f"by the mean of {', '.join(tasks)} ({trial['mean']:.4f}).\n# Written by `bench choose` from {len(paths)} "
            f"records, SHA-256 {digest}\n" + _yaml(trial),
        )
    return trials


def _check(plan: Plan) -> None:
    """Raise ConfigError for a run that is scored on a reported split, and BenchError for runs without a record."""
    for run in plan.runs:
        check_held_out(run.config.task)
    if undone := [run for run in plan.runs if plan.status(run) in UNDONE]:
        raise BenchError(
            f"{len(undone)} of {len(plan.runs)} runs of the sweep '{plan.sweep.name}' have no record, the first is "
            f"{undone[0].name}: `bench sweep sweep={plan.sweep.name}` runs them."
        )


def _kind(run: Prepared) -> str:
    embedding = run.canonical["embedding"]
    return f"int{embedding['bits']}" if embedding["name"] == "quantised" else kind(run.canonical)


def _row(run: Prepared, plan: Plan) -> dict[str, Any]:
    """Return the run's kind, settings, task and headline, which is missing if it failed."""
    headline = store.read(plan.path(run))["headline"] if plan.status(run) == "ok" else None
    score = headline["value"] if headline else float("nan")
    settings = {key: value_of(run.config, key) or "" for key in KEYS}
    return {"kind": _kind(run), **settings, "task": run.config.task.name, "score": score}


def _yaml(trial: "pd.Series[Any]") -> str:
    """Return the trial's settings as a configuration."""
    lines: dict[str, list[str]] = {}
    for key in KEYS:
        group, _, name = key.partition(".")
        if trial[key]:  # the dense and the quantised tables have no initialisation
            lines.setdefault(group, []).append(f"{name}: {trial[key]}")
    return "".join(f"{group}: {{{', '.join(pairs)}}}\n" for group, pairs in lines.items())
