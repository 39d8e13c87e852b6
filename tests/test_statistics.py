"""Statistics against numpy and scipy, by simulation, and by their defining properties."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench import statistics
from bench.statistics import (
    Summary,
    over_rows,
    p_noninferiority,
    p_noninferiority_over_rows,
    pareto_front,
    summarise,
)

NUMBERS = st.floats(0, 100, allow_nan=False)


@given(st.lists(NUMBERS, min_size=2, max_size=12))
def test_one_task_equals_scipy(values: list[float]) -> None:
    found = summarise(values)
    n = len(values)
    assert (found.n, found.mean) == (n, pytest.approx(np.mean(values)))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    if len(set(values)) == 1:
        assert (found.low, found.high, found.interval) == (None, None, "")
    if found.sd and found.sd > 1e-6:
        spread = {"loc": np.mean(values), "scale": stats.sem(values)}
        assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, n - 1, **spread))
        assert p_noninferiority(values, -50.0) == pytest.approx(stats.t.cdf(50.0, n - 1, **spread))


def test_one_value_has_no_spread_and_none_has_nothing() -> None:
    assert summarise([3.0]) == Summary(1, 3.0, None, None, None, "")
    assert summarise([]) == Summary(0, None, None, None, None, "")
    assert p_noninferiority([3.0], -4) is None
    assert p_noninferiority([3.0, 3.0], -4) == 1 and p_noninferiority([[3.0, 3.0], [3.0, 3.0]], -2) == 0


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 3), (2, 2), (8, 2), (8, 3), (5, 10)])
def test_intervals_cover_the_true_mean_as_often_as_they_say(tasks: int, seeds: int) -> None:
    rng = np.random.default_rng(1)
    means, spreads = np.linspace(50, 90, tasks)[:, None], np.linspace(0.5, 3, tasks)[:, None]
    repeats = 600
    covered = np.zeros(repeats)
    for index in range(repeats):
        found = summarise(rng.normal(means, spreads, (tasks, seeds)))
        assert found.low is not None and found.high is not None
        covered[index] = found.low <= means.mean() <= found.high
    # 600 repeats distinguish 0.95 from 0.925. Two seeds a task are rather too careful: 0.981 in 40,000 repeats of 8 tasks.
    assert 0.925 <= covered.mean() <= (0.985 if seeds > 2 else 0.99)


def test_the_mean_over_tasks_has_no_spread_between_tasks_and_says_what_it_is() -> None:
    found = summarise([[10.0, 12.0, 11.0], [90.0, 92.0, 91.0]])
    assert found.mean == 51 and found.low is not None and found.high is not None
    assert 48 < found.low < 51 < found.high < 54
    assert found.interval == "Welch's t over 2 tasks and 3 seeds"
    assert found == summarise([[10.0, 12.0, 11.0], [90.0, 92.0, 91.0]]), (
        "the same numbers give the same interval"
    )
    near = p_noninferiority([[10.0, 12.0, 11.0], [90.0, 92.0, 91.0]], -found.low)
    assert near is not None and 0 < near <= 0.026


@pytest.mark.parametrize(("tasks", "seeds"), [(2, 2), (5, 3)])
def test_a_mean_over_tasks_has_the_error_and_freedom_of_welch(tasks: int, seeds: int) -> None:
    """Of two tasks that is the distribution of scipy's test for a sum of two means, with the second's sign turned."""
    values = np.random.default_rng(2).normal(70, np.linspace(1, 3, tasks)[:, None], (tasks, seeds))
    errors = values.var(axis=1, ddof=1) / seeds
    freedom = errors.sum() ** 2 / (errors**2 / (seeds - 1)).sum()
    found, spread = summarise(values), np.sqrt(errors.sum()) / tasks
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, freedom, values.mean(), spread))
    if tasks == 2:
        wanted = stats.ttest_ind(values[0], -values[1], equal_var=False).confidence_interval()
        assert (found.low, found.high) == pytest.approx((wanted.low / 2, wanted.high / 2))


@given(st.integers(0, 400), st.integers(1, 400))
def test_binomial_intervals_equal_scipy(right: int, rows: int) -> None:
    right = min(right, rows)
    wanted = stats.binomtest(right, rows).proportion_ci(method="wilson")
    found = over_rows([rows], [right / rows])
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert found.interval == f"Wilson over {rows:,} rows, 1 seed" and found.mean == right / rows


def wilson(right: int, rows: int) -> tuple[float, float]:
    found = stats.binomtest(right, rows).proportion_ci(method="wilson")
    return found.low, found.high


def test_difference_of_one_seed_joins_both_wilson_intervals() -> None:
    found = over_rows([80], [0.7], [0.6])
    (low, high), (other_low, other_high) = wilson(56, 80), wilson(48, 80)
    assert found.interval == "Newcombe over 80 rows, 1 seed"
    assert found.low == pytest.approx(0.1 - np.sqrt((0.7 - low) ** 2 + (other_high - 0.6) ** 2))
    assert found.high == pytest.approx(0.1 + np.sqrt((high - 0.7) ** 2 + (0.6 - other_low) ** 2))
    error = np.sqrt((0.7 * 0.3 + 0.6 * 0.4) / 80)
    assert p_noninferiority_over_rows([80], [0.7], [0.6], -0.05) == pytest.approx(
        stats.norm.cdf((0.05 - 0.1) / error)
    )


SHARES = [
    (0.93, 872),
    (0.62, 71),
    (0.71, 408),
    (0.98, 277),
    (0.55, 1000),
]  # accuracy and rows, as of GLUE's tasks


def drawn(rng: np.random.Generator, share: float, rows: int) -> float:
    """Return the accuracy on so many rows drawn at random."""
    return float(rng.binomial(rows, share)) / rows


@pytest.mark.parametrize("tasks", [2, 5])
def test_the_interval_of_a_mean_of_one_seed_covers_as_often_as_it_says(tasks: int) -> None:
    rng, repeats = np.random.default_rng(3), 2000
    shares, rows = zip(*SHARES[:tasks], strict=True)
    worse = [share - 0.05 for share in shares]
    covered = np.zeros((2, repeats))
    for index in range(repeats):
        own, dense = (
            [drawn(rng, *pair) for pair in zip(true, rows, strict=True)] for true in (worse, shares)
        )
        found = over_rows(rows, own), over_rows(rows, own, dense)
        for kind, (one, true) in enumerate(zip(found, (np.mean(worse), -0.05), strict=True)):
            assert one.low is not None and one.high is not None
            covered[kind, index] = one.low <= true <= one.high
    assert covered.mean(axis=1) == pytest.approx(0.95, abs=0.02)  # four standard errors


def test_a_mean_of_one_seed_joins_the_tasks_intervals() -> None:
    found, (low, high), (other_low, other_high) = (
        over_rows([500, 80], [0.9, 0.6]),
        wilson(450, 500),
        wilson(48, 80),
    )
    assert found.mean == pytest.approx(0.75)
    assert found.interval == "MOVER over 2 tasks: sampling of the evaluation rows, one seed"
    assert found.low == pytest.approx(0.75 - np.hypot(0.9 - low, 0.6 - other_low) / 2)
    assert found.high == pytest.approx(0.75 + np.hypot(high - 0.9, other_high - 0.6) / 2)
    error = np.sqrt((0.7 * 0.3 + 0.6 * 0.4) / 80 + (0.9 * 0.1 + 0.8 * 0.2) / 500) / 2
    assert p_noninferiority_over_rows([80, 500], [0.7, 0.9], [0.6, 0.8], -0.05) == pytest.approx(
        stats.norm.cdf((0.05 - 0.1) / error)
    )


def test_ratio_has_the_ratio_as_its_mean_and_no_spread_where_it_is_constant() -> None:
    dense = np.array([[80.0, 90.0, 85.0]])
    constant = statistics.ratio(0.9 * dense, dense)
    assert constant is not None and constant(0.9 * dense, dense) == pytest.approx(np.full((1, 3), 0.9))
    ours = np.array([[70.0, 75.0, 80.0]])
    linear = statistics.ratio(ours, dense)
    assert linear is not None
    values = linear(ours, dense)
    assert values.mean() == pytest.approx(75 / 85) and values.std() > 0
    assert statistics.ratio(dense, np.zeros((1, 3))) is None


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=20))
def test_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    front = pareto_front([cost for cost, _ in points], [quality for _, quality in points])
    beaten = [
        any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)
        for cost, quality in points
    ]
    assert {points[i] for i in front} == {
        point for point, lost in zip(points, beaten, strict=True) if not lost
    }
    assert [points[i][0] for i in front] == sorted({points[i][0] for i in front})


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9)), max_size=20), st.sampled_from([1.1, 1.5, 3])
)
def test_of_a_fronts_points_of_almost_one_cost_the_best_is_kept(
    points: list[tuple[int, int]], apart: float
) -> None:
    costs, qualities = [cost for cost, _ in points], [quality for _, quality in points]
    front, kept = pareto_front(costs, qualities), pareto_front(costs, qualities, apart)
    assert kept == [i for i in front if i in kept], "points of the front, in its order"
    assert all(costs[two] > apart * costs[one] for one, two in pairwise(kept))
    for left_out in set(front) - set(kept):
        assert any(
            costs[left_out] < costs[i] <= apart * costs[left_out] and qualities[i] > qualities[left_out]
            for i in kept
        )
