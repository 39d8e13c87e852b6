"""The fit of sub-tables to a pretrained table, given the codes, and random sub-tables of the same spread."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.embeddings.base import Source
from bench.embeddings.subspace_layer import SubspaceEmbedding

SUM_ROUNDS = 8  # of coordinate descent over the tables of a sum
GAIN_ROUNDS = 3
PART = 1 << 9  # tokens fitted at once: 60,000 in 4 tables take 4.5 s of CPU time, all at once 13.5 s


def principal_axes(table: Tensor, number: int) -> Tensor:
    """Return the first `number` principal axes (d, number) of the rows, about the origin."""
    rows = table.double()
    axes: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :number]
    return axes.to(table.dtype)


def fit(layer: SubspaceEmbedding, source: Source) -> None:
    """Set each row of a sub-table to the mean of the pretrained sub-vectors with its code, and P to the principal axes.

    For `concat` this is the least-squares optimum given the codes.
    """
    target, weights = source.table, source.weights()
    if layer.projection is not None:
        axes = principal_axes(target, layer.projection.in_features)
        layer.projection.weight.copy_(axes)
        target = torch.cat([rows.double() @ axes.double() for rows in target.split(PART)])
    assert source.codes is not None
    if layer.compose == "concat":
        _fit_pieces(layer, target, source.codes, weights, weights)
    else:
        _fit_sum(layer, target, source.codes, weights)


def fit_with_gain(layer: SubspaceEmbedding, gain: Tensor, source: Source) -> None:
    """Fit the sub-tables and the tokens' gains (V,) in turn, each to its optimum given the other."""
    assert source.codes is not None
    target, codes, weights = source.table, source.codes, source.weights()
    factor = torch.cat([part.double().norm(dim=1) for part in target.split(PART)]).clamp(min=1e-12)
    for _ in range(GAIN_ROUNDS):
        # A gain of 0, as of an empty row, gives its token no weight.
        _fit_pieces(layer, target, codes, weights * factor, weights * factor.square())
        for part in _parts(len(target)):
            rows = torch.from_numpy(_rows(layer, codes[part]))
            fitted = layer.weight[rows].flatten(1).double()
            square = fitted.square().sum(1).clamp(min=1e-12)
            factor[part] = (fitted * target[part]).sum(1) / square
    gain[weights > 0] = factor[weights > 0].float()


def draw(layer: SubspaceEmbedding, source: Source) -> None:
    """Draw the tables, and P, so that the vectors have the pretrained variance in each dimension; of a sum, each gives a share."""
    scale = source.spread()
    if layer.projection is not None:
        layer.projection.weight.copy_(directions(layer.projection.weight, source))
        scale = torch.ones(layer.projection.in_features)
    if layer.compose == "concat":
        scale = scale.view(layer.subspaces, layer.sub_dim).repeat_interleave(layer.rows, dim=0)
    else:
        scale = scale / layer.subspaces**0.5
    layer.weight.copy_(source.normal(layer.weight) * scale)


def directions(weight: Tensor, source: Source) -> Tensor:
    """Return a random up-projection (d, n) that gives inner vectors of variance 1 the pretrained variance in each dimension."""
    return F.normalize(source.normal(weight), dim=1) * source.spread().unsqueeze(1)


def _rows(layer: SubspaceEmbedding, codes: np.ndarray) -> np.ndarray:
    """Return the rows of the stacked tables that codes (n, f) name."""
    return codes + np.arange(layer.subspaces, dtype=np.int32) * layer.rows


def _parts(tokens: int, size: int = PART) -> list[slice]:
    """Return slices of so many tokens; the vectors of PART stay in the processor's cache."""
    return [slice(at, at + size) for at in range(0, tokens, size)]


def _fit_pieces(
    layer: SubspaceEmbedding, target: Tensor, codes: np.ndarray, weights: Tensor, divisors: Tensor
) -> None:
    """Set each row to the sum of `weights` (V,) times its tokens' pieces of the target (V, inner), over that of `divisors` (V,).

    One pass over the tokens, on one thread: V = 250,037 in 96 tables take 0.2 s, so that a GPU could save little. Each part
    costs a pass over all rows, so that it has as many tokens at least.
    """
    from scipy.sparse import csc_array  # a run with a dense table needs none

    stacked, f = len(layer.weight), layer.subspaces
    above, below = np.zeros((stacked, layer.sub_dim)), np.zeros(stacked)
    for part in _parts(len(target), max(PART, layer.rows)):
        rows = _rows(layer, codes[part]).reshape(-1)
        pieces = target[part].numpy().astype(np.float64).reshape(-1, layer.sub_dim)
        weight, divisor = (each[part].numpy().repeat(f) for each in (weights, divisors))
        above += csc_array((weight, rows, np.arange(len(rows) + 1)), (stacked, len(rows))) @ pieces
        below += np.bincount(rows, divisor, stacked)
    shape = f, layer.rows, -1
    tables = _quotient(torch.from_numpy(above).view(shape), torch.from_numpy(below).view(shape))
    layer.weight.copy_(tables.view_as(layer.weight))


def _fit_sum(layer: SubspaceEmbedding, target: Tensor, codes: np.ndarray, weights: Tensor) -> None:
    """Set the tables to the weighted optimum for the target (V, inner) by coordinate descent.

    SUM_ROUNDS times, each table in turn takes the means of the others' residuals.
    """
    tables, parts = layer.weight.view(layer.subspaces, layer.rows, -1), _parts(len(target))
    columns, weight = torch.from_numpy(codes).T.long().contiguous(), weights.unsqueeze(1)
    fitted = torch.zeros(target.shape, dtype=torch.float64)
    counts = [torch.bincount(column, weights, layer.rows).unsqueeze(1) for column in columns]
    for column, table in zip(columns, tables, strict=True):
        _add(fitted, table, column, parts)
    for _ in range(SUM_ROUNDS):
        for i, column in enumerate(columns):
            sums, table = torch.zeros(tables[i].shape, dtype=torch.float64), tables[i].double()
            for part in parts:
                others = fitted[part].sub_(table[column[part]])
                sums.index_add_(0, column[part], (target[part] - others) * weight[part])
            tables[i] = _quotient(sums, counts[i])
            _add(fitted, tables[i], column, parts)


def _add(fitted: Tensor, table: Tensor, codes: Tensor, parts: Sequence[slice]) -> None:
    """Add each token's row of the table (rows, d) to the fitted vectors (n, d), in place."""
    table = table.double()
    for part in parts:
        fitted[part] += table[codes[part]]


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """Return `above` (..., Q, s) over `below` (..., Q, 1): sums over weights. A row of weight 0 gets the quotient of all rows."""
    every = above.sum(-2, keepdim=True) / below.sum(-2, keepdim=True)
    return torch.where(below > 0, above / below, every)
