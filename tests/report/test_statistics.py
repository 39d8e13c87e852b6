"""Statistics against numpy and scipy, and by their defining properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.report.statistics import pareto_front, summarise

NUMBERS = st.floats(0, 100, allow_nan=False)


@given(st.lists(NUMBERS, min_size=2, max_size=12))
def test_summary_equals_scipy(values: list[float]) -> None:
    n, mean, sd, half = summarise(values)
    assert (n, mean) == (len(values), pytest.approx(np.mean(values)))
    assert sd == pytest.approx(np.std(values, ddof=1))
    if sd and sd > 1e-6:
        low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_spread_and_none_has_nothing() -> None:
    assert summarise([3.0]) == (1, 3.0, None, None)
    assert summarise([]) == (0, None, None, None)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=20))
def test_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    front = pareto_front([cost for cost, _ in points], [quality for _, quality in points])
    beaten = [
        any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points) for cost, quality in points
    ]
    assert {points[i] for i in front} == {point for point, lost in zip(points, beaten, strict=True) if not lost}
    assert [points[i][0] for i in front] == sorted({points[i][0] for i in front})
