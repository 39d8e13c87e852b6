"""Sub-tables fitted to a pretrained table, given the codes."""

import numpy as np
import torch
from torch import Tensor

from bench.embeddings.subspace_layer import SubspaceEmbedding

SUM_ROUNDS = 8  # of coordinate descent over the tables of a sum
GAIN_ROUNDS = 3


def principal_axes(table: Tensor, number: int) -> Tensor:
    """Return the `number` principal axes (d, number) of the rows, about the origin."""
    rows = table.double()
    axes: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :number]
    return axes.to(table.dtype)


@torch.no_grad()
def fit(module: SubspaceEmbedding, table: Tensor, weights: np.ndarray | None = None) -> None:
    """Set the sub-tables to the means of the pretrained sub-vectors that share a code, P to the principal axes, the gains
    to the best factors.

    `weights` (V,) is what each token's squared error counts. For `concat` the means are the least-squares optimum given
    the codes. With gains, tables and gains take turns, each at its optimum given the other.
    """
    own = torch.ones(len(table), dtype=torch.bool)  # tokens that have nothing but their codes
    if module.padding_idx is not None:
        own[module.padding_idx] = False
    own[torch.from_numpy(module.kept_ids() if module.kept is not None else np.empty(0, dtype=np.int64))] = (
        False
    )
    codes = torch.from_numpy(module.codes()).long()[own]
    weight = (
        torch.ones(len(codes), 1).double() if weights is None else torch.from_numpy(weights)[own].unsqueeze(1)
    )
    target = table[own].double()
    if module.projection is not None:
        axes = principal_axes(table, module.projection.in_features)
        module.projection.weight.copy_(axes)
        target = target @ axes.double()
    if module.rotation is not None:
        target = target @ module.rotation.double()
    if module.gain is None:
        _fit_tables(module, target, codes, weight)
        return
    gain = target.norm(dim=1, keepdim=True).clamp(min=1e-12)
    for _ in range(GAIN_ROUNDS):
        found = _fit_tables(module, target / gain, codes, weight * gain.square())
        gain = (found * target).sum(1, keepdim=True) / found.square().sum(1, keepdim=True).clamp(min=1e-12)
    module.gain[own] = gain.squeeze(1).float()


def _fit_tables(module: SubspaceEmbedding, target: Tensor, codes: Tensor, weight: Tensor) -> Tensor:
    """Set the tables to the weighted optimum for the target (n, inner); return the vectors (n, inner) that they give.

    For `sum` every table in turn takes the means of what the others leave over (SUM_ROUNDS of coordinate descent).
    """
    tables = module.weight.view(module.subspaces, module.rows, module.sub_dim)
    if module.compose == "concat":
        for i, piece in enumerate(target.split(module.sub_dim, dim=1)):
            tables[i] = _means(piece, codes[:, i], module.rows, weight)
        return torch.cat([tables[i].double()[codes[:, i]] for i in range(module.subspaces)], dim=1)
    found = sum((tables[i].double()[codes[:, i]] for i in range(module.subspaces)), torch.zeros(()))
    for _ in range(SUM_ROUNDS):
        for i in range(module.subspaces):
            others = found - tables[i].double()[codes[:, i]]
            tables[i] = _means(target - others, codes[:, i], module.rows, weight)
            found = others + tables[i].double()[codes[:, i]]
    return found


def _means(vectors: Tensor, codes: Tensor, rows: int, weight: Tensor) -> Tensor:
    """Return the weighted mean vector of each code (rows, s); a code that no token has gets the mean of all."""
    sums = torch.zeros(rows, vectors.shape[1], dtype=vectors.dtype).index_add_(0, codes, vectors * weight)
    counts = torch.zeros(rows, 1, dtype=vectors.dtype).index_add_(0, codes, weight)
    return torch.where(counts > 0, sums / counts.clamp(min=1e-300), (vectors * weight).sum(0) / weight.sum())
