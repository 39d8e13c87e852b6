"""Truncated dimension: every token keeps the same few of its d numbers, the others are zero."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings.base import CompressedEmbedding, EmbeddingMethod, Size, Vocabulary
from bench.embeddings.lookup import lookup
from bench.embeddings.packing import pack, unpack
from bench.settings.schema import EmbeddingConfig


class TruncatedEmbedding(CompressedEmbedding):
    """e(v) holds r stored numbers at the dimensions that are kept, and zeros."""

    dimensions: Tensor  # (r,)

    def __init__(
        self, num_embeddings: int, embedding_dim: int, dimensions: Tensor, padding_idx: int | None
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(num_embeddings, len(dimensions)))
        self.register_buffer("dimensions", dimensions, persistent=False)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        vectors = lookup(self.weight, input_ids)
        return vectors.new_zeros(*input_ids.shape, self.embedding_dim).index_copy(
            -1, self.dimensions, vectors
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        chosen = np.zeros(self.embedding_dim, dtype=np.int32)
        chosen[self.dimensions.cpu().numpy()] = 1
        destination[prefix + "dimensions"] = torch.from_numpy(pack(chosen, 2))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        key, missing, unexpected = prefix + "dimensions", args[2], args[3]
        if key not in state_dict:
            missing.append(key)
            return
        chosen = unpack(state_dict[key].cpu().numpy(), 2, (self.embedding_dim,))
        self.dimensions = torch.from_numpy(np.flatnonzero(chosen)).to(self.dimensions.device)
        if key in unexpected:
            unexpected.remove(key)


class Truncated(EmbeddingMethod):
    """The r dimensions with the greatest mean square over the tokens: the least error that dropping columns allows."""

    settings, scaled = ("rank",), "rank"

    def limits(self, vocab_size: int, width: int) -> tuple[int, int]:
        return 1, width

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        return Size((config.rank or 0) * vocab_size, width)

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
        dimensions = table.square().sum(0).topk(config.rank or 0).indices.sort().values
        module = TruncatedEmbedding(len(table), table.shape[1], dimensions, padding_idx)
        module.weight.data = table[:, dimensions]
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        return TruncatedEmbedding(vocab_size, width, torch.arange(config.rank or 0), padding_idx)
