"""`assignment=residual`: residual quantisation, for sums of rows (Chen, Guan & Wang, Sensors 2010)."""

import numpy as np

from bench.assignment.base import Assignment
from bench.assignment.clusters import Device, Weights, centroids, nearest, workers


def residual_quantisation(
    table: np.ndarray,
    subspaces: int,
    rows: int,
    seed: int,
    weights: Weights = None,
    device: Device = None,
) -> np.ndarray:
    """Return codes (V, f): each names the centroid nearest to what the ones before leave of the token's vector."""
    left, codes = table.copy(), []
    with workers() as pool:
        for _ in range(subspaces):
            # Few rounds suffice: the embedding fits its tables to the codes.
            (means,) = centroids(
                [left], rows, seed, per_centroid=256, max_iter=10, pool=pool, weights=weights, device=device
            )
            codes.append(nearest(left, means, device))
            left -= means[codes[-1]]
    return np.stack(codes, axis=1)


ASSIGNMENT = Assignment(
    lambda ask: residual_quantisation(
        ask.vectors(), ask.subspaces, ask.rows, ask.seed, ask.weights, ask.device
    ),
    vectors="static",
    injective=False,
)
