"""The keys of each embedding method, a class each.

The table of `EmbeddingMethod.size` (bench/embeddings/base.py) gives the bytes of each size; a bigger size always
loses less of the pretrained table.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench.settings.choices import Choice


def _option(default: Any) -> Any:
    """Return a field that is part of a run's identity only where it differs from its default: a new option changes no run_id."""
    return field(default=default, metadata={"option": True})


@dataclass
class EmbeddingConfig(Choice):
    """What every method takes."""

    choice_of: ClassVar[str] = "embedding"
    name: str = "???"
    # "0.5%": stored bytes as a share of the dense table's; fills in the sizes left null
    budget: str | None = None


@dataclass
class TablesConfig(EmbeddingConfig):
    """What every method takes whose tables are trained."""

    # K tokens that keep their rows: special, then most frequent in assignment.corpus
    keep_dense: int = _option(0)
    # fp32 | int8: how tables and kept rows are stored; int8 takes a quarter
    table_dtype: str = _option("fp32")
    # fitted (to the pretrained table) | random (normal, with the pretrained variance of each dimension; kept rows stay pretrained)
    init: str = _option("fitted")


@dataclass
class DenseConfig(EmbeddingConfig):
    """The pretrained table as it is: the reference, at every budget."""

    name: str = "dense"


@dataclass
class PiecesConfig(TablesConfig):
    """What the methods take that give a token several rows."""

    subspaces: int | None = None  # f; null: 3, or what the budget allows
    rows: int | None = None  # Q; null: the smallest integer with Q^f >= V, or what the budget allows


@dataclass
class SubspaceConfig(PiecesConfig):
    """f shared sub-tables of Q rows, one code per token and subspace: Jaiswal & Liu, CIKM 2023 (arXiv 2308.08688)."""

    name: str = "subspace"
    sub_dim: int | None = None  # s; null: width / f (concat) or width (sum); smaller: an up-projection
    compose: str = "concat"  # concat | sum
    init: str = "fitted"
    # U stored rows of codes, which other tokens share; null: each token has a row
    code_rows: int | None = _option(None)


@dataclass
class ResidualConfig(PiecesConfig):
    """A sum of f rows, each for what the ones before leave over: Chen, Guan & Wang, Sensors 2010."""

    name: str = "residual"


@dataclass
class CodebookConfig(TablesConfig):
    """One codebook over the whole width, and a gain a token: shape-gain quantisation, Gersho & Gray 1992."""

    name: str = "codebook"
    rows: int | None = None  # Q; give this or a budget


@dataclass
class HashingConfig(TablesConfig):
    """A token's row is a hash of its id: the hashing trick, Weinberger et al., ICML 2009."""

    name: str = "hashing"
    rows: int | None = None  # Q; give this or a budget


@dataclass
class QuotientRemainderConfig(TablesConfig):
    """The product of two rows, by v mod m and v div m: Shi et al., KDD 2020, with multiplication."""

    name: str = "quotient_remainder"
    rows: int | None = None  # m, at least the root of V; give this or a budget


@dataclass
class LowRankConfig(TablesConfig):
    """A (V, r) times an (r, d) matrix: the factorisation of ALBERT, Lan et al., ICLR 2020."""

    name: str = "low_rank"
    rank: int | None = None  # r, numbers a token; give this or a budget
    # a token's error counts (occurrences in assignment.corpus + 1)^power
    frequency_power: float = _option(0.0)


@dataclass
class TruncatedConfig(TablesConfig):
    """Every token keeps the r dimensions with the greatest mean square; the others are zero."""

    name: str = "truncated"
    rank: int | None = None  # r, numbers a token; give this or a budget


@dataclass
class TrimmedConfig(TablesConfig):
    """Special tokens, characters and the most frequent tokens of assignment.corpus keep their rows, and texts consist of these."""

    name: str = "trimmed"
    rows: int | None = None  # tokens that keep a row; give this or a budget


@dataclass
class QuantisedConfig(EmbeddingConfig):
    """The dense table in 8 or 4 bits a number with an fp16 scale a group, packed and frozen."""

    name: str = "quantised"
    bits: int = 8  # 8 | 4; a budget decides it
    group: int | None = None  # numbers that share a scale; null: 32, or what the budget allows


@dataclass
class MeanConfig(EmbeddingConfig):
    """Every token has the table's mean vector: the floor of a model that cannot tell tokens apart."""

    name: str = "mean"


@dataclass
class HashOnlyConfig(EmbeddingConfig):
    """A token's vector is the bits of a hash of its id: the floor of vectors that mean nothing."""

    name: str = "hash_only"
