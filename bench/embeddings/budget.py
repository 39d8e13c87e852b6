"""A budget: the most bytes that an embedding may store, as a share of the dense table's."""

import math
import re
from dataclasses import dataclass

from bench.assignment import Assignment
from bench.embeddings.rounding import FLOAT_BYTES
from bench.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """`bytes` for a table of `vocab_size` rows and `width` columns."""

    bytes: int
    vocab_size: int
    width: int
    assignment: Assignment | None = None  # of the codes; None: any assignment that stores them

    @property
    def codes_stored(self) -> bool:
        """Return whether the bytes of codes count."""
        return self.assignment is None or self.assignment.stored

    @classmethod
    def of(cls, text: str, vocab_size: int, width: int, assignment: Assignment | None) -> "Budget":
        """Return the budget of, say, "0.5%"; raises ConfigError unless the text is a positive percentage."""
        if not re.fullmatch(r"\d+(\.\d+)?%", text) or float(text[:-1]) == 0:
            raise ConfigError(
                f"embedding.budget ({text}) must be a share of the dense table's bytes, such as 0.5%."
            )
        share = float(text[:-1]) / 100
        return cls(int(share * vocab_size * width * FLOAT_BYTES), vocab_size, width, assignment)

    def percentage(self, size: int) -> str:
        """Return the percentage that allows `size` bytes, rounded up to four digits."""
        return f"{math.ceil(size / (self.vocab_size * self.width * FLOAT_BYTES) * 1e6) / 1e4:g}%"
