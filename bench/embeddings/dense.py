"""The reference: the pretrained V x d table as it is."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bench.assignment import Assignment
from bench.embeddings.base import EmbeddingMethod, Size, Vocabulary
from bench.settings.schema import EmbeddingConfig


class Dense(EmbeddingMethod):
    """One row a token."""

    def resolve(
        self, config: EmbeddingConfig, vocab_size: int, width: int, assignment: Assignment | None = None
    ) -> EmbeddingConfig:
        return replace(config, budget=None)  # the reference beside every budget

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        return Size(vocab_size * width)

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
        module: nn.Embedding = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=padding_idx)
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        return nn.Embedding(vocab_size, width, padding_idx=padding_idx)
