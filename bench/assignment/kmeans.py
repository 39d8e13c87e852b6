"""k-means by torch in fp64, for a GPU: scikit-learn's algorithm with the same random numbers.

On a CPU scikit-learn itself clusters, in fp32. The centroids are the same where no point lies as near to two of them as fp32
rounds, as in well separated clusters; elsewhere a few points differ, and after many rounds many do.
"""

from collections.abc import Generator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 25  # distances held at a time: 256 MiB
ONE_HOT = 1 << 22  # elements of a one-hot matrix held at a time: 32 MiB
TOLERANCE = 1e-4  # scikit-learn's: of the points' mean variance


def centroids(sets: Sequence[tuple[Tensor, Tensor]], weights: Tensor, max_iter: int) -> list[Tensor]:
    """Return, for each set of points (n, s) and first centroids (Q, s), the centroids by Lloyd's rounds; all fp64 on one device.

    All sets share the points' `weights` (n,). A set ends where no point or hardly any centroid moves. A centroid without points
    moves to the point that is farthest from its own. The sets go in step, so that the GPU is waited for once a round: beside
    other processes on the GPU each wait takes until this process has its turn.
    """
    running = [_rounds(points, start, weights, max_iter) for points, start in sets]
    found: dict[int, Tensor] = {}
    answers: dict[int, list[bool] | None] = dict.fromkeys(range(len(sets)))
    while answers:
        questions = dict[int, Tensor]()
        for number, answer in answers.items():
            try:
                questions[number] = running[number].send(cast(list[bool], answer))
            except StopIteration as end:
                found[number] = end.value
        answers = dict(zip(questions, _answers([*questions.values()]), strict=True))
    return [found[number] for number in range(len(sets))]


def _answers(questions: list[Tensor]) -> list[list[bool]]:
    """Return what the questions (m,) hold. The rounds wait for the GPU here, and where a centroid has no points."""
    return cast(list[list[bool]], torch.stack(questions).tolist()) if questions else []


def _rounds(
    points: Tensor, start: Tensor, weights: Tensor, max_iter: int
) -> Generator[Tensor, list[bool], Tensor]:
    """Return the centroids of one set. Each round yields three questions and gets the answers.

    They are whether a centroid has no points, whether no point has moved, and whether hardly any centroid did in the round
    before. That is asked a round late, as it would be a second wait: a set that ends by it has looked for nearest centroids
    once more than it had to.
    """
    tolerance = TOLERANCE * points.var(0, correction=0).mean()
    means, codes = start, torch.full((len(points),), -1, device=points.device)
    shift = torch.full_like(tolerance, torch.inf)
    weighted = torch.cat([points, points.new_ones(len(points), 1)], dim=1) * weights[:, None]
    for _ in range(max_iter):
        before, codes = codes, nearest(points, means)
        sums = _sums(weighted, codes, len(means))
        without_points = sums[:, -1] == 0
        some_empty, settled, at_rest = yield torch.stack(
            [without_points.any(), (codes == before).all(), shift <= tolerance]
        )
        if at_rest:
            return means

        # Move the empty centroids to the farthest points, and take these from their centroids.
        if some_empty:
            empty = without_points.nonzero()[:, 0]
            far = (points - means[codes]).square().sum(1).topk(len(empty)).indices
            sums -= _sums(weighted[far], codes[far], len(means))
            sums[empty] = weighted[far]

        moved = torch.where(sums[:, -1:] > 0, sums[:, :-1] / sums[:, -1:], means)
        shift, means = (moved - means).square().sum(), moved
        if settled:
            break
    return means


def _sums(vectors: Tensor, codes: Tensor, rows: int) -> Tensor:
    """Return the sum of each code's vectors (rows, s).

    As products with the one-hot matrix of the codes, block by block: on a GPU `index_add_` adds up in no fixed order.
    """
    names, step = torch.arange(rows, device=codes.device)[:, None], max(1, ONE_HOT // rows)
    sums = vectors.new_zeros(rows, vectors.shape[1])
    for part, some in zip(codes.split(step), vectors.split(step), strict=True):
        sums.addmm_((part == names).to(vectors.dtype), some)
    return sums


def plus_plus(points: Tensor, weights: Tensor, number: int, seed: int) -> Tensor:
    """Return `number` of the points (n, s) as first centroids, by greedy k-means++ (Arthur & Vassilvitskii 2007)."""
    random = np.random.RandomState(seed)
    norms = points.square().sum(1)
    first = random.choice(len(points), p=(weights / weights.sum()).cpu().numpy())
    drawn = random.uniform(size=(number - 1, 2 + int(np.log(number))))

    # Of some candidates, drawn in proportion to their distance from the centroids, the best becomes the next one. Keep a
    # dimension: indexing with a 0-d tensor copies it to the CPU, and so waits for the GPU.
    chosen = torch.tensor([first], device=points.device)
    distances = _distances(points, norms, chosen)
    closest, ids = distances[0], [chosen]
    for values in torch.from_numpy(drawn).to(points.device):
        cumulated = (weights * closest).cumsum(0)
        candidates = torch.searchsorted(cumulated, values * (closest @ weights)).clamp(max=len(points) - 1)
        distances = torch.minimum(closest, _distances(points, norms, candidates))
        best = (distances @ weights).argmin(0, keepdim=True)
        closest = distances[best].squeeze(0)
        ids.append(candidates[best])
    return points[torch.cat(ids)]


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
