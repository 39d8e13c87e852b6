"""The work that is measured: synthetic rows as long as MRPC's, and their floating point operations."""

from dataclasses import dataclass
from functools import cache

import datasets
import numpy as np
import torch
from torch import Tensor

from bench.models.architectures import architecture

# MRPC's training rows through BERT's uncased tokenizer: 53.2 tokens on average, standard deviation 13.0, 19 to 103.
MEAN, DEVIATION, SHORTEST, LONGEST = 53.2, 13.0, 19, 103
FIRST_WORD = 5  # ids below are special tokens in every vocabulary


@dataclass(frozen=True)
class Rows:
    """Synthetic sentence pairs: token ids of each row, and a class."""

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
def synthetic_rows(backbone: str, count: int, seed: int) -> Rows:
    """Return `count` rows for the backbone's vocabulary; the same seed gives the same lengths for every backbone."""
    rng, config = np.random.default_rng(seed), architecture(backbone)
    lengths = rng.normal(MEAN, DEVIATION, count).round().clip(SHORTEST, LONGEST).astype(int)
    labels = rng.integers(0, 2, count).tolist()
    ids = [rng.integers(FIRST_WORD, config.vocab_size, n).tolist() for n in lengths]
    types = [[0] * (n // 2) + [1] * (n - n // 2) for n in lengths] if config.type_vocab_size > 1 else None
    return Rows(ids, types, labels)


@cache
def flops_per_row(backbone: str) -> float:
    """Return the mean floating point operations of one row's training step, on its real tokens.

    A forward pass costs 2 P n + 4 n^2 d L for n tokens, P = 4 d^2 + 2 d m weights in each of L layers of width d and
    feed-forward width m; a backward pass twice that (after Kaplan et al. 2020, section 2.1).
    """
    config = architecture(backbone)
    d, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * d**2 + 2 * d * config.intermediate_size)
    n = synthetic_rows(backbone, 3668, seed=0).lengths.astype(float)
    return float(np.mean(3 * (2 * weights * n + 4 * n**2 * d * layers)))


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
