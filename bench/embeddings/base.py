"""What every embedding method offers, and how its size is counted."""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.assignment import Assignment
from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.packing import bits_per_code
from bench.embeddings.rounding import stored_bytes
from bench.embeddings.wrappers import Kept
from bench.errors import ConfigError, Impossible, unknown
from bench.settings.embeddings import EmbeddingConfig, TablesConfig

FLOAT_BYTES = 4  # tables are stored in fp32
DECILES = 10
TABLE_DTYPES = ("fp32", "int8")


@dataclass(frozen=True)
class Size:
    """What an embedding stores: `params` values in `param_bytes`, and `code_bits` bits of packed codes and ids."""

    params: int
    code_bits: int = 0
    param_bytes: int = -1  # with the scales of values in fewer bits; not given: fp32

    def __post_init__(self) -> None:
        if self.param_bytes < 0:
            object.__setattr__(self, "param_bytes", self.params * FLOAT_BYTES)

    @property
    def bytes(self) -> int:
        """Return the stored bytes: values, scales, and codes packed to the bit."""
        return self.param_bytes + -(-self.code_bits // 8)


@dataclass(frozen=True)
class Vocabulary:
    """What a corpus and the tokenizer say about the tokens; methods that need none of it get none."""

    counts: np.ndarray  # (V,): occurrences in the corpus
    special: tuple[int, ...]  # ids
    unknown: int  # id that stands for tokens without a vector
    power: float = 0.0

    @property
    def weights(self) -> np.ndarray | None:
        """Return what each token's error counts, (V,): (occurrences + 1)^power; None where all count the same."""
        return (self.counts + 1.0) ** self.power if self.power else None

    def foremost(self, number: int, padding_idx: int | None) -> np.ndarray:
        """Return the ids (number,) int64, ascending, of the special and then the most frequent tokens, never padding."""
        rank = self.counts.astype(np.float64)
        rank[list(self.special)] = np.inf
        if padding_idx is not None:
            rank[padding_idx] = -1
        return np.sort(np.argsort(-rank, kind="stable")[:number])


@dataclass(frozen=True)
class Source:
    """What an embedding is made from. For an empty one the table's shape is enough: it can lie on the device "meta"."""

    table: Tensor  # (V, d): the pretrained one
    padding_idx: int | None = None
    codes: np.ndarray | None = None  # (V, f); None in an empty embedding whose codes its file holds
    codes_stored: bool = True  # whether a file has to hold them
    vocabulary: Vocabulary | None = None
    std: float = 0.02  # of random tables
    generator: torch.Generator | None = None  # of random tables
    kept: Tensor | None = (
        None  # (K,): ids of the tokens that have a row of their own, so that nothing is fitted to them
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Return V and d."""
        return self.table.shape[0], self.table.shape[1]

    def counted(self) -> Vocabulary:
        """Return the vocabulary of a method that needs it."""
        assert self.vocabulary is not None
        return self.vocabulary

    def weights(self) -> Tensor:
        """Return what each token's squared error counts in a fit, (V, 1) float64: 0 for padding and for kept tokens."""
        weights = self.vocabulary.weights if self.vocabulary else None
        counts = (
            torch.ones(len(self.table)).double() if weights is None else torch.from_numpy(weights).clone()
        )
        counts[[] if self.padding_idx is None else [self.padding_idx]] = 0
        counts[[] if self.kept is None else self.kept] = 0
        return counts.unsqueeze(1)


C = TypeVar("C", bound=EmbeddingConfig)


class EmbeddingMethod(Generic[C]):
    """A way to store V vectors of width d. V is the vocabulary size, d the width of the pretrained table.

    The keys of its configuration are those of the class `C`. Kept rows and tables in 8 bits come from here for every method
    whose configuration is a TablesConfig.
    """

    version: ClassVar[int] = 1  # raised whenever a change here changes numbers
    scaled: ClassVar[str | None] = None  # the key whose number a budget sets
    assigned: ClassVar[bool] = False  # whether an assignment gives each token its codes
    own_assignment: ClassVar[str | None] = None  # part of the method, whatever `assignment` says

    def resolve(self, config: C, vocab_size: int, width: int, assignment: Assignment | None = None) -> C:
        """Return `config` with its nulls and what the budget decides filled in, and no budget.

        `assignment` is that of the codes; None: any that stores them. Raises ConfigError where the settings contradict
        the model, or the budget is too small for any of them.
        """
        if config.budget is None:
            return self.complete(config, vocab_size, width)
        most = int(share(config.budget) * vocab_size * width * FLOAT_BYTES)
        smallest, chosen = self.within(replace(config, budget=None), vocab_size, width, most, assignment)
        if chosen is None:
            raise Impossible(
                f"embedding.budget ({config.budget}) is {most:,} bytes, but with these settings the smallest "
                f"{config.name} needs {smallest:,}: use embedding.budget="
                f"{_percent(smallest / (vocab_size * width * FLOAT_BYTES))} or more."
            )
        return chosen

    def complete(self, config: C, vocab_size: int, width: int) -> C:
        """Return `config` with its nulls filled in; raises ConfigError where the settings contradict the model."""
        if isinstance(config, TablesConfig):
            if config.table_dtype not in TABLE_DTYPES:
                raise ConfigError(unknown("embedding.table_dtype", config.table_dtype, TABLE_DTYPES))
            if not 0 <= config.keep_dense < vocab_size:
                raise ConfigError(
                    f"embedding.keep_dense ({config.keep_dense}) must be from 0 to {vocab_size - 1:,}: fewer than there are tokens."
                )
        if self.scaled:
            low, high = self.limits(config, vocab_size, width)
            number = getattr(config, self.scaled)
            if number is None:
                raise ConfigError(
                    f"embedding.{self.scaled} is not set: give {config.name} one from {low} to {high:,}, or embedding.budget."
                )
            if not low <= number <= high:
                raise ConfigError(f"embedding.{self.scaled} ({number}) must lie between {low} and {high:,}.")
        return config

    def limits(self, config: C, vocab_size: int, width: int) -> tuple[int, int]:
        """Return the least and the greatest number that the key `scaled` may have."""
        return 2, vocab_size

    def within(
        self, config: C, vocab_size: int, width: int, most: int, assignment: Assignment | None
    ) -> tuple[int, C | None]:
        """Return the bytes of the smallest configuration, and the largest one of at most `most` bytes, if there is one."""
        codes_stored = self.assigned and (assignment is None or assignment.stored)
        if self.scaled is None:
            size = self.size(config, vocab_size, width, codes_stored).bytes
            return size, config if size <= most else None
        if getattr(config, self.scaled) is not None:
            raise ConfigError(
                f"embedding.{self.scaled} ({getattr(config, self.scaled)}) and embedding.budget cannot both be set: "
                "the budget decides it."
            )
        low, high = self.limits(config, vocab_size, width)
        return self.largest(config, self.scaled, range(low, high + 1), vocab_size, width, most, codes_stored)

    def largest(
        self,
        config: C,
        key: str,
        choices: Sequence[int],
        vocab_size: int,
        width: int,
        most: int,
        codes_stored: bool,
    ) -> tuple[int, C | None]:
        """Return the bytes with the first of a key's ascending numbers, and `config` with the last of at most `most` bytes."""

        def complete(number: int) -> C:
            return self.complete(replace(config, **{key: cast(Any, number)}), vocab_size, width)

        def stored(number: int) -> int:
            return self.size(complete(number), vocab_size, width, codes_stored).bytes

        fits = bisect_right(choices, most, key=stored)
        return stored(choices[0]), complete(choices[fits - 1]) if fits else None

    def needs_counts(self, config: C) -> bool:
        """Return whether this configuration depends on how often a corpus holds each token."""
        return isinstance(config, TablesConfig) and config.keep_dense > 0

    def size(self, config: C, vocab_size: int, width: int, codes_stored: bool) -> Size:
        """Return the size by formula, for a resolved configuration.

        With V tokens, width d, W = 4 bytes a float and b(n) = ceil(log2 n) bits for one of n (method.md, section 3):

        | method | floats (times W) | besides |
        |---|---|---|
        | dense | V d | |
        | subspace, codebook, residual, hashing | concat f Q s, sum f Q d, + projection, + V gains of codebook |
            V f b(Q) bits of codes if stored, or U f b(Q) + V b(U) with U code rows |
        | quotient_remainder | (m + ceil(V/m)) d | |
        | low_rank | r (V + d) | |
        | truncated | r V | d bits: which dimensions |
        | trimmed | K d | K b(V) bits of ids |
        | quantised | V d, of 8 or 4 bits | a 2-byte scale a group |
        | mean, hash_only | d, 1 | |
        | with K kept rows | + K d | K b(V) bits of ids |
        | with int8 tables | a byte a number of tables and kept rows | a 2-byte scale a sub-table, or a row |
        """
        tables, plain = self.tables(config, vocab_size, width), self.plain(config, vocab_size, width)
        bits, dtype = self.code_bits(config, vocab_size, width, codes_stored), "fp32"
        if isinstance(config, TablesConfig):
            dtype, kept = config.table_dtype, (config.keep_dense, width)
            tables = [*tables, kept]
            bits += whole_bytes(config.keep_dense * bits_per_code(vocab_size))
        numbers = sum(rows * columns for rows, columns in tables)
        stored = sum(stored_bytes(rows, columns, dtype) for rows, columns in tables)
        return Size(numbers + plain, bits, stored + plain * FLOAT_BYTES)

    def tables(self, config: C, vocab_size: int, width: int) -> list[tuple[int, int]]:
        """Return (scales in 8 bits, numbers of each) of every table that 8 bits can hold."""
        return []

    def plain(self, config: C, vocab_size: int, width: int) -> int:
        """Return how many numbers are stored in fp32 whatever the tables are."""
        return 0

    def code_bits(self, config: C, vocab_size: int, width: int, codes_stored: bool) -> int:
        """Return the bits of codes and ids."""
        return 0

    def codes(self, config: C) -> tuple[int, int]:
        """Return f and Q of an assigned method: how many codes a token has, and how many different ones there are."""
        raise NotImplementedError

    def coordinates(self, config: C, table: Tensor) -> Tensor:
        """Return the vectors (V, n) that are cut into the pieces which codes stand for."""
        return table

    def layer(self, config: C, source: Source) -> nn.Module:
        """Return the layer alone, without kept rows, before it is fitted or loaded."""
        raise NotImplementedError

    def fit(self, layer: Any, config: C, source: Source) -> None:
        """Set the layer's tensors to the best for the pretrained table; called without gradients."""
        raise NotImplementedError

    def empty(self, config: C, source: Source) -> nn.Module:
        """Return the module of a resolved configuration before it is fitted or its state is loaded."""
        layer = self.layer(config, source)
        if isinstance(config, TablesConfig):
            layer = Kept(cast(CompressedEmbedding, layer), config.keep_dense) if config.keep_dense else layer
            for part in layer.modules():
                if isinstance(part, CompressedEmbedding):
                    part.table_dtype = config.table_dtype
        return layer

    @torch.no_grad()
    def build(self, config: C, source: Source) -> nn.Module:
        """Return the module that replaces `nn.Embedding`, for a resolved configuration."""
        module = layer = self.empty(config, source)
        if isinstance(module, Kept):
            ids = source.counted().foremost(len(module.kept), source.padding_idx)
            module.set_integers("kept_ids", ids)
            module.kept.copy_(source.table[module.ids])
            layer, source = module.inner, replace(source, kept=module.ids)
        self.fit(layer, config, source)
        return module

    def identity(self, config: C) -> dict[str, Any]:
        """Return what of a resolved configuration decides the result: name, version, its keys, its options that are in use."""
        keys = [f for f in fields(config) if f.name not in ("name", "budget")]
        return {"name": config.name, "version": self.version} | {
            key.name: getattr(config, key.name)
            for key in keys
            if not key.metadata.get("option") or getattr(config, key.name) != key.default
        }


def whole_bytes(bits: int) -> int:
    """Return the bits rounded up to whole bytes: what a tensor of its own takes in a file."""
    return -(-bits // 8) * 8


def share(budget: str) -> float:
    """Return 0.005 for "0.5%"; raises ConfigError for what is not a positive percentage."""
    if not re.fullmatch(r"\d+(\.\d+)?%", budget) or float(budget[:-1]) == 0:
        raise ConfigError(
            f"embedding.budget ({budget}) must be a share of the dense table's bytes, such as 0.5%."
        )
    return float(budget[:-1]) / 100


def _percent(fraction: float) -> str:
    """Return the share rounded up to four digits, so that it can be used as a budget."""
    return f"{math.ceil(fraction * 1e6) / 1e4:g}%"


def squared_errors(
    module: nn.Module, table: Tensor, padding_idx: int | None, chunk: int = 8192
) -> tuple[np.ndarray, np.ndarray]:
    """Return ||e - e'||^2 and ||e||^2 of every token but the padding one, each (V - 1,) or (V,), a chunk of rows at a time."""
    missed, norms = [], []
    with torch.no_grad():
        for ids in torch.arange(len(table)).split(chunk):
            if padding_idx is not None:
                ids = ids[ids != padding_idx]
            rows = table[ids].double()
            missed.append((module(ids).double() - rows).square().sum(1))
            norms.append(rows.square().sum(1))
    return torch.cat(missed).numpy(), torch.cat(norms).numpy()


def relative_error(missed: np.ndarray, norms: np.ndarray) -> float:
    """Return ||E - E'||_F / ||E||_F of the tokens whose `squared_errors` are given."""
    return float(np.sqrt(missed.sum() / norms.sum()))


def decile_errors(missed: np.ndarray, norms: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return the relative error of each tenth of the tokens, from the most to the least frequent (`counts` of each)."""
    tenths = np.array_split(np.argsort(-counts, kind="stable"), DECILES)
    return [relative_error(missed[tenth], norms[tenth]) for tenth in tenths]
