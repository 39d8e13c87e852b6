"""Low rank: the table as the product of a (V, r) and an (r, d) matrix, as in ALBERT (Lan et al., ICLR 2020)."""

import torch
from torch import Tensor, nn

from bench.embeddings.base import EmbeddingMethod, Source
from bench.embeddings.fitting import directions
from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import lookup
from bench.errors import ConfigError
from bench.settings.embeddings import LowRankConfig


class LowRankEmbedding(CompressedEmbedding):
    """e(v) = P a(v), with r numbers a(v) per token."""

    def __init__(self, num_embeddings: int, embedding_dim: int, rank: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(num_embeddings, rank))
        self.tables = {"weight": num_embeddings}
        self.projection = nn.Linear(rank, embedding_dim, bias=False)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        vectors: Tensor = self.projection(lookup(self.table(), input_ids))
        return vectors


class LowRank(EmbeddingMethod[LowRankConfig]):
    """The best table of rank r: the truncated singular value decomposition (Eckart & Young 1936).

    With `embedding.frequency_power` the squared error of a token weighs (occurrences + 1)^power. The axes are those of the
    weighted table, and a token's numbers are its projection on them.
    """

    scaled = "rank"

    def limits(self, config: LowRankConfig, vocab_size: int, width: int) -> tuple[int, int]:
        return 1, width

    def complete(self, config: LowRankConfig, vocab_size: int, width: int) -> LowRankConfig:
        if not 0 <= config.frequency_power <= 2:
            raise ConfigError(f"embedding.frequency_power ({config.frequency_power}) must be from 0 to 2.")
        return super().complete(config, vocab_size, width)

    def needs_counts(self, config: LowRankConfig) -> bool:
        return config.frequency_power > 0 or super().needs_counts(config)

    def tables(self, config: LowRankConfig, vocab_size: int, width: int) -> list[tuple[int, int]]:
        return [(vocab_size, config.rank or 0)]

    def fp32_params(self, config: LowRankConfig, vocab_size: int, width: int) -> int:
        return (config.rank or 0) * width

    def layer(self, config: LowRankConfig, source: Source) -> nn.Module:
        return LowRankEmbedding(*source.shape, config.rank or 0, source.padding_idx)

    def fit(self, layer: LowRankEmbedding, config: LowRankConfig, source: Source) -> None:
        rows = source.table.double()
        weights = None if source.vocabulary is None else source.vocabulary.weights
        weighted = rows if weights is None else rows * torch.from_numpy(weights).unsqueeze(1)
        eigen = torch.linalg.eigh(rows.T @ source.without_kept(weighted))
        axes = eigen.eigenvectors.flip(1)[:, : config.rank]
        layer.weight.copy_(rows @ axes)
        layer.projection.weight.copy_(axes)

    def draw(self, layer: LowRankEmbedding, source: Source) -> None:
        layer.weight.copy_(source.normal(layer.weight))
        layer.projection.weight.copy_(directions(layer.projection.weight, source))


METHOD = LowRank()
