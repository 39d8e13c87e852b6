"""The floor without any token: every token has the table's mean vector."""

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings.base import CompressedEmbedding, EmbeddingMethod, Size, Vocabulary
from bench.settings.schema import EmbeddingConfig


class MeanEmbedding(CompressedEmbedding):
    """e(v) = m for every token but padding."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(embedding_dim))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        return self.weight.expand(*input_ids.shape, -1)


class Mean(EmbeddingMethod):
    """What a model can do that knows positions and the number of tokens only."""

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        return Size(width)

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
        module = MeanEmbedding(len(table), table.shape[1], padding_idx)
        module.weight.data = table.mean(0)
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        return MeanEmbedding(vocab_size, width, padding_idx)
