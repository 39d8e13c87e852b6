"""The interface of an embedding method, and the count of its bytes."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.assignment import Assignment
from bench.embeddings.budget import Budget
from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.packing import bits_per_code
from bench.embeddings.rounding import FLOAT_BYTES, stored_bytes
from bench.embeddings.wrappers import Kept
from bench.errors import ConfigError, Impossible, unknown
from bench.settings.embeddings import EmbeddingConfig, TablesConfig

TABLE_DTYPES = ("fp32", "int8")
INITS = ("fitted", "random")


@dataclass(frozen=True)
class Size:
    """What an embedding stores: `params` trained numbers in `param_bytes`, and `code_bits` bits that training does not change.

    These are packed codes and ids, and the integers of frozen int8 and int4 rows with their scales.
    """

    params: int
    code_bits: int = 0
    param_bytes: int = -1  # with the scales of numbers in fewer bits; by default, all numbers in fp32

    def __post_init__(self) -> None:
        if self.param_bytes < 0:
            object.__setattr__(self, "param_bytes", self.params * FLOAT_BYTES)

    @property
    def bytes(self) -> int:
        """Return the stored bytes: numbers, scales, and codes packed to the bit."""
        return self.param_bytes + -(-self.code_bits // 8)


@dataclass(frozen=True)
class Vocabulary:
    """What a corpus and the tokenizer say about the tokens; only for methods that need it."""

    counts: np.ndarray  # (V,): occurrences in the corpus
    special: tuple[int, ...]  # ids
    unknown: int  # the id that stands for tokens without a vector
    power: float = 0.0
    characters: np.ndarray | None = None  # (V,): `character_counts`; None where no tokenizer is trimmed

    @property
    def weights(self) -> np.ndarray | None:
        """Return the weight of each token's error, (V,): (occurrences + 1)^power; None where all weigh the same."""
        return (self.counts + 1.0) ** self.power if self.power else None

    def rank(self, padding_idx: int | None) -> np.ndarray:
        """Return each token's count, (V,) float64: infinity for special tokens, -1 for padding."""
        rank = self.counts.astype(np.float64)
        rank[list(self.special)] = np.inf
        if padding_idx is not None:
            rank[padding_idx] = -1
        return rank

    def most_frequent(self, number: int, padding_idx: int | None) -> np.ndarray:
        """Return the ids (number,) int64 of the special and then the most frequent tokens, ascending, without padding."""
        return np.sort(np.argsort(-self.rank(padding_idx), kind="stable")[:number])


@dataclass(frozen=True)
class Source:
    """The inputs of an embedding. An empty embedding needs only the table's shape, which can be on the device "meta"."""

    table: Tensor  # (V, d): the pretrained table
    padding_idx: int | None = None
    codes: np.ndarray | None = None  # (V, f); None in an empty embedding whose file holds the codes
    codes_stored: bool = True  # whether a file has to hold them
    vocabulary: Vocabulary | None = None
    generator: torch.Generator | None = None  # of random tables
    device: torch.device | None = None  # that finds the nearest code rows; None: the CPU
    kept: Tensor | None = None  # (K,): ids of the tokens with kept rows, which the fit ignores

    @property
    def shape(self) -> tuple[int, int]:
        """Return V and d."""
        return self.table.shape[0], self.table.shape[1]

    def needed_vocabulary(self) -> Vocabulary:
        """Return the vocabulary, for a method that cannot do without it."""
        assert self.vocabulary is not None
        return self.vocabulary

    def weights(self) -> Tensor:
        """Return the weight of each token's squared error in a fit, (V,) float64: 0 for padding and kept tokens."""
        weights = None if self.vocabulary is None else self.vocabulary.weights
        weights = np.ones(len(self.table)) if weights is None else weights
        weights[[] if self.padding_idx is None else [self.padding_idx]] = 0
        return self.without_kept(torch.from_numpy(weights))

    def normal(self, table: Tensor) -> Tensor:
        """Return a tensor of the table's shape with numbers of mean 0 and variance 1."""
        return torch.randn(table.shape, generator=self.generator)

    def spread(self) -> Tensor:
        """Return the standard deviation of each dimension over the tokens, (d,), without padding."""
        padding = [] if self.padding_idx is None else [self.padding_idx]
        return self.table[np.delete(np.arange(len(self.table)), padding)].std(dim=0)

    def without_kept(self, rows: Tensor) -> Tensor:
        """Return the rows (V, ...) with zeros for kept tokens."""
        return rows if self.kept is None else rows.index_fill(0, self.kept, 0)


C = TypeVar("C", bound=EmbeddingConfig)


class EmbeddingMethod(Generic[C]):
    """A way to store V vectors of width d. V is the vocabulary size, d the width of the pretrained table.

    The configuration is of class `C`. Every method whose configuration is a TablesConfig can keep rows and store its tables
    in 8 bits; the code for both is here.
    """

    version: ClassVar[int] = 1  # raised whenever a change here changes numbers
    scaled: ClassVar[str | None] = None  # the key that a budget sets
    trained: ClassVar[bool] = True  # whether the fine-tuning changes the embedding
    assigned: ClassVar[bool] = False  # whether an assignment gives each token its codes
    trims_tokenizer: ClassVar[bool] = False  # whether texts are tokenised with the tokens that have vectors
    fixed_assignment: ClassVar[str | None] = None  # the method's fixed assignment, which ignores `assignment`

    def resolve(self, config: C, vocab_size: int, width: int, assignment: Assignment | None = None) -> C:
        """Return `config` without nulls and budget: defaults and the budget's choice are filled in.

        `assignment` gives the codes; None stands for any that stores them. Raises ConfigError where the settings contradict
        the model, and Impossible where the budget is too small for any of them.
        """
        if config.budget is None:
            return self.complete(config, vocab_size, width)
        budget = Budget.of(config.budget, vocab_size, width, assignment)
        smallest, chosen = self.within(replace(config, budget=None), budget)
        if chosen is None:
            raise Impossible(
                f"embedding.budget ({config.budget}) is {budget.bytes:,} bytes, but with these settings the smallest "
                f"{config.name} needs {smallest:,}: use embedding.budget={budget.percentage(smallest)} or more."
            )
        return chosen

    def complete(self, config: C, vocab_size: int, width: int) -> C:
        """Return `config` with its nulls filled in; raises ConfigError where the settings contradict the model."""
        if isinstance(config, TablesConfig):
            for key, choices in (("table_dtype", TABLE_DTYPES), ("init", INITS)):
                if getattr(config, key) not in choices:
                    raise ConfigError(unknown(f"embedding.{key}", getattr(config, key), choices))
            if not 0 <= config.keep_dense < vocab_size:
                raise ConfigError(
                    f"embedding.keep_dense ({config.keep_dense}) must be from 0 to {vocab_size - 1:,}: fewer than there are tokens."
                )
        if self.scaled:
            low, high = self.limits(config, vocab_size, width)
            number = getattr(config, self.scaled)
            if number is None:
                raise ConfigError(
                    f"embedding.{self.scaled} is not set: give a number from {low} to {high:,}, or embedding.budget."
                )
            if not low <= number <= high:
                raise ConfigError(f"embedding.{self.scaled} ({number}) must lie between {low} and {high:,}.")
        return config

    def limits(self, config: C, vocab_size: int, width: int) -> tuple[int, int]:
        """Return the smallest and the largest value of the key `scaled`."""
        return 2, vocab_size

    def within(self, config: C, budget: Budget) -> tuple[int, C | None]:
        """Return the bytes of the smallest configuration, and the largest configuration within the budget, if any."""
        if self.scaled is None:
            size = self.size(config, budget.vocab_size, budget.width, budget.codes_stored).bytes
            return size, config if size <= budget.bytes else None
        if getattr(config, self.scaled) is not None:
            raise ConfigError(
                f"embedding.{self.scaled} ({getattr(config, self.scaled)}) and embedding.budget cannot both be set: "
                "the budget decides it."
            )
        low, high = self.limits(config, budget.vocab_size, budget.width)
        return self.largest(config, self.scaled, range(low, high + 1), budget)

    def largest(self, config: C, key: str, values: Sequence[int], budget: Budget) -> tuple[int, C | None]:
        """Return the bytes with the first of a key's ascending `values`, and `config` with the last within the budget."""

        def complete(value: int) -> C:
            changed = replace(config, **{key: cast(Any, value)})
            return self.complete(changed, budget.vocab_size, budget.width)

        def stored(value: int) -> int:
            return self.size(complete(value), budget.vocab_size, budget.width, budget.codes_stored).bytes

        fits = bisect_right(values, budget.bytes, key=stored)
        return stored(values[0]), complete(values[fits - 1]) if fits else None

    def needs_counts(self, config: C) -> bool:
        """Return whether this configuration depends on the tokens' counts in a corpus."""
        return isinstance(config, TablesConfig) and config.keep_dense > 0

    def size(self, config: C, vocab_size: int, width: int, codes_stored: bool) -> Size:
        """Return the size of a resolved configuration by formula.

        With V tokens, width d, W = 4 bytes per float and b(n) = ceil(log2 n) bits per code of n:

        | method | floats (times W) | plus |
        |---|---|---|
        | dense | V d | |
        | subspace, codebook, residual, hashing | concat f Q s, sum f Q d, + projection, + V gains of codebook |
            V f b(Q) bits of codes if stored, or U f b(Q) + V b(U) with U code rows |
        | quotient_remainder | (m + ceil(V/m)) d | |
        | low_rank | r (V + d) | |
        | truncated | r V | d bits, the mask of dimensions |
        | trimmed | K d | K b(V) bits of ids |
        | quantised | | V d integers of 8 or 4 bits, 2 bytes per group, its scale |
        | mean, hash_only | d, 1 | |
        | with K kept rows | + K d | K b(V) bits of ids |
        | with int8 tables | 1 byte per number of tables and kept rows | 2 bytes per sub-table or row, its scale |
        """
        tables, fp32 = self.tables(config, vocab_size, width), self.fp32_params(config, vocab_size, width)
        bits, dtype = self.code_bits(config, vocab_size, width, codes_stored), "fp32"

        # Add the kept rows, which are stored like the tables, and their ids.
        if isinstance(config, TablesConfig):
            dtype = config.table_dtype
            tables = [*tables, (config.keep_dense, width)]
            bits += whole_bytes(config.keep_dense * bits_per_code(vocab_size))

        numbers = sum(rows * columns for rows, columns in tables)
        stored = sum(stored_bytes(rows, columns, dtype) for rows, columns in tables)
        return Size(numbers + fp32, bits, stored + fp32 * FLOAT_BYTES)

    def tables(self, config: C, vocab_size: int, width: int) -> list[tuple[int, int]]:
        """Return (scales, numbers of a scale) of every table that can be stored in 8 bits."""
        return []

    def fp32_params(self, config: C, vocab_size: int, width: int) -> int:
        """Return the number of parameters that are always stored in fp32."""
        return 0

    def code_bits(self, config: C, vocab_size: int, width: int, codes_stored: bool) -> int:
        """Return the bits of codes and ids."""
        return 0

    def codes(self, config: C) -> tuple[int, int]:
        """Return f and Q of an assigned method: the number of codes of a token, and of different codes."""
        raise NotImplementedError

    def coordinates(self, config: C, table: Tensor) -> Tensor:
        """Return the vectors (V, n) whose pieces the codes stand for."""
        return table

    def layer(self, config: C, source: Source) -> nn.Module:
        """Return the layer without kept rows, before it is fitted or its state is loaded."""
        raise NotImplementedError

    def fit(self, layer: Any, config: C, source: Source) -> None:
        """Fit the layer's tensors to the pretrained table; called without gradients."""
        raise NotImplementedError

    def draw(self, layer: Any, source: Source) -> None:
        """Replace fitted tables by random ones; called without gradients.

        A token's vector then has mean 0 and, in each dimension that the method gives it, the variance of the pretrained table.
        """
        layer.weight.copy_(source.normal(layer.weight) * source.spread())

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
            ids = source.needed_vocabulary().most_frequent(len(module.kept), source.padding_idx)
            module.set_integers("kept_ids", ids)
            module.kept.copy_(source.table[module.ids])
            layer, source = module.inner, replace(source, kept=module.ids)
        self.fit(
            layer, config, source
        )  # what no number of a table can say, such as a token's row, comes from the fit
        if isinstance(config, TablesConfig) and config.init == "random":
            self.draw(layer, source)
        return module

    def identity(self, config: C) -> dict[str, Any]:
        """Return the part of a resolved configuration that decides the result: name, version, keys, and options in use."""
        identity = {"name": config.name, "version": self.version}
        for key in fields(config):
            value = getattr(config, key.name)
            unused = key.metadata.get("option") and value == key.default
            if key.name != "budget" and not unused:
                identity[key.name] = value
        return identity


def whole_bytes(bits: int) -> int:
    """Return the bits rounded up to whole bytes: the bits of a separate tensor in a file."""
    return -(-bits // 8) * 8
