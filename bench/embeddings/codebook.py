"""One codebook: a token is one of Q directions times its gain (shape-gain quantisation, Gersho & Gray 1992)."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.base import Source
from bench.embeddings.coded import Coded
from bench.embeddings.fitting import fit_with_gain
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.embeddings.wrappers import Gain
from bench.settings.embeddings import CodebookConfig


class Codebook(Coded[CodebookConfig]):
    """One sub-table over the whole width, codes by k-means of the rows at unit length, and a gain per token."""

    fixed_assignment = "pq"

    def fp32_params(self, config: CodebookConfig, vocab_size: int, width: int) -> int:
        return vocab_size

    def coordinates(self, config: CodebookConfig, table: Tensor) -> Tensor:
        return F.normalize(table, dim=1)

    def layer(self, config: CodebookConfig, source: Source) -> nn.Module:
        return Gain(cast(SubspaceEmbedding, super().layer(config, source)))

    def fit(self, layer: Gain, config: CodebookConfig, source: Source) -> None:
        fit_with_gain(cast(SubspaceEmbedding, layer.inner), layer.gain, source)

    def draw(self, layer: Gain, source: Source) -> None:
        layer.gain.fill_(1)
        super().draw(layer.inner, source)


METHOD = Codebook()
