"""The reference: the pretrained V x d table, unchanged."""

from dataclasses import replace

from torch import nn

from bench.assignment import Assignment
from bench.embeddings.base import EmbeddingMethod, Source
from bench.settings.embeddings import DenseConfig


class Dense(EmbeddingMethod[DenseConfig]):
    """A row per token."""

    def resolve(
        self, config: DenseConfig, vocab_size: int, width: int, assignment: Assignment | None = None
    ) -> DenseConfig:
        return replace(config, budget=None)  # every budget is compared with it

    def tables(self, config: DenseConfig, vocab_size: int, width: int) -> list[tuple[int, int]]:
        return [(vocab_size, width)]

    def layer(self, config: DenseConfig, source: Source) -> nn.Module:
        return nn.Embedding(*source.shape, source.padding_idx)

    def fit(self, layer: nn.Embedding, config: DenseConfig, source: Source) -> None:
        layer.weight = nn.Parameter(source.table)


METHOD = Dense()
