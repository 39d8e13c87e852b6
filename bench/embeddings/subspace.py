"""Subspace embedding: every token's vector rebuilt from a few small shared sub-tables.

The method of Jaiswal & Liu, "Lightweight Adaptation of Neural Language Models via Subspace Embedding", CIKM 2023
(arXiv 2308.08688). Notation: V tokens, width d, f subspaces, Q rows per sub-table, sub-dimension s.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.assignment import Assignment
from bench.assignment.clusters import nearest_rows
from bench.assignment.digits import integer_root
from bench.embeddings import rounding
from bench.embeddings.base import FLOAT_BYTES, EmbeddingMethod, Size, Vocabulary
from bench.embeddings.fitting import fit, principal_axes
from bench.embeddings.packing import bits_per_code
from bench.embeddings.subspace_layer import SubspaceEmbedding, orthogonal
from bench.errors import ConfigError, unknown
from bench.settings.schema import EmbeddingConfig

__all__ = ["Subspace", "SubspaceEmbedding"]
MOST_SUMMED = 32  # tables of a sum among which a budget chooses


class Subspace(EmbeddingMethod):
    """Builds, checks and counts `SubspaceEmbedding`."""

    settings: ClassVar[tuple[str, ...]] = ("subspaces", "rows", "sub_dim", "compose", "init")
    extras: ClassVar[tuple[str, ...]] = ("keep_dense", "gain", "rotation", "table_dtype", "code_rows")
    assigned = True
    fixed: ClassVar[dict[str, Any]] = {}  # settings that a relative of this method leaves no choice of

    def resolve(
        self, config: EmbeddingConfig, vocab_size: int, width: int, assignment: Assignment | None = None
    ) -> EmbeddingConfig:
        shared = replace(config, **self.fixed).code_rows
        if shared is not None and assignment is not None and not assignment.stored:
            raise ConfigError(
                f"embedding.code_rows ({shared}) shares stored codes, but this assignment's are computed from a token's id: use "
                "assignment=pq or another that stores them, or embedding.code_rows=null."
            )
        return super().resolve(config, vocab_size, width, assignment)

    def complete(self, config: EmbeddingConfig, vocab_size: int, width: int) -> EmbeddingConfig:
        config = replace(config, **self.fixed)
        f = 3 if config.subspaces is None else config.subspaces
        for key, choices in (
            ("compose", ("concat", "sum")),
            ("init", ("random", "fitted")),
            ("table_dtype", tuple(rounding.BITS)),
        ):
            if getattr(config, key) not in choices:
                raise ConfigError(unknown(f"embedding.{key}", str(getattr(config, key)), choices))
        if config.rows is None and self.fixed.get("subspaces") == 1:
            raise ConfigError(
                f"embedding.rows is not set: give {config.name} a number of rows, or embedding.budget."
            )
        if f < 1:
            raise ConfigError(f"embedding.subspaces ({f}) must be at least 1.")
        if config.sub_dim is None and config.compose == "concat" and width % f:
            near = sorted(_divisors(width), key=lambda n: (abs(n - f), n))[:2]
            raise ConfigError(
                f"embedding.subspaces ({f}) must divide the model's width ({width}): "
                f"use {min(near)} or {max(near)}, or set embedding.sub_dim."
            )
        sub_dim = (
            config.sub_dim
            if config.sub_dim is not None
            else width // f
            if config.compose == "concat"
            else width
        )
        pieces = f if config.compose == "concat" else 1
        inner = sub_dim * pieces
        if pieces > width:
            raise ConfigError(
                f"embedding.subspaces ({f}) is more than the model's width ({width}): use fewer subspaces."
            )
        if not 1 <= inner <= width:
            raise ConfigError(
                f"embedding.sub_dim ({sub_dim}) gives an inner width of {inner}, but the model's width is "
                f"{width}: use embedding.sub_dim={width // pieces} or less, and at least 1."
            )
        rows = config.rows if config.rows is not None else max(2, integer_root(vocab_size, f))
        if not 2 <= rows <= vocab_size:
            raise ConfigError(
                f"embedding.rows ({rows}) must lie between 2 and the vocabulary size ({vocab_size:,})."
            )
        if not 0 <= config.keep_dense < vocab_size:
            raise ConfigError(
                f"embedding.keep_dense ({config.keep_dense}) must be from 0 to {vocab_size - 1:,}: fewer than there are tokens."
            )
        if config.code_rows is not None and not 1 <= config.code_rows < vocab_size - config.keep_dense:
            raise ConfigError(
                f"embedding.code_rows ({config.code_rows}) must be from 1 to {vocab_size - config.keep_dense - 1:,}: fewer than "
                f"there are tokens besides those of embedding.keep_dense ({config.keep_dense})."
            )
        if config.rotation is not None and inner != width:
            raise ConfigError(
                f"embedding.rotation ({config.rotation}) needs pieces that fill the model's width ({width}), but they fill "
                f"{inner}, and the up-projection already turns them: set embedding.rotation=null."
            )
        return replace(config, subspaces=f, sub_dim=sub_dim, rows=rows)

    def within(
        self, config: EmbeddingConfig, vocab_size: int, width: int, most: int, assignment: Assignment | None
    ) -> tuple[int, EmbeddingConfig | None]:
        """Of each f the largest Q that fits; of these, the one with the greatest f (log2 Q - 1/2).

        The bits of a code bound the error; the half takes into account that few long pieces quantise better than many
        short ones. On MiniLM's table pq's error is within 0.7 % of the best f's at 0.2, 0.5, 1 and 2.5 % of the bytes.
        Codes that are made without looking at vectors say no more than which token it is: log2 V bits, so f is small.
        """
        config = replace(config, **self.fixed)
        if config.subspaces is not None and config.rows is not None:
            raise ConfigError(
                f"embedding.subspaces ({config.subspaces}), embedding.rows ({config.rows}) and embedding.budget cannot all "
                "be set: leave one of the first two null."
            )
        codes_stored = assignment is None or assignment.stored
        enough = math.inf if assignment is None or assignment.vectors else math.log2(vocab_size)
        smallest, best = [], []
        for f in [config.subspaces] if config.subspaces is not None else self.pieces(config, width):
            least = max(
                2, integer_root(vocab_size, f) if assignment is not None and assignment.injective else 2
            )
            choices = [config.rows] if config.rows is not None else range(least, vocab_size + 1)

            def complete(rows: int, f: int = f) -> EmbeddingConfig:
                return self.complete(replace(config, subspaces=f, rows=rows), vocab_size, width)

            def stored(rows: int, complete: Callable[[int], EmbeddingConfig] = complete) -> int:
                return self.size(complete(rows), vocab_size, width, codes_stored).bytes

            smallest.append(stored(choices[0]))
            if fits := bisect_right(choices, most, key=stored):
                best.append(complete(choices[fits - 1]))

        def worth(choice: EmbeddingConfig) -> float:
            f, bits = choice.subspaces or 0, math.log2(choice.rows or 1)
            return f * (bits - 0.5) if f * bits < enough else enough

        return min(smallest), max(best, key=worth, default=None)  # of equals the first: the smallest f

    def pieces(self, config: EmbeddingConfig, width: int) -> Iterable[int]:
        """Return the numbers of subspaces among which a budget chooses."""
        if config.compose == "sum":
            return range(1, MOST_SUMMED + 1)
        return _divisors(width) if config.sub_dim is None else range(1, width // config.sub_dim + 1)

    def needs_counts(self, config: EmbeddingConfig) -> bool:
        return config.keep_dense > 0 or config.code_rows is not None

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        f, q, s = config.subspaces or 0, config.rows or 0, config.sub_dim or 0
        inner = f * s if config.compose == "concat" else s
        plain = (inner * width if inner != width else 0) + (vocab_size if config.gain else 0)
        kept = config.keep_dense * width
        tables = rounding.stored_bytes(f, q * s, config.table_dtype) + rounding.stored_bytes(
            config.keep_dense, width, config.table_dtype
        )
        coded, share = (
            (vocab_size, 0)
            if config.code_rows is None
            else (config.code_rows, vocab_size * bits_per_code(config.code_rows))
        )
        bits = coded * f * bits_per_code(q) if codes_stored else 0
        ids = config.keep_dense * bits_per_code(vocab_size)
        whole = sum(8 * -(-each // 8) for each in (ids, share))  # whole numbers of bytes, as in the file
        return Size(f * q * s + plain + kept, bits + whole, plain * FLOAT_BYTES + tables)

    def coordinates(self, config: EmbeddingConfig, table: Tensor) -> Tensor:
        """Return the table rotated, projected or scaled to unit length, as the pieces will see it."""
        assert config.subspaces and config.sub_dim
        inner = config.sub_dim * (config.subspaces if config.compose == "concat" else 1)
        if inner != table.shape[1]:
            table = table @ principal_axes(table, inner)
        if config.rotation is not None:
            table = table @ orthogonal(table.shape[1], config.rotation)
        return F.normalize(table, dim=1) if config.gain else table

    def _layer(
        self,
        config: EmbeddingConfig,
        codes: np.ndarray,
        width: int,
        padding_idx: int | None,
        codes_stored: bool,
        kept: np.ndarray | None,
        share: np.ndarray | None,
    ) -> SubspaceEmbedding:
        assert config.rows and config.sub_dim
        return SubspaceEmbedding(
            codes,
            config.rows,
            width,
            sub_dim=config.sub_dim,
            compose=config.compose,
            padding_idx=padding_idx,
            codes_stored=codes_stored,
            kept=kept,
            gain=config.gain,
            rotation=config.rotation,
            table_dtype=config.table_dtype,
            share=share,
        )

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
        assert codes is not None
        kept = share = None
        if config.keep_dense:
            assert vocabulary is not None
            kept = vocabulary.foremost(config.keep_dense, padding_idx)
        if config.code_rows is not None:
            assert vocabulary is not None
            foremost = vocabulary.foremost(config.keep_dense + config.code_rows, padding_idx)
            sharers = foremost if kept is None else np.setdiff1d(foremost, kept)
            codes, share = codes[sharers], nearest_rows(table.numpy(), sharers)
        module = self._layer(config, codes, table.shape[1], padding_idx, codes_stored, kept, share)
        if config.init == "fitted":
            fit(module, table, None if vocabulary is None else vocabulary.weights)
        else:
            with torch.no_grad():
                for parameter in (p for name, p in module.named_parameters() if name != "gain"):
                    parameter.normal_(std=std, generator=generator)
        if module.kept is not None:
            module.kept.data.copy_(table[torch.from_numpy(kept)])
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        zeros = np.zeros(
            (vocab_size if config.code_rows is None else config.code_rows, config.subspaces or 0),
            dtype=np.int32,
        )
        kept = np.arange(config.keep_dense) if config.keep_dense else None
        share = None if config.code_rows is None else np.zeros(vocab_size, dtype=np.int32)
        return self._layer(
            config, zeros if codes is None else codes, width, padding_idx, codes is None, kept, share
        )


def _divisors(width: int) -> list[int]:
    return [n for n in range(1, width + 1) if width % n == 0]
