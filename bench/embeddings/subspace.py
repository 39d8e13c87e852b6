"""The subspace embedding: checks its settings, counts its bytes, and builds and fits its layer (subspace_layer.py)."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from bench.assignment import Assignment
from bench.assignment.clusters import nearest_rows
from bench.embeddings.base import Source, whole_bytes
from bench.embeddings.coded import Pieces, Shape
from bench.embeddings.packing import bits_per_code
from bench.embeddings.wrappers import Shared
from bench.errors import ConfigError, unknown
from bench.settings.embeddings import SubspaceConfig


class Subspace(Pieces[SubspaceConfig]):
    """Jaiswal & Liu's tables with any number of subspaces and rows. With `code_rows`, tokens share stored codes (`Shared`)."""

    def resolve(
        self, config: SubspaceConfig, vocab_size: int, width: int, assignment: Assignment | None = None
    ) -> SubspaceConfig:
        if config.code_rows is not None and assignment is not None and not assignment.stored:
            raise ConfigError(
                f"embedding.code_rows ({config.code_rows}) shares stored codes, but this assignment computes codes from a "
                "token's id: use assignment=pq or another that stores codes, or embedding.code_rows=null."
            )
        return super().resolve(config, vocab_size, width, assignment)

    def complete(self, config: SubspaceConfig, vocab_size: int, width: int) -> SubspaceConfig:
        if config.compose not in ("concat", "sum"):
            raise ConfigError(unknown("embedding.compose", config.compose, ("concat", "sum")))

        # Fill in the sub-dimension.
        f = self.number(config)
        pieces = f if config.compose == "concat" else 1
        if config.sub_dim is None and width % pieces:
            near = sorted(_divisors(width), key=lambda n: (abs(n - f), n))[:2]
            raise ConfigError(
                f"embedding.subspaces ({f}) must divide the model's width ({width}): "
                f"use {min(near)} or {max(near)}, or set embedding.sub_dim."
            )
        if pieces > width:
            raise ConfigError(
                f"embedding.subspaces ({f}) is more than the model's width ({width}): use fewer subspaces."
            )
        sub_dim = width // pieces if config.sub_dim is None else config.sub_dim
        if not 1 <= sub_dim * pieces <= width:
            raise ConfigError(
                f"embedding.sub_dim ({sub_dim}) gives an inner width of {sub_dim * pieces}, but the model's width is "
                f"{width}: use embedding.sub_dim={width // pieces} or less, and at least 1."
            )

        # Check the code rows against the tokens without a kept row.
        config = super().complete(replace(config, sub_dim=sub_dim), vocab_size, width)
        if config.code_rows is not None and not 1 <= config.code_rows < vocab_size - config.keep_dense:
            raise ConfigError(
                f"embedding.code_rows ({config.code_rows}) must be from 1 to {vocab_size - config.keep_dense - 1:,}: fewer than "
                f"there are tokens besides those of embedding.keep_dense ({config.keep_dense})."
            )
        return config

    def numbers(self, config: SubspaceConfig, width: int) -> Iterable[int]:
        if config.compose == "sum":
            return super().numbers(config, width)
        return _divisors(width) if config.sub_dim is None else range(1, width // config.sub_dim + 1)

    def needs_counts(self, config: SubspaceConfig) -> bool:
        return config.code_rows is not None or super().needs_counts(config)

    def shape(self, config: SubspaceConfig, width: int) -> Shape:
        return Shape(config.subspaces or 0, config.rows or 0, config.sub_dim or 0, config.compose)

    def code_bits(self, config: SubspaceConfig, vocab_size: int, width: int, codes_stored: bool) -> int:
        if config.code_rows is None:
            return super().code_bits(config, vocab_size, width, codes_stored)
        codes = super().code_bits(config, config.code_rows, width, codes_stored)
        return codes + whole_bytes(vocab_size * bits_per_code(config.code_rows))

    def layer(self, config: SubspaceConfig, source: Source) -> nn.Module:
        if config.code_rows is None:
            return super().layer(config, source)
        rows = replace(source, table=source.table[: config.code_rows], padding_idx=None, codes=None)
        inner: Any = super().layer(config, rows)
        return Shared(inner, len(source.table), source.padding_idx)

    def fit(self, layer: Any, config: SubspaceConfig, source: Source) -> None:
        if isinstance(layer, Shared):
            # Store the codes of the most frequent tokens without a kept row; every other token shares those of the nearest.
            kept = np.empty(0, np.int64) if source.kept is None else source.kept.numpy()
            frequent = source.needed_vocabulary().most_frequent(
                len(kept) + layer.inner.num_embeddings, source.padding_idx
            )
            sharers = np.setdiff1d(frequent, kept)
            assert source.codes is not None
            layer.set_integers("share", nearest_rows(source.table.numpy(), sharers, source.device))
            layer.inner.set_integers("codes", source.codes[sharers])
            layer, source = layer.inner, replace(source, codes=layer.codes())
        super().fit(layer, config, source)

    def draw(self, layer: Any, source: Source) -> None:
        super().draw(layer.inner if isinstance(layer, Shared) else layer, source)


def _divisors(width: int) -> list[int]:
    return [n for n in range(1, width + 1) if width % n == 0]


METHOD = Subspace()
