"""Clusters of the tokens in each subspace: k-means, nearest centroids, assignment under a capacity.

Every kernel runs on one thread, and the work is divided without regard to the number of threads, so that the same seed gives
the same codes on any number of cores.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.assignment import kmeans
from bench.assignment.rows import first_rows

CHUNK = 1 << 22  # distances held at a time by one worker (16 MiB of float32)
PART = 1 << 12  # points whose nearest rows one worker finds
LEAST_SAMPLE = 1 << 15  # points k-means is trained on at least, where there are as many
# Rows of a table from which on threads match its groups faster, as these are larger. For contextual codes of 250,037 tokens two
# threads take 1.2 times as long as one at Q=23, 0.65 times at Q=63.
THREADED = 32
START_SAMPLE = 16  # points per centroid that k-means++ chooses from


@contextmanager
def workers() -> Iterator[Parallel]:
    """Yield a pool with a thread for each core, whose BLAS and OpenMP use one thread each."""
    with threadpool_limits(1), Parallel(n_jobs=-1, backend="threading") as pool:
        yield pool


def subspace_slices(width: int, subspaces: int) -> list[slice]:
    """Return f contiguous slices of the columns; where f does not divide the width, the first are wider by one."""
    edges = [0, *np.cumsum([len(part) for part in np.array_split(np.arange(width), subspaces)])]
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


Device = (
    torch.device | None
)  # that finds clusters, by bench.assignment.kmeans; None: the CPU, by scikit-learn
Weights = np.ndarray | None  # of each point's squared error, (n,); None: all the same


def _drawn(number: int, size: int, seed: int) -> np.ndarray | slice:
    """Return a seeded choice of `size` of so many places, in order; all of them where there are not more."""
    if number <= size:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(number, size, replace=False))


def centroids(
    parts: Sequence[np.ndarray],
    rows: int,
    seed: int,
    *,
    per_centroid: int,
    max_iter: int,
    pool: Parallel,
    weights: Weights = None,
    device: Device = None,
) -> list[np.ndarray]:
    """Return the k-means centroids (rows, s) float32 of each part (n, s), trained on a seeded sample of its points.

    All parts share `weights` (n,). The sample has `per_centroid` points for each centroid (faiss takes 256), but at least
    LEAST_SAMPLE. k-means++ starts from a smaller sample: on all points it takes longer than the clustering and ends no better.
    Without a device `pool` clusters a part in each thread. A GPU clusters all at once and holds, for a sample of m points in f
    parts of together d columns, m (16 d + 24 f) bytes; without room it raises torch.cuda.OutOfMemoryError.
    """
    sample = _drawn(len(parts[0]), max(per_centroid * rows, LEAST_SAMPLE), seed)
    weights = None if weights is None else weights[sample]
    if device is None:
        return list(pool(delayed(_centroids)(part[sample], rows, seed, max_iter, weights) for part in parts))

    sets = []
    for part in parts:
        points = _on(device, part[sample])
        sets.append((points, _start(points, rows, seed, weights)))
    shared = torch.ones_like(points[:, 0]) if weights is None else _on(device, weights)
    return [means.float().cpu().numpy() for means in kmeans.centroids(sets, shared, max_iter)]


def _start(points: Tensor, rows: int, seed: int, weights: Weights) -> Tensor:
    """Return the first centroids for points (n, s) on a GPU."""
    some = _drawn(len(points), START_SAMPLE * rows, seed)
    few = points[some] if isinstance(some, slice) else points[torch.from_numpy(some).to(points.device)]
    theirs = torch.ones_like(few[:, 0]) if weights is None else _on(points.device, weights[some])
    return kmeans.plus_plus(few, theirs, rows, seed)


def _centroids(points: np.ndarray, rows: int, seed: int, max_iter: int, weights: Weights) -> np.ndarray:
    """Return the centroids of points (n, s), found by scikit-learn."""
    # This import takes a second, so it stands where there is something to cluster.
    from sklearn.cluster import KMeans, kmeans_plusplus

    some = _drawn(len(points), START_SAMPLE * rows, seed)
    theirs = None if weights is None else weights[some]
    # The limit holds for this thread only, and the pool's does not reach it.
    with threadpool_limits(1, user_api="openmp"):
        start, _ = kmeans_plusplus(points[some], rows, sample_weight=theirs, random_state=seed)
        found = KMeans(rows, init=start, n_init=1, max_iter=max_iter).fit(points, sample_weight=weights)
    return cast(np.ndarray, found.cluster_centers_.astype(np.float32))


def _on(device: torch.device, array: np.ndarray) -> Tensor:
    """Return the array in fp64 on the device."""
    return torch.from_numpy(array).to(device).double()


def _costs(points: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return squared distances (n, Q) without each point's squared norm, which no comparison of centroids needs."""
    return cast(np.ndarray, np.square(table).sum(axis=1) - 2 * (points @ table.T))


def nearest(points: np.ndarray, table: np.ndarray, device: Device = None) -> np.ndarray:
    """Return the index of each point's nearest centroid, (n,) int32."""
    if device is not None:
        return kmeans.nearest(_on(device, points), _on(device, table)).int().cpu().numpy()
    step, norms = max(1, CHUNK // len(table)), np.square(table).sum(axis=1)
    parts = [
        (norms - 2 * (points[i : i + step] @ table.T)).argmin(axis=1) for i in range(0, len(points), step)
    ]
    return np.concatenate(parts).astype(np.int32)


def nearest_rows(points: np.ndarray, rows: np.ndarray, device: Device = None) -> np.ndarray:
    """Return, for each of the points (V, d), the place in `rows` (U,) of the nearest point among those: (V,) int32.

    A point of `rows` gets its place. Of equal distances the first counts.
    """
    table = points[rows]
    first = first_rows(table)  # products with equal rows can differ in their last bits
    table = table[first]
    with workers() as run:
        part = PART if device is None else len(points)
        parts = run(
            delayed(nearest)(points[i : i + part], table, device) for i in range(0, len(points), part)
        )
    places: np.ndarray = first[np.concatenate(parts)].astype(np.int32)
    places[rows] = np.arange(len(rows), dtype=np.int32)
    return places


def rank_within(keys: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Return each element's place, from 0, among those with its key, highest priority first (ties: lowest index)."""
    order = np.lexsort((-priority, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
    return ranks


def _best_open(
    points: np.ndarray, table: np.ndarray, is_open: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return each point's nearest centroid among those open in its place, and the extra cost of the second nearest."""
    step = max(1, CHUNK // len(table))
    choices, regrets = [], []
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        cost = np.where(is_open[place[part]], _costs(points[part], table), np.inf)
        best = cost.argmin(axis=1)[:, None]
        lowest = np.take_along_axis(cost, best, axis=1)[:, 0]
        np.put_along_axis(cost, best, np.inf, axis=1)
        choices.append(best[:, 0])
        regrets.append(cost.min(axis=1) - lowest)
    return np.concatenate(choices), np.concatenate(regrets)


def limit(
    points: np.ndarray,
    table: np.ndarray,
    group: np.ndarray,
    digit: np.ndarray,
    capacity: int,
    weights: Weights = None,
) -> np.ndarray:
    """Return the digits (n,) changed so that no (group, digit) holds more than `capacity` points.

    `digit` holds the nearest centroids, (n,). Where too many points share a centroid, those that would lose most by leaving
    stay, and the others ask for the next nearest with room, until all have a digit. Greedy: an exact matching lowered the
    final error of the codes on MiniLM's table by 0.1-0.2 % only. No group may have more than Q * capacity points.
    """
    rows = len(table)
    cells, cell, sizes = np.unique(group * rows + digit, return_inverse=True, return_counts=True)
    if sizes.max() <= capacity:
        return digit
    digit = digit.copy()
    full_groups = np.unique(cells[sizes > capacity] // rows)
    room = np.full((len(full_groups), rows), capacity)
    settled = sizes <= capacity
    counted = settled & np.isin(cells // rows, full_groups)
    room[np.searchsorted(full_groups, cells[counted] // rows), cells[counted] % rows] -= sizes[counted]
    waiting = np.flatnonzero(~settled[cell])
    while len(waiting):
        place = np.searchsorted(full_groups, group[waiting])
        choice, regret = _best_open(points[waiting], table, room > 0, place)
        regret = regret if weights is None else regret * weights[waiting]
        asked = place * rows + choice
        stays = rank_within(asked, regret) < room.reshape(-1)[asked]
        digit[waiting[stays]] = choice[stays]
        np.subtract.at(room.reshape(-1), asked[stays], 1)
        waiting = waiting[~stays]
    return digit


def match(
    points: np.ndarray,
    table: np.ndarray,
    group: np.ndarray,
    digit: np.ndarray,
    pool: Parallel,
    weights: Weights = None,
) -> np.ndarray:
    """Return digits (n,) that differ within each group, at the least total squared distance (Hungarian matching).

    Groups whose nearest centroids differ already stay as they are: nothing is nearer. No group may have more than Q points.
    """
    from scipy.optimize import linear_sum_assignment

    order = np.argsort(group, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    clashing = [m for m in members if len(m) > 1 and len(np.unique(digit[m])) < len(m)]

    def solve(batch: list[np.ndarray]) -> list[np.ndarray]:
        costs = (_costs(points[m], table) * (1 if weights is None else weights[m, None]) for m in batch)
        return [linear_sum_assignment(cost)[1] for cost in costs]

    batches = [clashing[i : i + 64] for i in range(0, len(clashing), 64)]
    # Most of the work of a small group is in Python, where threads only take turns.
    solved = pool(map(delayed(solve), batches)) if len(table) >= THREADED else map(solve, batches)
    digit = digit.copy()
    for m, columns in zip(clashing, (columns for batch in solved for columns in batch), strict=True):
        digit[m] = columns
    return digit
