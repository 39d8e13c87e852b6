"""Truncated dimension: every token keeps its numbers in the same r dimensions; the others are zero."""

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings.base import EmbeddingMethod, Source
from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import lookup
from bench.settings.embeddings import TruncatedConfig


class TruncatedEmbedding(CompressedEmbedding):
    """e(v) holds r stored numbers in the kept dimensions, and zeros elsewhere."""

    dimensions: Tensor  # (r,)

    def __init__(self, num_embeddings: int, embedding_dim: int, number: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(num_embeddings, number))
        self.tables = {"weight": num_embeddings}
        self.register_buffer("dimensions", torch.arange(number), persistent=False)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        vectors = lookup(self.table(), input_ids)
        zeros = vectors.new_zeros(*input_ids.shape, self.embedding_dim)
        return zeros.index_copy(-1, self.dimensions, vectors)

    def integers(self) -> dict[str, tuple[np.ndarray, int]]:
        chosen = np.zeros(self.embedding_dim, dtype=np.int32)  # a bit per dimension
        chosen[self.dimensions.cpu().numpy()] = 1
        return {"dimensions": (chosen, 2)}

    def set_integers(self, name: str, numbers: np.ndarray) -> None:
        self.dimensions = torch.from_numpy(np.flatnonzero(numbers)).to(self.dimensions.device)


class Truncated(EmbeddingMethod[TruncatedConfig]):
    """Keeps the r dimensions with the greatest mean square over the tokens, which gives the least error."""

    scaled = "rank"

    def limits(self, config: TruncatedConfig, vocab_size: int, width: int) -> tuple[int, int]:
        return 1, width

    def tables(self, config: TruncatedConfig, vocab_size: int, width: int) -> list[tuple[int, int]]:
        return [(vocab_size, config.rank or 0)]

    def code_bits(self, config: TruncatedConfig, vocab_size: int, width: int, codes_stored: bool) -> int:
        return width

    def layer(self, config: TruncatedConfig, source: Source) -> nn.Module:
        return TruncatedEmbedding(*source.shape, config.rank or 0, source.padding_idx)

    def fit(self, layer: TruncatedEmbedding, config: TruncatedConfig, source: Source) -> None:
        squares = source.without_kept(source.table.square())
        layer.dimensions = squares.sum(0).topk(config.rank or 0).indices.sort().values
        layer.weight.copy_(source.table[:, layer.dimensions])

    def draw(self, layer: TruncatedEmbedding, source: Source) -> None:
        layer.weight.copy_(source.normal(layer.weight) * source.spread()[layer.dimensions])


METHOD = Truncated()
