"""The statistics of the report, on plain numbers.

There are two kinds of interval. Over seeds (Student's t): the result with other seeds. Over rows, with a single seed: the
result on other evaluation rows.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm, t


class Summary(NamedTuple):
    """Summary of several seeds."""

    n: int  # seeds
    mean: float | None
    sd: float | None  # sample standard deviation over seeds (n - 1); None below two
    low: float | None  # ends of the 95 % interval of the mean
    high: float | None
    interval: str  # name of the interval; empty if there is none

    @property
    def half(self) -> float | None:
        """Return half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def times(self, factor: float) -> "Summary":
        """Return the summary of the values multiplied by `factor`, which is positive."""
        mean, sd, low, high = (None if value is None else factor * value for value in self[1:5])
        return Summary(self.n, mean, sd, low, high, self.interval)


NOTHING = Summary(0, None, None, None, None, "")


def summarise(values: ArrayLike) -> Summary:
    """Return mean, standard deviation and 95 % interval of one task's values (seeds,), or of the mean over (tasks, seeds).

    One seed has neither spread nor interval. Equal seeds have no interval, as one of width 0 would claim certainty.
    """
    data = np.atleast_2d(np.asarray(values, dtype=float))
    tasks, seeds = data.shape
    if not data.size:
        return NOTHING
    by_seed = data.mean(axis=0)
    mean = float(by_seed.mean())
    if seeds == 1:
        return Summary(1, mean, None, None, None, "")
    sd, (error, freedom) = float(by_seed.std(ddof=1)), _error(data)
    if not error:
        return Summary(seeds, mean, sd, None, None, "")
    low, high = map(float, t.interval(0.95, freedom, mean, error))
    name = "Student's t over" if tasks == 1 else f"Welch's t over {tasks} tasks and"
    return Summary(seeds, mean, sd, low, high, f"{name} {seeds} seeds")


def probability_below(values: ArrayLike, level: float) -> float | None:
    """Return the probability that the true mean of `values`, (seeds,) or (tasks, seeds), lies below `level`.

    The distribution is that of the interval of `summarise`. None with fewer than two seeds.
    """
    data = np.atleast_2d(np.asarray(values, dtype=float))
    if data.size == 0 or data.shape[1] == 1:
        return None
    error, freedom = _error(data)
    return float(t.cdf(level, freedom, data.mean(), error) if error else data.mean() < level)


def _error(data: np.ndarray) -> tuple[float, float]:
    """Return the standard error of the mean of (tasks, seeds) and its degrees of freedom, after Welch and Satterthwaite.

    Tasks are fixed and their seeds independent, so the tasks' variances add up. With one task this is Student's n - 1.
    """
    tasks, seeds = data.shape
    variance = np.where(np.ptp(data, axis=1) > 0, data.var(axis=1, ddof=1) / seeds, 0)
    if not variance.any():
        return 0.0, math.nan
    shares = variance / variance.sum()
    return math.sqrt(variance.sum()) / tasks, (seeds - 1) / float((shares**2).sum())


def ratio(scores: np.ndarray, dense: np.ndarray) -> np.ndarray | None:
    """Return values (tasks, seeds) with mean mean(scores) / mean(dense) and the spread of this ratio (delta method).

    None if the dense mean is not positive.
    """
    if not (dense.size and dense.mean() > 0):
        return None
    share = scores.mean() / dense.mean()
    values: np.ndarray = share + (scores - share * dense) / dense.mean()
    return values


def over_rows(rows: Sequence[int], scores: ArrayLike, dense: ArrayLike | None = None) -> Summary:
    """Return the mean over tasks of one seed's accuracies (tasks,), or of their differences to dense's, with its 95 % interval.

    Each accuracy has Wilson's interval over its `rows`. The squares of the distances from estimates to their intervals' ends
    add up, as squared standard errors do (MOVER; Zou & Donner, Stat. Med. 27:1693, 2008); for one difference that is Newcombe's
    hybrid score interval (1998, method 10). It treats both answers to a row as independent; they agree more often, so the
    interval is rather too wide.
    """
    values = np.asarray(scores, dtype=float)
    below, above = _wilson(values, rows)
    if dense is not None:
        values = values - np.asarray(dense, dtype=float)
        dense_below, dense_above = _wilson(np.asarray(dense, dtype=float), rows)
        below, above = np.hypot(below, dense_above), np.hypot(above, dense_below)
    tasks, mean = len(values), float(values.mean())
    name = f"{'Wilson' if dense is None else 'Newcombe'} over {rows[0]:,} rows, 1 seed"
    if tasks > 1:
        name = f"MOVER over {tasks} tasks: sampling of the evaluation rows, one seed"
    low, high = mean - np.linalg.norm(below) / tasks, mean + np.linalg.norm(above) / tasks
    return Summary(1, mean, None, float(low), float(high), name)


def _wilson(shares: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances from each share of its rows down and up to the ends of Wilson's interval."""
    counts = [(round(share * many), many) for share, many in zip(shares, rows, strict=True)]
    ends = [binomtest(*count).proportion_ci(method="wilson") for count in counts]
    estimates = np.array([right / many for right, many in counts])
    return estimates - [end.low for end in ends], np.array([end.high for end in ends]) - estimates


def probability_below_over_rows(rows: ArrayLike, scores: ArrayLike, dense: ArrayLike, level: float) -> float:
    """Return the probability that the mean difference of accuracies (tasks,) of one seed lies below `level` (normal approximation)."""
    values, reference = np.asarray(scores, dtype=float), np.asarray(dense, dtype=float)
    variance = (values * (1 - values) + reference * (1 - reference)) / np.asarray(rows)
    error, difference = math.sqrt(variance.sum()) / values.size, float((values - reference).mean())
    return float(norm.cdf(level, difference, error) if error else difference < level)


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Return the indices of the Pareto front, cheapest first: lower cost and higher quality are better.

    Of equal points the first is kept.
    """
    front: list[int] = []
    for index in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i], i)):
        if not front or quality[index] > quality[front[-1]]:
            front.append(index)
    return front


def knee(cost: Sequence[float], quality: Sequence[float]) -> int | None:
    """Return the index where a front, cheapest first, bends most; None below three points and without a bend.

    The point lies furthest above the line from the first to the last point, with logarithmic costs and both axes scaled
    to 0..1 (Satopää et al., Kneedle, 2011).
    """
    if len(cost) < 3:
        return None
    x, y = np.log(cost), np.asarray(quality, dtype=float)
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(above.argmax()) if above.max() > 1e-9 else None
