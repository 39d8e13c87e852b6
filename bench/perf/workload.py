"""The work that is measured: synthetic rows with the lengths of real ones, and their floating point operations."""

from dataclasses import dataclass
from functools import cache

import datasets
import numpy as np
import torch
from torch import Tensor

from bench.models.architectures import architecture

FIRST_WORD = 5  # ids below are special tokens in all vocabularies
# Words that occur, the k-th of them 1 / k times as often as the first (Zipf's law): MRPC's training pairs have 10,988 different
# ids through XLM-R's tokenizer, of which the first 100 make up 53 % of the tokens. Steps over a large table depend on it.
WORDS = 12_000


@dataclass(frozen=True)
class Lengths:
    """The distribution of lengths in tokens: mean, standard deviation and limits of a gamma distribution."""

    mean: float
    deviation: float
    shortest: int
    longest: int

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return `count` lengths (N,)."""
        scale = self.deviation**2 / self.mean
        lengths = rng.gamma(self.mean / scale, scale, count).round()
        return lengths.clip(self.shortest, self.longest).astype(int)


LENGTHS = {
    # MRPC's training pairs through BERT's uncased tokenizer.
    "training": Lengths(53.2, 13.0, 19, 103),
    # The sentences of XNLI's test in 15 languages through XLM-R's tokenizer, cut at a recovery's max_length.
    "distillation": Lengths(23.0, 12.6, 3, 64),
    # The pairs of XNLI's test, likewise.
    "evaluation": Lengths(45.9, 16.0, 10, 140),
    # Packed rows are full.
    "pretraining": Lengths(128.0, 0.1, 128, 128),
}
# Forward passes that cost as much as a step: a backward pass is two, the teacher's forward pass one (its body is the student's).
# Of a pretraining the body alone is counted, not the decoder.
FORWARD_PASSES = {"training": 3, "distillation": 4, "evaluation": 1, "pretraining": 3}


@dataclass(frozen=True)
class Rows:
    """Synthetic rows: token ids and a class of each."""

    ids: list[list[int]]
    token_type_ids: list[list[int]] | None  # as the backbone's tokenizer gives them
    labels: list[int]

    @property
    def lengths(self) -> np.ndarray:
        """Return the lengths (N,) in tokens."""
        return np.array([len(row) for row in self.ids])

    def dataset(self, pad_to: int | None = None, pad_token_id: int = 0) -> datasets.Dataset:
        """Return the rows as a tokenised data set with an attention mask, padded to `pad_to` tokens if that is set."""
        columns: dict[str, list[list[int]]] = {"input_ids": self.ids}
        if self.token_type_ids is not None:
            columns["token_type_ids"] = self.token_type_ids
        columns["attention_mask"] = [[1] * len(row) for row in self.ids]
        if pad_to is not None:
            fill = {"input_ids": pad_token_id}
            columns = {
                name: [row + [fill.get(name, 0)] * (pad_to - len(row)) for row in rows]
                for name, rows in columns.items()
            }
        return datasets.Dataset.from_dict({**columns, "label": self.labels})


@cache
def synthetic_rows(backbone: str, work: str, count: int) -> Rows:
    """Return `count` rows for the backbone's vocabulary, as long as those of `work`: pairs, sentences in a distillation, or packed.

    The lengths are the same for every backbone; the words are as frequent as those of English pairs.
    """
    rng, config = np.random.default_rng(0), architecture(backbone)
    lengths = LENGTHS[work].draw(rng, count)
    labels = rng.integers(0, 2, count).tolist()
    words = rng.permutation(np.arange(FIRST_WORD, config.vocab_size))[:WORDS]
    shares = 1 / np.arange(1, len(words) + 1)
    flat = rng.choice(words, lengths.sum(), p=shares / shares.sum())
    ids = [row.tolist() for row in np.split(flat, np.cumsum(lengths)[:-1])]
    typed = config.type_vocab_size > 1 and work in ("training", "evaluation")
    return Rows(ids, [[0] * (n // 2) + [1] * (n - n // 2) for n in lengths] if typed else None, labels)


def flops_per_row(backbone: str, passes: int, lengths: np.ndarray) -> float:
    """Return the mean floating point operations of `passes` forward passes of rows with these lengths (N,), on real tokens.

    A forward pass costs 2 P n + 4 n^2 d L for n tokens, P = 4 d^2 + 2 d m weights in each of L layers of width d and
    feed-forward width m; a backward pass counts as two forward passes (after Kaplan et al. 2020, section 2.1).
    """
    config = architecture(backbone)
    d, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * d**2 + 2 * d * config.intermediate_size)
    n = lengths.astype(float)
    return float(np.mean(passes * (2 * weights * n + 4 * n**2 * d * layers)))


def matrix_rate(device: torch.device, size: int, repeats: int = 30) -> float:
    """Return the measured rate of a large bf16 matrix product, in floating point operations a second."""
    a: Tensor = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        a @ a
    end.record()
    torch.cuda.synchronize(device)
    milliseconds: float = start.elapsed_time(end)
    return repeats * 2 * size**3 / (milliseconds / 1000)
