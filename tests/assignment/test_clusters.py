"""Product quantisation and assignment under a capacity, against scikit-learn and exact matching."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from bench.assignment.clusters import limit, match, nearest, subspace_slices, workers
from bench.assignment.pq import product_quantisation


def squared_error(points: np.ndarray, codes: np.ndarray) -> float:
    """Return the error left when each slice's points are replaced by the mean of those that share their code."""
    total = 0.0
    for i, part in enumerate(np.array_split(points.astype(np.float64), codes.shape[1], axis=1)):
        for code in np.unique(codes[:, i]):
            members = part[codes[:, i] == code]
            total += ((members - members.mean(axis=0)) ** 2).sum()
    return total


@pytest.mark.parametrize(("f", "rows", "clustered"), [(4, 16, False), (3, 20, True), (7, 40, False)])
def test_pq_is_as_good_as_plain_kmeans(f: int, rows: int, clustered: bool) -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3000, 24)).astype(np.float32)
    if clustered:
        points = 0.1 * points + rng.standard_normal((200, 24))[rng.integers(200, size=3000)].astype(
            np.float32
        )
    codes = product_quantisation(points, f, rows, seed=0)
    parts = np.array_split(points, f, axis=1)
    plain = sum(KMeans(rows, n_init=1, max_iter=300, random_state=1).fit(part).inertia_ for part in parts)
    assert codes.shape == (3000, f) and codes.min() >= 0 and codes.max() < rows
    assert squared_error(points, codes) <= 1.01 * plain


def test_slices_cover_a_width_that_f_does_not_divide() -> None:
    widths = [s.stop - s.start for s in subspace_slices(50, 7)]
    assert widths == [len(part) for part in np.array_split(np.arange(50), 7)]


def test_nearest_agrees_with_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.assignment.clusters.CHUNK", 90)  # several chunks, the last one short
    rng = np.random.default_rng(0)
    points, table = rng.standard_normal((100, 5)), rng.standard_normal((9, 5))
    assert (nearest(points, table) == cdist(points, table).argmin(axis=1)).all()


def limited(points: np.ndarray, table: np.ndarray, group: np.ndarray, capacity: int) -> np.ndarray:
    return limit(points, table, group, nearest(points, table), capacity)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_capacity_holds_in_every_group(seed: int, rows: int, capacity: int, groups: int, equal: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, rows * capacity + 1, size=groups)
    sizes[0] = rows * capacity  # no room to spare
    group = rng.permutation(np.repeat(rng.choice(100, groups, replace=False), sizes))
    points = np.zeros((len(group), 2)) if equal else rng.standard_normal((len(group), 2))
    digit = limited(points, rng.standard_normal((rows, 2)), group, capacity)
    assert digit.min() >= 0 and digit.max() < rows
    assert np.unique(group * rows + digit, return_counts=True)[1].max() <= capacity


def first_come(cost: np.ndarray, capacity: int) -> float:
    """Return the total cost if each point in turn takes the nearest centroid that has room."""
    room, total = np.full(cost.shape[1], capacity), 0.0
    for row in cost:
        choice = np.where(room > 0, row, np.inf).argmin()
        room[choice] -= 1
        total += row[choice]
    return total


@pytest.mark.parametrize("spare", [0, 5])
def test_capacity_limited_cost_lies_between_the_optimum_and_first_come(spare: int) -> None:
    rows, capacity = 6, 10
    excess, naive = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        points, table = rng.standard_normal((rows * capacity - spare, 3)), rng.standard_normal((rows, 3))
        cost = cdist(points, table, "sqeuclidean")
        # Repeat each centroid as often as it may be used, which gives the exact optimum.
        seats = np.repeat(cost, capacity, axis=1)
        best = seats[linear_sum_assignment(seats)].sum()
        digit = limited(points, table, np.zeros(len(points), dtype=np.int64), capacity)
        excess.append(np.take_along_axis(cost, digit[:, None], axis=1).sum() / best - 1)
        naive.append(first_come(cost, capacity) / best - 1)
    assert min(excess) >= -1e-9
    assert np.mean(excess) < 0.75 * np.mean(naive)


def test_without_a_binding_capacity_all_stay_with_the_nearest() -> None:
    rng = np.random.default_rng(0)
    points, table = rng.standard_normal((50, 3)), rng.standard_normal((4, 3))
    assert (limited(points, table, np.zeros(50, dtype=np.int64), 50) == nearest(points, table)).all()


@pytest.mark.parametrize("rows", [8, 40])  # by one thread, by several
def test_matching_is_optimal_in_each_group(rows: int) -> None:
    rng = np.random.default_rng(0)
    points, table = rng.standard_normal((150, 3)), rng.standard_normal((rows, 3))
    group = rng.permutation(np.repeat(np.arange(300, 350), 3))
    group[:40] = np.arange(40) // 8  # some groups as large as the sub-table
    with workers() as pool:
        digit = match(points, table, group, nearest(points, table), pool)
    for one in np.unique(group):
        members = group == one
        cost = cdist(points[members], table, "sqeuclidean")
        assert len(np.unique(digit[members])) == members.sum()
        assert cost[np.arange(len(cost)), digit[members]].sum() == pytest.approx(
            cost[linear_sum_assignment(cost)].sum()
        )
