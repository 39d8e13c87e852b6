"""Quotient-remainder: the product of the rows v mod m and v div m of two tables (Shi et al., KDD 2020)."""

import torch
from torch import Tensor, nn

from bench.assignment.digits import integer_root
from bench.embeddings.base import EmbeddingMethod, Source
from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import lookup
from bench.settings.embeddings import QuotientRemainderConfig

ROUNDS = 20  # of alternating least squares


class QuotientRemainderEmbedding(CompressedEmbedding):
    """e(v) = R[v mod m] * S[v div m], elementwise."""

    def __init__(self, num_embeddings: int, embedding_dim: int, rows: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.rows = rows
        self.remainder = nn.Parameter(torch.ones(rows, embedding_dim))
        self.quotient = nn.Parameter(torch.ones(-(-num_embeddings // rows), embedding_dim))
        self.tables = {"remainder": len(self.remainder), "quotient": len(self.quotient)}

    def rows_of(self, input_ids: Tensor) -> Tensor:
        low, high = input_ids % self.rows, input_ids // self.rows
        return lookup(self.table("remainder"), low) * lookup(self.table("quotient"), high)


class QuotientRemainder(EmbeddingMethod[QuotientRemainderConfig]):
    """`embedding.rows` is m, at least the root of V: a smaller m would only make the other table larger."""

    scaled = "rows"

    def limits(self, config: QuotientRemainderConfig, vocab_size: int, width: int) -> tuple[int, int]:
        return max(2, integer_root(vocab_size, 2)), vocab_size

    def tables(self, config: QuotientRemainderConfig, vocab_size: int, width: int) -> list[tuple[int, int]]:
        rows = config.rows or 1
        return [(rows, width), (-(-vocab_size // rows), width)]

    def layer(self, config: QuotientRemainderConfig, source: Source) -> nn.Module:
        return QuotientRemainderEmbedding(*source.shape, config.rows or 1, source.padding_idx)

    def fit(self, layer: QuotientRemainderEmbedding, config: QuotientRemainderConfig, source: Source) -> None:
        """Fit a matrix of rank one to each dimension of the table, arranged as (v div m, v mod m)."""
        ids = torch.arange(len(source.table))
        low, high = ids % layer.rows, ids // layer.rows

        # Leave out kept tokens, and fit zero to padding.
        counts = source.without_kept(torch.ones(len(ids), 1))
        table = source.table * counts
        table[[] if source.padding_idx is None else [source.padding_idx]] = 0

        # Alternate least squares: each table in turn, given the other.
        turns = ((layer.remainder, low, layer.quotient, high), (layer.quotient, high, layer.remainder, low))
        for fitted, rows, given, given_rows in turns * ROUNDS:
            factor = given[given_rows] * counts
            above = torch.zeros_like(fitted).index_add_(0, rows, table * factor)
            below = torch.zeros_like(fitted).index_add_(0, rows, factor.square())
            fitted.copy_(above / below.clamp(min=1e-12))

    def draw(self, layer: QuotientRemainderEmbedding, source: Source) -> None:
        # The variance of a product of independent numbers of mean 0 is the product of their variances.
        for table in (layer.remainder, layer.quotient):
            table.copy_(source.normal(table) * source.spread().sqrt())


METHOD = QuotientRemainder()
