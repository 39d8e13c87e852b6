"""A cell of the score table: a configuration's score in a column, its difference to dense, their intervals and tests."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bench import statistics
from bench.statistics import NOTHING, Summary, summarise


class Scores(NamedTuple):
    """A configuration's scores in a column: seed -> a number for each task, and seed -> (draws,) for each task where known."""

    by_seed: dict[int, list[float]]
    replicates: dict[int, list[np.ndarray]]


def by_seed(
    values: dict[Any, dict[int, Any]], config_id: Any, tasks: tuple[str, ...]
) -> dict[int, list[Any]]:
    """Return seed -> the tasks' scores or replicates, for the seeds that every task has."""
    scores = [values.get((config_id, task), {}) for task in tasks]
    return {seed: [task[seed] for task in scores] for seed in sorted(set.intersection(*map(set, scores)))}


def paired(ours: dict[int, list[float]], theirs: dict[int, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return two configurations' scores (tasks, seeds) over the seeds that both have, from `by_seed` of the same column."""
    seeds = [seed for seed in ours if seed in theirs]
    return np.array([ours[seed] for seed in seeds]).T, np.array([theirs[seed] for seed in seeds]).T


def cell_of(ours: Scores, dense: Scores | None, column: dict[str, Any], margin: float) -> dict[str, Any]:
    """Return score, difference to dense and percent of dense with their intervals, and the test against the margin.

    Differences are over the seeds that both have. Intervals are over seeds and rows where all these runs have replicates, else over
    seeds, else, with a single seed, over the evaluation rows.
    """
    rows, by_seed, draws = column["rows"], ours.by_seed, _replicates(ours, [*ours.by_seed])
    score, change, share, p = summarise(np.array(list(by_seed.values())).T, draws), NOTHING, NOTHING, None
    if score.n == 1 and rows and draws is None:
        score = statistics.over_rows(rows, np.array(*by_seed.values()) / 100).times(100)
    if dense is not None:
        values, theirs = paired(by_seed, dense.by_seed)
        both = [seed for seed in by_seed if seed in dense.by_seed]
        draws, dense_draws = _replicates(ours, both), _replicates(dense, both)
        lost = None if draws is None or dense_draws is None else draws - dense_draws
        change, sign = summarise(values - theirs, lost), 1 if column["higher_is_better"] else -1
        if column["higher_is_better"] and (ratio := statistics.ratio(values, theirs)):
            shares = None if draws is None or dense_draws is None else 100 * ratio(draws, dense_draws)
            share = summarise(100 * ratio(values, theirs), shares)
        if column["scale"] == 100:
            p = statistics.p_noninferiority(sign * (values - theirs), margin, lost)
        if change.n == 1 and rows and lost is None:
            fractions = values[:, 0] / 100, theirs[:, 0] / 100
            change = statistics.over_rows(rows, *fractions).times(100)
            p = statistics.p_noninferiority_over_rows(rows, *fractions, margin / 100)
    return {
        "by_seed": by_seed,
        "n": score.n,
        "mean": score.mean,
        "sd": score.sd,
        **_interval("ci95", score),
        "seeds": " ".join(map(str, by_seed)),
        "difference_to_dense": change.mean,
        "difference_sd": change.sd,
        **_interval("difference_ci95", change),
        "difference_error": change.error,
        "difference_freedom": change.freedom,
        "percent_of_dense": share.mean,
        **_interval("percent_ci95", share),
        "p_noninferiority": p,
        "paired_seeds": change.n,
    }


def _replicates(ours: Scores, seeds: Sequence[int]) -> np.ndarray | None:
    """Return the replicates (tasks, seeds, draws) of the seeds, or None where one has none."""
    known = [ours.replicates[seed] for seed in seeds if seed in ours.replicates]
    return np.array(known).swapaxes(0, 1) if known and len(known) == len(seeds) else None


def _interval(name: str, summary: Summary) -> dict[str, Any]:
    return {f"{name}_low": summary.low, f"{name}_high": summary.high, f"{name}_is": summary.interval}
