"""What every embedding method offers, and how its size is counted."""

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.assignment import Assignment
from bench.errors import ConfigError
from bench.settings.schema import EmbeddingConfig

FLOAT_BYTES = 4  # tables are stored in fp32
DECILES = 10


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


class CompressedEmbedding(nn.Module):
    """What every replacement of `nn.Embedding(V, d)` has: its shape, its padding token, and a tied decoder."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx

    def rows_of(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...), whatever the padding token's is."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...): zero, and without gradient, for padding."""
        vectors = self.rows_of(input_ids)
        return (
            vectors
            if self.padding_idx is None
            else vectors.masked_fill((input_ids == self.padding_idx).unsqueeze(-1), 0)
        )

    def materialise(self) -> Tensor:
        """Return the V x d matrix that this layer stands for (tests and export only)."""
        return self.forward(
            torch.arange(self.num_embeddings, device=next(iter(self.state_dict().values())).device)
        )

    def decoder(self, bias: nn.Parameter | None) -> nn.Module:
        """Return the tied masked-LM decoder, sharing what this layer stores."""
        return TiedDecoder(self, bias)


class TiedDecoder(nn.Module):
    """The tied head: logits[v] = <h, e(v)> + bias[v], from a chunk of the vocabulary at a time."""

    def __init__(self, embedding: CompressedEmbedding, bias: nn.Parameter | None, chunk: int = 4096) -> None:
        super().__init__()
        self._tied = (embedding,)  # in a tuple, so that its tables are not registered, saved or counted twice
        self.bias, self.chunk = (
            bias,
            chunk,
        )  # the head's own parameter: heads that keep a second name for it stay right

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., d)."""
        ids = torch.arange(self._tied[0].num_embeddings, device=hidden.device)
        logits = torch.cat([hidden @ self._tied[0](some).T for some in ids.split(self.chunk)], dim=-1)
        return logits if self.bias is None else logits + self.bias


class EmbeddingMethod:
    """A way to store V vectors of width d. V is the vocabulary size, d the width of the pretrained table."""

    version: ClassVar[int] = 1  # raised whenever a change here changes numbers
    settings: ClassVar[tuple[str, ...]] = ()  # keys of EmbeddingConfig that are part of a run's identity
    extras: ClassVar[tuple[str, ...]] = ()  # keys that are part of it where they are not at their default
    scaled: ClassVar[str | None] = None  # the key whose number a budget sets
    assigned: ClassVar[bool] = False  # whether an assignment gives each token its codes
    own_assignment: ClassVar[str | None] = (
        None  # the assignment that is part of the method, whatever `assignment` says
    )

    def resolve(
        self, config: EmbeddingConfig, vocab_size: int, width: int, assignment: Assignment | None = None
    ) -> EmbeddingConfig:
        """Return `config` with its nulls and what the budget decides filled in, and no budget.

        `assignment` is that of the codes; None: any that stores them. Raises ConfigError where the settings contradict
        the model, or the budget is too small for any of them.
        """
        if config.budget is None:
            return self.complete(config, vocab_size, width)
        most = int(share(config.budget) * vocab_size * width * FLOAT_BYTES)
        smallest, chosen = self.within(replace(config, budget=None), vocab_size, width, most, assignment)
        if chosen is None:
            raise ConfigError(
                f"embedding.budget ({config.budget}) is {most:,} bytes, but with these settings the smallest "
                f"{config.name} needs {smallest:,}: use embedding.budget="
                f"{_percent(smallest / (vocab_size * width * FLOAT_BYTES))} or more."
            )
        return chosen

    def complete(self, config: EmbeddingConfig, vocab_size: int, width: int) -> EmbeddingConfig:
        """Return `config` with its nulls filled in; raises ConfigError where the settings contradict the model."""
        if self.scaled:
            low, high = self.limits(vocab_size, width)
            number = getattr(config, self.scaled)
            if number is None:
                raise ConfigError(
                    f"embedding.{self.scaled} is not set: give {config.name} one from {low} to {high:,}, or embedding.budget."
                )
            if not low <= number <= high:
                raise ConfigError(f"embedding.{self.scaled} ({number}) must lie between {low} and {high:,}.")
        return config

    def limits(self, vocab_size: int, width: int) -> tuple[int, int]:
        """Return the least and the greatest number that the key `scaled` may have."""
        return 2, vocab_size

    def within(
        self, config: EmbeddingConfig, vocab_size: int, width: int, most: int, assignment: Assignment | None
    ) -> tuple[int, EmbeddingConfig | None]:
        """Return the bytes of the smallest configuration, and the largest one of at most `most` bytes, if there is one."""

        def complete(number: int) -> EmbeddingConfig:
            return self.complete(
                replace(config, **{self.scaled: cast(Any, number)}) if self.scaled else config,
                vocab_size,
                width,
            )

        def stored(number: int) -> int:
            return self.size(complete(number), vocab_size, width, codes_stored=False).bytes

        if self.scaled and getattr(config, self.scaled) is not None:
            raise ConfigError(
                f"embedding.{self.scaled} ({getattr(config, self.scaled)}) and embedding.budget cannot both be set: "
                "the budget decides it."
            )
        low, high = self.limits(vocab_size, width) if self.scaled else (0, 0)
        fits = bisect_right(range(low, high + 1), most, key=stored)
        return stored(low), complete(low + fits - 1) if fits else None

    def needs_counts(self, config: EmbeddingConfig) -> bool:
        """Return whether this configuration depends on how often a corpus holds each token."""
        return False

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        """Return the size by formula, for a resolved configuration.

        With V tokens, width d, W = 4 bytes a float and b(n) = ceil(log2 n) bits for one of n (method.md, section 3):

        | method | floats (times W) | besides |
        |---|---|---|
        | dense | V d | |
        | subspace, codebook, residual, hashing | concat f Q s, sum f Q d, + projection, + V gains, + K d kept rows |
            V f b(Q) bits of codes if stored, or U f b(Q) + V b(U) with U code rows; K b(V) of ids |
        | quotient_remainder | (m + ceil(V/m)) d | |
        | low_rank | r (V + d) | |
        | truncated | r V | d bits: which dimensions |
        | trimmed | K d | K b(V) bits of ids |
        | quantised | V d, of 8 or 4 bits | a 2-byte scale a group |
        | mean, hash_only | d, 1 | |
        """
        raise NotImplementedError

    def coordinates(self, config: EmbeddingConfig, table: Tensor) -> Tensor:
        """Return the vectors (V, n) that are cut into the pieces which codes stand for."""
        return table

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
        """Return the module that replaces `nn.Embedding`: `table` (V, d) is the pretrained one, `codes` (V, f)."""
        raise NotImplementedError

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        """Return the same module before its state is loaded; `codes` is None where the state holds them."""
        raise NotImplementedError

    def identity(self, config: EmbeddingConfig) -> dict[str, Any]:
        """Return what of a resolved configuration decides the result: name, version and the settings that are used."""
        used = [key for key in self.extras if getattr(config, key) != getattr(EmbeddingConfig, key)]
        return {"name": config.name, "version": self.version} | {
            key: getattr(config, key) for key in (*self.settings, *used)
        }


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
