"""The statistics of the report. Every function takes plain numbers and knows nothing of records."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit  # quantile of Student's t; scipy.stats takes a second to import


class Summary(NamedTuple):
    """Several seeds in four numbers."""

    n: int
    mean: float | None
    sd: float | None  # sample standard deviation (n - 1); None below two values
    half: float | None  # half-width of the 95 % interval of the mean; None below two values


def summarise(values: Sequence[float]) -> Summary:
    """Return mean, sample standard deviation and the half-width t(0.975, n-1) * sd / sqrt(n) (Student's interval)."""
    n = len(values)
    if n == 0:
        return Summary(0, None, None, None)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, None, None)
    sd = float(np.std(values, ddof=1))
    return Summary(n, mean, sd, float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n))


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Return the indices that no other point beats, cheapest first: less cost and more quality are better.

    Of points that are equal in both, the first is kept.
    """
    front: list[int] = []
    for index in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i], i)):
        if not front or quality[index] > quality[front[-1]]:
            front.append(index)
    return front
