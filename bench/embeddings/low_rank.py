"""Low rank: the table as a product of a (V, r) and an (r, d) matrix, as ALBERT factorises it (Lan et al., ICLR 2020)."""

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings.base import CompressedEmbedding, EmbeddingMethod, Size, Vocabulary
from bench.embeddings.lookup import lookup
from bench.errors import ConfigError
from bench.settings.schema import EmbeddingConfig


class LowRankEmbedding(CompressedEmbedding):
    """e(v) = P a(v), with r numbers a(v) a token."""

    def __init__(self, num_embeddings: int, embedding_dim: int, rank: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(num_embeddings, rank))
        self.projection = nn.Linear(rank, embedding_dim, bias=False)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        vectors: Tensor = self.projection(lookup(self.weight, input_ids))
        return vectors


class LowRank(EmbeddingMethod):
    """The best table of rank r: the truncated singular value decomposition (Eckart & Young 1936).

    With `embedding.frequency_power` the squared error of a token counts (occurrences + 1)^power: the axes are those of
    the weighted table, and each token's numbers its projection on them.
    """

    settings, extras, scaled = ("rank",), ("frequency_power",), "rank"

    def limits(self, vocab_size: int, width: int) -> tuple[int, int]:
        return 1, width

    def complete(self, config: EmbeddingConfig, vocab_size: int, width: int) -> EmbeddingConfig:
        if not 0 <= config.frequency_power <= 2:
            raise ConfigError(f"embedding.frequency_power ({config.frequency_power}) must be from 0 to 2.")
        return super().complete(config, vocab_size, width)

    def needs_counts(self, config: EmbeddingConfig) -> bool:
        return config.frequency_power > 0

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        return Size((config.rank or 0) * (vocab_size + width))

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
        module = LowRankEmbedding(len(table), table.shape[1], config.rank or 0, padding_idx)
        rows = table.double()
        weights = vocabulary.weights if vocabulary is not None else None
        weighted = rows if weights is None else rows * torch.from_numpy(weights).unsqueeze(1)
        axes = torch.linalg.eigh(rows.T @ weighted).eigenvectors.flip(1)[:, : config.rank]
        module.weight.copy_(rows @ axes)
        module.projection.weight.copy_(axes)
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        return LowRankEmbedding(vocab_size, width, config.rank or 0, padding_idx)
