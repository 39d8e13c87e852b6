"""Methods whose tokens have codes: row numbers in one or more sub-tables."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import numpy as np
from torch import Tensor, nn

from bench.assignment.digits import integer_root
from bench.embeddings.base import C, EmbeddingMethod, Source
from bench.embeddings.budget import Budget
from bench.embeddings.fitting import draw, fit, principal_axes
from bench.embeddings.packing import bits_per_code
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.errors import ConfigError
from bench.settings.embeddings import PiecesConfig

MOST_SUMMED = 32  # the most tables of a sum that a budget chooses


class Shape(NamedTuple):
    """f sub-tables of Q rows and s columns, whose rows are concatenated or summed."""

    subspaces: int
    rows: int
    sub_dim: int
    compose: str = "concat"

    @property
    def inner(self) -> int:
        """Return the width of the concatenated or summed rows, before an up-projection."""
        return self.sub_dim * (self.subspaces if self.compose == "concat" else 1)


class Coded(EmbeddingMethod[C]):
    """Sub-tables, and a code per token and sub-table. By default one sub-table of `rows` rows over the whole width."""

    assigned: ClassVar[bool] = True
    scaled: ClassVar[str | None] = "rows"

    def shape(self, config: C, width: int) -> Shape:
        """Return the sub-tables' shape, for a resolved configuration."""
        return Shape(1, cast(Any, config).rows, width)

    def codes(self, config: C) -> tuple[int, int]:
        return self.shape(config, 0)[:2]

    def tables(self, config: C, vocab_size: int, width: int) -> list[tuple[int, int]]:
        shape = self.shape(config, width)
        return [(shape.subspaces, shape.rows * shape.sub_dim)]

    def fp32_params(self, config: C, vocab_size: int, width: int) -> int:
        inner = self.shape(config, width).inner
        return inner * width if inner != width else 0

    def code_bits(self, config: C, vocab_size: int, width: int, codes_stored: bool) -> int:
        shape = self.shape(config, width)
        return vocab_size * shape.subspaces * bits_per_code(shape.rows) if codes_stored else 0

    def coordinates(self, config: C, table: Tensor) -> Tensor:
        inner = self.shape(config, table.shape[1]).inner
        return table if inner == table.shape[1] else table @ principal_axes(table, inner)

    def layer(self, config: C, source: Source) -> nn.Module:
        vocab_size, width = source.shape
        shape = self.shape(config, width)
        codes = np.zeros((vocab_size, shape.subspaces), np.int32) if source.codes is None else source.codes
        return SubspaceEmbedding(
            codes,
            shape.rows,
            width,
            sub_dim=shape.sub_dim,
            compose=shape.compose,
            padding_idx=source.padding_idx,
            codes_stored=source.codes_stored,
        )

    def fit(self, layer: Any, config: C, source: Source) -> None:
        fit(layer, source)

    def draw(self, layer: Any, source: Source) -> None:
        draw(layer, source)


P = TypeVar("P", bound=PiecesConfig)


class Pieces(Coded[P]):
    """Several sub-tables, whose number f and rows Q a budget chooses together."""

    scaled = None

    def complete(self, config: P, vocab_size: int, width: int) -> P:
        f = self.number(config)
        rows = config.rows if config.rows is not None else max(2, integer_root(vocab_size, f))
        if not 2 <= rows <= vocab_size:
            raise ConfigError(
                f"embedding.rows ({rows}) must lie between 2 and the vocabulary size ({vocab_size:,})."
            )
        return super().complete(replace(config, subspaces=f, rows=rows), vocab_size, width)

    def number(self, config: P) -> int:
        """Return f, by default 3."""
        f = 3 if config.subspaces is None else config.subspaces
        if f < 1:
            raise ConfigError(f"embedding.subspaces ({f}) must be at least 1.")
        return f

    def numbers(self, config: P, width: int) -> Iterable[int]:
        """Return the values of f that a budget chooses from."""
        return range(1, MOST_SUMMED + 1)

    def within(self, config: P, budget: Budget) -> tuple[int, P | None]:
        """Choose the largest Q that fits each f, and of these the one with the greatest f (log2 Q - 1/2).

        The bits of a code bound the error. The half accounts for few long pieces quantising better than many short ones: on
        MiniLM's table pq's error is within 0.7 % of that of the best f at 0.2, 0.5, 1 and 2.5 % of the bytes. Codes made
        without the vectors only identify the token, which takes log2 V bits; more bits are worth nothing, so f stays small.
        """
        if config.subspaces is not None and config.rows is not None:
            raise ConfigError(
                f"embedding.subspaces ({config.subspaces}), embedding.rows ({config.rows}) and embedding.budget cannot all "
                "be set: leave one of the first two null."
            )
        assignment, vocab_size = budget.assignment, budget.vocab_size

        # Take the largest Q of each f; an injective assignment needs at least Q^f = V.
        numbers = self.numbers(config, budget.width) if config.subspaces is None else [config.subspaces]
        candidates = []
        for f in numbers:
            injective = assignment is not None and assignment.injective
            least = max(2, integer_root(vocab_size, f) if injective else 2)
            rows = range(least, vocab_size + 1) if config.rows is None else [config.rows]
            candidates.append(self.largest(replace(config, subspaces=f), "rows", rows, budget))

        # Choose by the bits of a code; of equals the smallest f.
        enough = math.inf if assignment is None or assignment.vectors else math.log2(vocab_size)

        def worth(choice: P) -> float:
            f, bits = choice.subspaces or 0, math.log2(choice.rows or 1)
            return f * (bits - 0.5) if f * bits < enough else enough

        fitting = [choice for _, choice in candidates if choice is not None]
        return min(size for size, _ in candidates), max(fitting, key=worth, default=None)
