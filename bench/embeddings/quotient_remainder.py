"""Quotient-remainder: the product of two rows, one by v mod m, one by v div m (Shi et al., KDD 2020, with multiplication)."""

import numpy as np
import torch
from torch import Tensor, nn

from bench.assignment.digits import integer_root
from bench.embeddings.base import CompressedEmbedding, EmbeddingMethod, Size, Vocabulary
from bench.embeddings.lookup import lookup
from bench.settings.schema import EmbeddingConfig

ROUNDS = 20  # of alternating least squares


class QuotientRemainderEmbedding(CompressedEmbedding):
    """e(v) = R[v mod m] * S[v div m], elementwise."""

    def __init__(self, num_embeddings: int, embedding_dim: int, rows: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.rows = rows
        self.remainder = nn.Parameter(torch.ones(rows, embedding_dim))
        self.quotient = nn.Parameter(torch.ones(-(-num_embeddings // rows), embedding_dim))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        low, high = input_ids % self.rows, input_ids // self.rows
        return lookup(self.remainder, low) * lookup(self.quotient, high)


class QuotientRemainder(EmbeddingMethod):
    """`embedding.rows` is m, at least the root of V: with fewer the other table would only grow."""

    settings, scaled = ("rows",), "rows"

    def limits(self, vocab_size: int, width: int) -> tuple[int, int]:
        return max(2, integer_root(vocab_size, 2)), vocab_size

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        rows = config.rows or 1
        return Size((rows - -vocab_size // rows) * width)

    @torch.no_grad()
    def build(
        self,
        config: EmbeddingConfig,
        table: Tensor,
        codes: np.ndarray | None,
        padding_idx: int | None,
        codes_stored: bool,
        std: float,
        generator: torch.Generator,
        vocabulary: Vocabulary | None = None,
    ) -> nn.Module:
        """Each dimension of the table, laid out as (v div m, v mod m), is fitted by a matrix of rank one."""
        vocab_size, width = table.shape
        module, rows = (
            QuotientRemainderEmbedding(vocab_size, width, config.rows or 1, padding_idx),
            config.rows or 1,
        )
        high, low = torch.arange(vocab_size) // rows, torch.arange(vocab_size) % rows
        known = table if padding_idx is None else table.index_fill(0, torch.tensor([padding_idx]), 0)
        one, other = module.remainder, module.quotient
        for _ in range(ROUNDS):
            for fitted, its, given, theirs in ((one, low, other, high), (other, high, one, low)):
                factor = given[theirs]
                above = torch.zeros_like(fitted).index_add_(0, its, known * factor)
                fitted.copy_(
                    above / torch.zeros_like(fitted).index_add_(0, its, factor.square()).clamp(min=1e-12)
                )
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        return QuotientRemainderEmbedding(vocab_size, width, config.rows or 1, padding_idx)
