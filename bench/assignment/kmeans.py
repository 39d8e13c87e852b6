"""k-means by torch in fp64, for a GPU: scikit-learn's algorithm with the same random numbers.

On a CPU scikit-learn itself clusters, in fp32. The centroids are the same where no point lies as near to two of them as fp32
rounds, as in well separated clusters; elsewhere a few points differ, and after many rounds many do.
"""

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 25  # distances held at a time: 256 MiB
TOLERANCE = 1e-4  # scikit-learn's: of the points' mean variance


def centroids(points: Tensor, weights: Tensor, start: Tensor, max_iter: int) -> Tensor:
    """Return the centroids (Q, s) of the weighted points (n, s) by Lloyd's rounds from `start`; all fp64 on one device.

    Ends where no point or hardly any centroid moves. A centroid without points moves to the point that is farthest from its own.
    """
    tolerance = TOLERANCE * points.var(0, correction=0).mean()
    means, codes = start, torch.full((len(points),), -1, device=points.device)
    for _ in range(max_iter):
        before, codes = codes, nearest(points, means)
        sums = torch.zeros_like(means).index_add_(0, codes, points * weights[:, None])
        counts = weights.new_zeros(len(means)).index_add_(0, codes, weights)

        # Move the empty centroids to the farthest points, and take these from their centroids.
        if len(empty := (counts == 0).nonzero()[:, 0]):
            far = (points - means[codes]).square().sum(1).topk(len(empty)).indices
            sums.index_add_(0, codes[far], points[far] * -weights[far, None])
            counts.index_add_(0, codes[far], -weights[far])
            sums[empty], counts[empty] = points[far] * weights[far, None], weights[far]

        moved = torch.where(counts[:, None] > 0, sums / counts[:, None], means)
        shift, means = (moved - means).square().sum(), moved
        if shift <= tolerance or torch.equal(codes, before):
            break
    return means


def plus_plus(points: Tensor, weights: Tensor, number: int, seed: int) -> Tensor:
    """Return `number` of the points (n, s) as first centroids, by greedy k-means++ (Arthur & Vassilvitskii 2007)."""
    random = np.random.RandomState(seed)
    norms = points.square().sum(1)
    first = random.choice(len(points), p=(weights / weights.sum()).cpu().numpy())
    drawn = random.uniform(size=(number - 1, 2 + int(np.log(number))))

    # Of some candidates, drawn in proportion to their distance from the centroids, the best becomes the next one.
    chosen = torch.tensor([first], device=points.device)
    distances = _distances(points, norms, chosen)
    closest, ids = distances[0], [chosen[0]]
    for values in torch.from_numpy(drawn).to(points.device):
        cumulated = (weights * closest).cumsum(0)
        candidates = torch.searchsorted(cumulated, values * (closest @ weights)).clamp(max=len(points) - 1)
        distances = torch.minimum(closest, _distances(points, norms, candidates))
        best = (distances @ weights).argmin()
        closest = distances[best]
        ids.append(candidates[best])
    return points[torch.stack(ids)]


def _distances(points: Tensor, norms: Tensor, ids: Tensor) -> Tensor:
    """Return the squared distances (m, n) of the points with these ids to all points."""
    squares = norms[ids, None] + norms - 2 * points[ids] @ points.T
    return squares.clamp_(min=0).scatter_(1, ids[:, None], 0)


def nearest(points: Tensor, table: Tensor) -> Tensor:
    """Return the index of each point's nearest centroid, (n,) int64; on a GPU with little memory, in smaller blocks."""
    step, norms = max(1, BLOCK // len(table)), table.square().sum(1)
    while True:
        try:
            return torch.cat(
                [torch.addmm(norms, part, table.T, alpha=-2).argmin(1) for part in points.split(step)]
            )
        except torch.cuda.OutOfMemoryError:
            if step == 1:
                raise
            step = -(-step // 2)
