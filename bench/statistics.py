"""The statistics of the report, on plain numbers.

There are three kinds of interval. Over seeds (Student's t): the result with other seeds. Over rows, with a single seed: the
result on other evaluation rows. Over both, where predictions are there (`replicates`): the result with other seeds on other rows.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap, norm, rankdata, t

DRAWS = 1000  # of the evaluation rows: a standard error is then known to 2 %


class Summary(NamedTuple):
    """Summary of several seeds."""

    n: int  # seeds
    mean: float | None
    sd: float | None  # sample standard deviation over seeds (n - 1); None below two
    low: float | None  # ends of the 95 % interval of the mean
    high: float | None
    interval: str  # name of the interval; empty if there is none
    error: float | None = None  # standard error of the mean over several seeds, and its degrees of freedom
    freedom: float | None = None

    @property
    def half(self) -> float | None:
        """Return half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def times(self, factor: float) -> "Summary":
        """Return the summary of the values multiplied by `factor`, which is positive."""
        mean, sd, low, high = (None if value is None else factor * value for value in self[1:5])
        return Summary(self.n, mean, sd, low, high, self.interval)


NOTHING = Summary(0, None, None, None, None, "")


def summarise(values: ArrayLike, replicates: np.ndarray | None = None) -> Summary:
    """Return mean, standard deviation and 95 % interval of one task's values (seeds,), or of the mean over (tasks, seeds).

    `replicates` (tasks, seeds, draws) are the values on evaluation rows drawn with replacement, the same for all seeds of a task:
    the interval is then over seeds and rows. Without them, one seed has no interval, and equal seeds have none, as one of
    width 0 would claim certainty.
    """
    data = np.atleast_2d(np.asarray(values, dtype=float))
    tasks, seeds = data.shape
    if not data.size:
        return NOTHING
    by_seed = data.mean(axis=0)
    mean, (error, freedom) = float(by_seed.mean()), _error(data, replicates)
    sd = float(by_seed.std(ddof=1)) if seeds > 1 else None
    spread = (error, freedom if error else 1.0) if seeds > 1 else ()
    if not error:
        return Summary(seeds, mean, sd, None, None, "", *spread)
    low, high = map(float, t.interval(0.95, freedom, mean, error))
    name = "Student's t over" if tasks == 1 else f"Welch's t over {tasks} tasks and"
    name = f"{name} {seeds} seeds" if seeds > 1 else f"1 seed{f', {tasks} tasks' * (tasks > 1)}"
    name += ", bootstrap over rows" * (replicates is not None)
    return Summary(seeds, mean, sd, low, high, name, *spread)


def p_noninferiority(values: ArrayLike, margin: float, replicates: np.ndarray | None = None) -> float | None:
    """Return the p-value of the hypothesis that the true mean of differences (tasks, seeds) is `margin` below 0, or further.

    Higher is better. Below 0.05 the one-sided 95 % interval of the loss ends before the margin: the one of the two one-sided
    tests of equivalence (TOST; Schuirmann 1987) that asks whether something is worse. It has the distribution of the interval
    of `summarise` and is no probability of a loss. None where neither seeds nor `replicates` give a spread; without any
    spread among several seeds it is 0 or 1.
    """
    data = np.atleast_2d(np.asarray(values, dtype=float))
    if data.size == 0 or (data.shape[1] == 1 and replicates is None):
        return None
    error, freedom = _error(data, replicates)
    return float(t.cdf(-margin, freedom, data.mean(), error) if error else data.mean() < -margin)


def _error(data: np.ndarray, replicates: np.ndarray | None = None) -> tuple[float, float]:
    """Return the standard error of the mean of (tasks, seeds) and its degrees of freedom, after Welch and Satterthwaite.

    Tasks are fixed, their seeds and rows independent, so variances add up. With one task and no `replicates` the freedom is
    Student's n - 1.
    """
    # The seeds' part, on the rows that are there.
    tasks, seeds = data.shape
    variance = np.zeros(tasks)
    if seeds > 1:
        variance = np.where(np.ptp(data, axis=1) > 0, data.var(axis=1, ddof=1) / seeds, 0)

    # The rows' part: the spread of the seeds' mean over draws of rows. What rows do to single seeds is in both parts, so that the
    # interval is rather too wide; to take it out of one made intervals of 3 seeds cover 0.924 to 0.952 in simulation, and not
    # 0.930 to 0.987. Percentiles of draws of seeds and rows together cover 0.70 to 1.00 with 3 seeds: they know no Student's t.
    rows = np.zeros(tasks) if replicates is None else replicates.mean(axis=1).var(axis=1, ddof=1)

    total = variance.sum() + rows.sum()
    if not total:
        return 0.0, math.nan
    shares = float(((variance / total) ** 2).sum())
    return math.sqrt(total) / tasks, (seeds - 1) / shares if shares else math.inf


@lru_cache(maxsize=2)
def row_draws(rows: int) -> np.ndarray:
    """Return how often each of `rows` is drawn in DRAWS samples with replacement, (DRAWS, rows), always the same.

    Scores of different models on these draws are therefore paired.
    """
    rng = np.random.default_rng(rows)
    return rng.multinomial(rows, np.full(rows, 1 / rows), DRAWS).astype(np.float32)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return the p-values (tests,) adjusted for their number (Holm, Scand. J. Stat. 6:65, 1979).

    Rejecting those below 0.05 rejects any true hypothesis of the family in 5 % of families at most.
    """
    p = np.asarray(p_values, dtype=float)
    order = p.argsort()
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def ratio(scores: np.ndarray, dense: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return a function of scores and dense scores (tasks, seeds), or their replicates, that linearises the ratio of the means.

    Its values have the mean mean(scores) / mean(dense) and the spread of this ratio (delta method). None if the dense mean is not
    positive.
    """
    if not (dense.size and dense.mean() > 0):
        return None
    mean, share = dense.mean(), scores.mean() / dense.mean()
    return lambda ours, theirs: np.asarray(share + (ours - share * theirs) / mean)


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
    low, high = np.array([_wilson_ends(*count) for count in counts]).T
    estimates = np.array([right / many for right, many in counts])
    return estimates - low, high - estimates


@cache  # binomtest computes a p-value, too, which takes a millisecond
def _wilson_ends(right: int, many: int) -> tuple[float, float]:
    low, high = binomtest(right, many).proportion_ci(method="wilson")
    return low, high


def p_noninferiority_over_rows(rows: ArrayLike, scores: ArrayLike, dense: ArrayLike, margin: float) -> float:
    """Return the p-value of `p_noninferiority` for accuracies (tasks,) of one seed over their `rows` (normal approximation)."""
    values, reference = np.asarray(scores, dtype=float), np.asarray(dense, dtype=float)
    variance = (values * (1 - values) + reference * (1 - reference)) / np.asarray(rows)
    error, difference = math.sqrt(variance.sum()) / values.size, float((values - reference).mean())
    return float(norm.cdf(-margin, difference, error) if error else difference < -margin)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> Summary:
    """Return Spearman's correlation of paired values (n,), with its 95 % percentile bootstrap interval over the pairs.

    No interval below six pairs: of unrelated values it would leave out 0 in a tenth of the cases for five (measured), for
    six and fifteen in a twentieth or less. None where either does not vary.
    """
    pairs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    count = len(pairs[0])
    if any(len(np.unique(values)) < 2 for values in pairs):
        return NOTHING
    value = float(_spearman(*pairs))
    if count < 6:
        return Summary(count, value, None, None, None, "")
    drawn = bootstrap(pairs, _spearman, paired=True, n_resamples=999, method="percentile", rng=0)
    low, high = map(float, drawn.confidence_interval)
    return Summary(count, value, None, low, high, f"bootstrap over {count} pairs")


def _spearman(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Pearson's correlation of the ranks along the axis; 0 where either does not vary."""
    ranks = [rankdata(values, axis=axis) for values in (first, second)]
    x, y = (rank - rank.mean(axis, keepdims=True) for rank in ranks)
    spread = np.sqrt((x * x).sum(axis) * (y * y).sum(axis))
    shared: np.ndarray = np.divide((x * y).sum(axis), spread, out=np.zeros_like(spread), where=spread > 0)
    return shared


def pareto_front(cost: Sequence[float], quality: Sequence[float], apart: float = 1.0) -> list[int]:
    """Return the indices of the Pareto front, cheapest first: lower cost and higher quality are better.

    Of equal points the first is kept; of points whose costs differ by a ratio of at most `apart` the best is kept.
    """
    front: list[int] = []
    for index in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i], i)):
        if not front or quality[index] > quality[front[-1]]:
            front.append(index)

    # The best come last, so that each takes the place of those just below it.
    kept: list[int] = []
    for index in reversed(front):
        if not kept or cost[kept[-1]] > apart * cost[index]:
            kept.append(index)
    return kept[::-1]
