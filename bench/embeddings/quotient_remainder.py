"""Quotient-remainder: the product of two rows, one by v mod m, one by v div m (Shi et al., KDD 2020, with multiplication)."""

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
    """`embedding.rows` is m, at least the root of V: with fewer the other table would only grow."""

    scaled = "rows"

    def limits(self, config: QuotientRemainderConfig, vocab_size: int, width: int) -> tuple[int, int]:
        return max(2, integer_root(vocab_size, 2)), vocab_size

    def tables(self, config: QuotientRemainderConfig, vocab_size: int, width: int) -> list[tuple[int, int]]:
        rows = config.rows or 1
        return [(rows, width), (-(-vocab_size // rows), width)]

    def layer(self, config: QuotientRemainderConfig, source: Source) -> nn.Module:
        return QuotientRemainderEmbedding(*source.shape, config.rows or 1, source.padding_idx)

    def fit(self, layer: QuotientRemainderEmbedding, config: QuotientRemainderConfig, source: Source) -> None:
        """Fit each dimension of the table, laid out as (v div m, v mod m), by a matrix of rank one."""
        ids = torch.arange(len(source.table))
        low, high = ids % layer.rows, ids // layer.rows
        counts = torch.ones(len(ids), 1)
        counts[[] if source.kept is None else source.kept] = 0
        table = source.table * counts
        table[[] if source.padding_idx is None else [source.padding_idx]] = 0
        turns = ((layer.remainder, low, layer.quotient, high), (layer.quotient, high, layer.remainder, low))
        for fitted, its, given, theirs in turns * ROUNDS:
            factor = given[theirs] * counts
            above = torch.zeros_like(fitted).index_add_(0, its, table * factor)
            below = torch.zeros_like(fitted).index_add_(0, its, factor.square())
            fitted.copy_(above / below.clamp(min=1e-12))


METHOD = QuotientRemainder()
