"""The lower bound without rows: a token's vector is the bits of a hash, and only their common scale is stored."""

import torch
from torch import Tensor, nn

from bench.embeddings.base import EmbeddingMethod, Source
from bench.embeddings.layer import CompressedEmbedding
from bench.settings.embeddings import HashOnlyConfig

# The multipliers of splitmix64, as signed numbers.
MULTIPLIERS = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)


class HashEmbedding(CompressedEmbedding):
    """e(v)_j = scale * (+1 or -1), by a bit of a hash of v and j: nearly orthogonal vectors without a lookup."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.scale = nn.Parameter(torch.zeros(1))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        columns = torch.arange(self.embedding_dim, device=input_ids.device)
        x = input_ids.long().unsqueeze(-1) * self.embedding_dim + columns + 1
        for multiplier in MULTIPLIERS:
            x = x * multiplier  # wraps around
            x = x ^ (x >> 31)
        return torch.where((x >> 32) % 2 == 1, -self.scale, self.scale)


class HashOnly(EmbeddingMethod[HashOnlyConfig]):
    """Shows what a model reaches with vectors that identify tokens and carry no meaning."""

    def fp32_params(self, config: HashOnlyConfig, vocab_size: int, width: int) -> int:
        return 1

    def layer(self, config: HashOnlyConfig, source: Source) -> nn.Module:
        return HashEmbedding(*source.shape, source.padding_idx)

    def fit(self, layer: HashEmbedding, config: HashOnlyConfig, source: Source) -> None:
        layer.scale.fill_(source.table.square().mean().sqrt())


METHOD = HashOnly()
