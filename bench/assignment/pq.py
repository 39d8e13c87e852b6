"""`assignment=pq`: product quantisation (Jegou et al., TPAMI 2011)."""

import numpy as np
from joblib import delayed

from bench.assignment.base import Assignment
from bench.assignment.clusters import Device, Weights, centroids, nearest, subspace_slices, workers


def product_quantisation(
    table: np.ndarray,
    subspaces: int,
    rows: int,
    seed: int,
    weights: Weights = None,
    device: Device = None,
) -> np.ndarray:
    """Return each token's nearest centroid in every subspace of the table (V, d): codes (V, f) (Jegou et al. 2011)."""
    parts = [table[:, s] for s in subspace_slices(table.shape[1], subspaces)]
    with workers() as pool:
        tables = centroids(
            parts, rows, seed, per_centroid=256, max_iter=50, pool=pool, weights=weights, device=device
        )
        found = pool(delayed(nearest)(*each, device) for each in zip(parts, tables, strict=True))
    return np.stack(found, axis=1)


ASSIGNMENT = Assignment(
    lambda ask: product_quantisation(
        ask.vectors(), ask.subspaces, ask.rows, ask.seed, ask.weights, ask.device
    ),
    vectors="static",
    injective=False,
)
