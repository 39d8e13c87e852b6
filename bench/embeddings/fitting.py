"""The fit of sub-tables to a pretrained table, given the codes, and random sub-tables of the same spread."""

from collections.abc import Callable, Sequence

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
    target, codes, weight, _ = _given(source)
    if layer.projection is not None:
        axes = principal_axes(source.table, layer.projection.in_features)
        layer.projection.weight.copy_(axes)
        target = target @ axes.double()
    _fit_tables(layer, target, codes, weight)


def fit_with_gain(layer: SubspaceEmbedding, gain: Tensor, source: Source) -> None:
    """Fit the sub-tables and the tokens' gains (V,) in turn, each to its optimum given the other."""
    target, codes, weight, tokens = _given(source)
    factor = target.norm(dim=1, keepdim=True).clamp(min=1e-12)
    for _ in range(GAIN_ROUNDS):
        divisor = torch.where(
            factor == 0, 1.0, factor
        )  # a gain of 0, as of an empty row, gives its token no weight
        fitted = _fit_tables(layer, target / divisor, codes, weight * factor.square())
        square = fitted.square().sum(1, keepdim=True).clamp(min=1e-12)
        factor = (fitted * target).sum(1, keepdim=True) / square
    gain[tokens] = factor.squeeze(1).float()


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


def _given(source: Source) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return vectors (n, d), codes (n, f) and weights (n, 1) of the tokens with weight, and the mask (V,) of these tokens."""
    weights = source.weights()
    tokens = weights.squeeze(1) > 0
    assert source.codes is not None
    codes = torch.from_numpy(source.codes).long()[tokens]
    return source.table[tokens].double(), codes, weights[tokens], tokens


def _fit_tables(layer: SubspaceEmbedding, target: Tensor, codes: Tensor, weight: Tensor) -> Tensor:
    """Set the tables to the weighted optimum for the target (n, inner), and return the fitted vectors (n, inner).

    For `sum` this is coordinate descent: SUM_ROUNDS times, each table in turn takes the means of the others' residuals.
    """
    tables = layer.weight.view(layer.subspaces, layer.rows, layer.sub_dim)
    if layer.compose == "concat":  # the tables are independent
        for i, piece in enumerate(target.split(layer.sub_dim, dim=1)):
            tables[i] = _means(piece, codes[:, i], layer.rows, weight)
        return torch.cat([tables[i].double()[codes[:, i]] for i in range(layer.subspaces)], dim=1)

    # Go through the tokens part by part, so that the vectors of a part stay in the processor's cache.
    columns = codes.T.contiguous()
    parts = [slice(at, at + PART) for at in range(0, len(codes), PART)]
    fitted, counts = torch.zeros_like(target), [_sums(weight, column, layer.rows) for column in columns]
    for column, table in zip(columns, tables, strict=True):
        _add(fitted, table, column, parts)
    for _ in range(SUM_ROUNDS):
        for i, column in enumerate(columns):
            sums, table = torch.zeros(tables[i].shape, dtype=target.dtype), tables[i].double()
            for part in parts:
                others = fitted[part].sub_(table[column[part]])
                sums.index_add_(0, column[part], (target[part] - others) * weight[part])
            tables[i] = _quotient(sums, counts[i], lambda: _mean((target - fitted) * weight, weight))
            _add(fitted, tables[i], column, parts)
    return fitted


def _add(fitted: Tensor, table: Tensor, codes: Tensor, parts: Sequence[slice]) -> None:
    """Add each token's row of the table (rows, d) to the fitted vectors (n, d), in place."""
    table = table.double()
    for part in parts:
        fitted[part] += table[codes[part]]


def _means(vectors: Tensor, codes: Tensor, rows: int, weight: Tensor) -> Tensor:
    """Return the weighted mean vector of each code (rows, s); the mean of all vectors for a code without tokens."""
    weighted = vectors * weight
    return _quotient(
        _sums(weighted, codes, rows), _sums(weight, codes, rows), lambda: _mean(weighted, weight)
    )


def _sums(vectors: Tensor, codes: Tensor, rows: int) -> Tensor:
    """Return the sum of each code's vectors (rows, s)."""
    return torch.zeros(rows, vectors.shape[1], dtype=vectors.dtype).index_add_(0, codes, vectors)


def _mean(weighted: Tensor, weight: Tensor) -> Tensor:
    """Return the mean vector (s,) of the weighted vectors (n, s)."""
    return weighted.sum(0) / weight.sum()


def _quotient(sums: Tensor, counts: Tensor, mean: Callable[[], Tensor]) -> Tensor:
    """Return `sums` (rows, s) over `counts` (rows, 1), and the `mean` of all vectors (s,) where a count is 0."""
    if counts.min() > 0:
        return sums / counts
    return torch.where(counts > 0, sums / counts.clamp(min=1e-300), mean())
