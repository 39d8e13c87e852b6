"""The statistics of the report. Every function takes plain numbers and knows nothing of records."""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # scipy.stats takes a second to import

DRAWS = 4000  # of the bootstrap
Z = float(ndtri(0.975))
Grid = np.ndarray  # of floats: (tasks, seeds)


class Summary(NamedTuple):
    """Several seeds in a few numbers."""

    n: int  # seeds
    mean: float | None
    sd: float | None  # sample standard deviation over seeds (n - 1); None below two
    low: float | None  # ends of the 95 % interval of the mean
    high: float | None
    interval: str  # which interval that is; empty where there is none

    @property
    def half(self) -> float | None:
        """Return half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


NOTHING = Summary(0, None, None, None, None, "")


def summarise(values: ArrayLike) -> Summary:
    """Return mean, standard deviation and 95 % interval of one task's values (seeds,), or of the mean of (tasks, seeds).

    One task: Student's interval, t(0.975, n - 1) * sd / sqrt(n). Several: stratified bootstrap, see `_resampled`. One seed
    has neither spread nor interval; seeds that do not differ have no interval.
    """
    data = np.atleast_2d(np.asarray(values, dtype=float))
    tasks, seeds = data.shape
    if not data.size:
        return NOTHING
    by_seed = data.mean(axis=0)
    mean = float(by_seed.mean())
    if seeds == 1:
        return Summary(1, mean, None, None, None, "")
    sd = float(by_seed.std(ddof=1))
    if (
        data == data[:, :1]
    ).all():  # such as collapsed runs: an interval without width would claim to be sure
        return Summary(seeds, mean, sd, None, None, "")
    if tasks == 1:
        half = float(stdtrit(seeds - 1, 0.975)) * sd / math.sqrt(seeds)
        return Summary(seeds, mean, sd, mean - half, mean + half, f"Student's t over {seeds} seeds")
    low, high = map(float, np.quantile(_resampled(data), (0.025, 0.975)))
    return Summary(seeds, mean, sd, low, high, f"stratified bootstrap over {tasks} tasks and {seeds} seeds")


def probability_below(values: ArrayLike, level: float) -> float | None:
    """Return the probability that the mean which `values` (seeds,) or (tasks, seeds) estimate lies below `level`.

    By the distributions that give the intervals of `summarise`; None with fewer than two seeds.
    """
    data = np.atleast_2d(np.asarray(values, dtype=float))
    tasks, seeds = data.shape
    if data.size == 0 or seeds == 1:
        return None
    if tasks > 1:
        return float((_resampled(data) < level).mean())
    error = float(data.std(ddof=1)) / math.sqrt(seeds)
    return float(stdtr(seeds - 1, (level - data.mean()) / error)) if error else float(data.mean() < level)


def _resampled(data: Grid) -> np.ndarray:
    """Return means of DRAWS samples of (tasks, seeds) that take each task's seeds with replacement (Agarwal et al., NeurIPS 2021).

    Few seeds make plain resampling too narrow: deviations are widened by sqrt(n / (n - 1)), for the variance, and by Student's
    quantile over the normal one, for not knowing it (degrees of freedom after Welch and Satterthwaite).
    """
    tasks, seeds = data.shape
    variance = data.var(axis=1, ddof=1)
    if not variance.any():
        return np.full(DRAWS, data.mean())
    freedom = variance.sum() ** 2 / (variance**2 / (seeds - 1)).sum()
    wider = math.sqrt(seeds / (seeds - 1)) * stdtrit(freedom, 0.975) / Z
    deviations = data - data.mean(axis=1, keepdims=True)
    drawn = np.take_along_axis(deviations[None], _draws(tasks, seeds), axis=2).mean(axis=(1, 2))
    means: np.ndarray = data.mean() + wider * drawn
    return means


@cache
def _draws(tasks: int, seeds: int) -> np.ndarray:
    return np.random.default_rng(0).integers(seeds, size=(DRAWS, tasks, seeds))


def ratio(own: Grid, dense: Grid) -> Grid | None:
    """Return values (tasks, seeds) whose mean is mean(own) / mean(dense) and whose spread is that of this ratio (delta method).

    None where the dense mean is not above zero.
    """
    if not (dense.size and dense.mean() > 0):
        return None
    share = own.mean() / dense.mean()
    values: Grid = share + (own - share * dense) / dense.mean()
    return values


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of `rows` independent answers."""
    centre, scale = share + Z**2 / (2 * rows), 1 + Z**2 / rows
    half = Z * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return (centre - half) / scale, (centre + half) / scale


def of_one_seed(share: float, rows: int) -> Summary:
    """Return the summary of one accuracy: binomial, so it speaks of other rows, not of other seeds."""
    return Summary(1, share, None, *wilson(share, rows), f"Wilson over {rows:,} rows, 1 seed")


def difference_of_one_seed(own: float, dense: float, rows: int) -> Summary:
    """Return the difference of two accuracies on the same rows, with Newcombe's hybrid score interval (1998, method 10).

    It takes the two as independent; answers to the same rows agree more than that, so it is rather too wide.
    """
    (own_low, own_high), (dense_low, dense_high) = wilson(own, rows), wilson(dense, rows)
    low = own - dense - math.hypot(own - own_low, dense_high - dense)
    high = own - dense + math.hypot(own_high - own, dense - dense_low)
    return Summary(1, own - dense, None, low, high, f"Newcombe over {rows:,} rows, 1 seed")


def mean_of_one_seed(tasks: Sequence[Summary]) -> Summary:
    """Return the mean of the tasks' estimates, which are of one seed and independent, with an interval recovered from theirs.

    MOVER (Zou & Donner, Stat. Med. 27:1693, 2008): distances of ends from estimates stand for standard errors, so their squares
    add up: low = mean - sqrt(sum of (estimate - its low)^2) / tasks, high likewise. One task keeps its own interval. Needs intervals.
    """
    if len(tasks) == 1:
        return tasks[0]
    ends = np.array([(task.low, task.mean, task.high) for task in tasks], dtype=float)
    below, above = np.sqrt((np.diff(ends) ** 2).sum(axis=0)) / len(tasks)
    mean, name = (
        float(ends[:, 1].mean()),
        f"MOVER over {len(tasks)} tasks: sampling of the evaluation rows, one seed",
    )
    return Summary(1, mean, None, mean - float(below), mean + float(above), name)


def probability_below_of_one_seed(own: ArrayLike, dense: ArrayLike, rows: ArrayLike, level: float) -> float:
    """Return the probability that the mean difference of accuracies (tasks,) lies below `level`, by the normal approximation."""
    one, other = np.asarray(own, dtype=float), np.asarray(dense, dtype=float)
    error = math.sqrt(((one * (1 - one) + other * (1 - other)) / np.asarray(rows)).sum()) / one.size
    difference = float((one - other).mean())
    return float(ndtr((level - difference) / error)) if error else float(difference < level)


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Return the indices that no other point beats, cheapest first: less cost and more quality are better.

    Of points that are equal in both, the first is kept.
    """
    front: list[int] = []
    for index in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i], i)):
        if not front or quality[index] > quality[front[-1]]:
            front.append(index)
    return front


def knee(cost: Sequence[float], quality: Sequence[float]) -> int | None:
    """Return the index at which a front, cheapest first, bends most; None below three points or where it does not bend.

    It lies furthest above the line from the first to the last point, with costs as logarithms and both scaled to 0..1
    (Satopää et al., Kneedle, 2011).
    """
    if len(cost) < 3:
        return None
    x, y = np.log(cost), np.asarray(quality, dtype=float)
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(above.argmax()) if above.max() > 1e-9 else None
