"""The lower bound without token identity: every token has the table's mean vector."""

import torch
from torch import Tensor, nn

from bench.embeddings.base import EmbeddingMethod, Source
from bench.embeddings.layer import CompressedEmbedding
from bench.settings.embeddings import MeanConfig


class MeanEmbedding(CompressedEmbedding):
    """e(v) = m for every token except padding."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(embedding_dim))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        return self.weight.expand(*input_ids.shape, -1)


class Mean(EmbeddingMethod[MeanConfig]):
    """Shows what a model reaches that knows only the positions and the number of tokens."""

    def fp32_params(self, config: MeanConfig, vocab_size: int, width: int) -> int:
        return width

    def layer(self, config: MeanConfig, source: Source) -> nn.Module:
        return MeanEmbedding(*source.shape, source.padding_idx)

    def fit(self, layer: MeanEmbedding, config: MeanConfig, source: Source) -> None:
        layer.weight.copy_(source.table.mean(0))


METHOD = Mean()
