"""`assignment=contextual`: related tokens share sub-vectors and all codes differ, by k-means under a capacity, digit by digit."""

import numpy as np
from joblib import Parallel, delayed

from bench.assignment.base import Assignment
from bench.assignment.clusters import (
    Device,
    Weights,
    centroids,
    limit,
    match,
    nearest,
    subspace_slices,
    workers,
)

ITERATIONS = 4  # rounds


def _codes(
    parts: list[np.ndarray], tables: list[np.ndarray], weights: Weights, device: Device, pool: Parallel
) -> np.ndarray:
    """Return codes (V, f), all different: each digit near its sub-table's centroid, as far as room is left.

    The tokens that share the first i-1 digits are a group of at most Q^(f-i+1). At most Q^(f-i) of them may get the same
    digit i, and one token each last digit, so V <= Q^f tokens always have room.
    """
    vocab_size, subspaces, rows = len(parts[0]), len(parts), len(tables[0])
    codes = np.stack(
        pool(delayed(nearest)(part, table, device) for part, table in zip(parts, tables, strict=True)), axis=1
    )
    group = np.zeros(vocab_size, dtype=np.int64)
    for i in range(subspaces - 1):
        capacity = min(rows ** (subspaces - 1 - i), vocab_size)
        codes[:, i] = limit(parts[i], tables[i], group, codes[:, i], capacity, weights)
        group = np.unique(group * rows + codes[:, i], return_inverse=True)[1]
    codes[:, -1] = match(parts[-1], tables[-1], group, codes[:, -1], pool, weights)
    return codes


def _means(
    part: np.ndarray, code: np.ndarray, table: np.ndarray, weights: Weights
) -> tuple[np.ndarray, float]:
    """Return the mean of each code's points (an unused code keeps its old centroid), and the remaining squared error."""
    from scipy.sparse import csr_array

    weight = np.ones(len(code)) if weights is None else weights
    members = csr_array(
        (weight.astype(np.float32), (code, np.arange(len(code)))), shape=(len(table), len(code))
    )
    counts = np.bincount(code, weight, minlength=len(table))[:, None]
    means = np.where(counts > 0, (members @ part) / np.where(counts > 0, counts, 1), table).astype(np.float32)
    step = 1 << 14  # bounds the memory of the residuals
    steps = [slice(i, i + step) for i in range(0, len(code), step)]
    return means, float(
        sum(np.square(part[s] - means[code[s]]).sum(axis=1, dtype=np.float64) @ weight[s] for s in steps)
    )


def contextual_codes(
    vectors: np.ndarray,
    subspaces: int,
    rows: int,
    iterations: int,
    seed: int,
    weights: Weights = None,
    device: Device = None,
) -> np.ndarray:
    """Return injective codes (V, f) int32 of the token vectors (V, d), from the round with the least weighted squared error.

    A round assigns codes under the capacities and then moves the centroids to the means. Needs rows**subspaces >= V.
    """
    parts = [np.ascontiguousarray(vectors[:, s]) for s in subspace_slices(vectors.shape[1], subspaces)]
    best, best_error = np.empty(0), np.inf
    with workers() as pool:
        # Few steps suffice here: the rounds move the centroids further.
        tables = centroids(
            parts, rows, seed, per_centroid=64, max_iter=10, pool=pool, weights=weights, device=device
        )
        for _ in range(iterations):
            codes = _codes(parts, tables, weights, device, pool)
            moved = pool(
                delayed(_means)(part, codes[:, i], tables[i], weights) for i, part in enumerate(parts)
            )
            tables = [means for means, _ in moved]
            error = sum(error for _, error in moved)
            if error < best_error:
                best, best_error = codes, error
    return best


ASSIGNMENT = Assignment(
    lambda ask: contextual_codes(
        ask.vectors(), ask.subspaces, ask.rows, ITERATIONS, ask.seed, ask.weights, ask.device
    ),
    vectors="context",
    constants={"iterations": ITERATIONS},
)
