"""Tokenised examples as flat tensors, batches of similar length, and the schedule of a training run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bench.settings.schema import TrainingConfig

if TYPE_CHECKING:
    import datasets  # imports 600 modules, which a run needs only for its evaluation

WINDOW = 50  # batches that are shuffled together before they are sorted by length


def gather_padded(
    tokens: list[Tensor], pads: list[int], offsets: Tensor, lengths: Tensor, rows: Tensor, length: int
) -> list[Tensor]:
    """Return the rows of each token column, padded to `length`, and the attention mask: each (B, length)."""
    positions = torch.arange(length, device=rows.device)
    mask = positions < lengths[rows].unsqueeze(1)
    source = (offsets[rows].unsqueeze(1) + positions).where(mask, 0)
    columns = [flat[source].long().where(mask, pad) for flat, pad in zip(tokens, pads, strict=True)]
    return [*columns, mask.long()]


@dataclass(frozen=True)
class Examples:
    """N tokenised examples stored end to end, so that any batch is one gather on the CPU or on the device."""

    tokens: dict[str, Tensor]  # "input_ids" and, if the tokenizer has them, "token_type_ids": (total length,)
    offsets: Tensor  # (N,): where each example starts
    lengths: np.ndarray  # (N,) in tokens
    labels: Tensor  # (N,): int64 classes or float32 values
    pad: dict[str, int]

    @cached_property
    def device_lengths(self) -> Tensor:
        """Return a copy of the lengths (N,) on the device of the tokens."""
        return torch.tensor(self.lengths, device=self.offsets.device)

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_dataset(cls, dataset: "datasets.Dataset", pad_token_id: int, device: torch.device) -> "Examples":
        """Return the examples of a tokenised data set, moved to `device`."""
        return cls.from_table(dataset.with_format("arrow")[:], pad_token_id, device)

    @classmethod
    def from_table(cls, table: pa.Table, pad_token_id: int, device: torch.device) -> "Examples":
        """Return the examples of a tokenised table, moved to `device`."""
        # Read Arrow's memory by DLPack: np.asarray would import pandas.
        tokens = {}
        for name in ("input_ids", "token_type_ids"):
            if name in table.column_names:
                column = table[name].combine_chunks()
                ends = np.from_dlpack(column.offsets)
                flat = np.from_dlpack(column.values)[ends[0] : ends[-1]]
                tokens[name] = torch.tensor(flat, dtype=torch.int32).to(device)
        lengths = np.diff(np.from_dlpack(table["input_ids"].combine_chunks().offsets)).astype(np.int64)
        labels = torch.tensor(np.from_dlpack(table["label"].combine_chunks()))

        return cls(
            tokens=tokens,
            offsets=torch.tensor(np.cumsum(lengths) - lengths).to(device),
            lengths=lengths,
            labels=(labels.float() if labels.is_floating_point() else labels.long()).to(device),
            pad={"input_ids": pad_token_id, "token_type_ids": 0},
        )

    def padded(
        self, rows: Tensor, length: int, gather: Callable[..., list[Tensor]] = gather_padded
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model's inputs (B, length) and labels (B,) of `rows`, a tensor on the same device.

        Nothing is read back from the device, so that a CUDA graph can capture it.
        """
        pads = [self.pad[name] for name in self.tokens]
        columns = gather(list(self.tokens.values()), pads, self.offsets, self.device_lengths, rows, length)
        return dict(zip([*self.tokens, "attention_mask"], columns, strict=True)), self.labels[rows]

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model's inputs and labels of `rows`, padded to the longest of them."""
        return self.padded(torch.from_numpy(rows).to(self.offsets.device), int(self.lengths[rows].max()))


def training_batches(lengths: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, epoch after epoch without end; within an epoch every row occurs once.

    Rows are shuffled, sorted by length within windows of 50 batches and cut into batches, which are shuffled in turn. This
    keeps padding low and the order random.
    """
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(lengths))
        batches = []
        for start in range(0, len(order), WINDOW * batch_size):
            window = order[start : start + WINDOW * batch_size]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        yield from (batches[i] for i in generator.permutation(len(batches)))


def evaluation_tokens(config: TrainingConfig, device: torch.device) -> int:
    """Return how many tokens of an evaluation go through the model at once.

    A GPU takes so many that it works longer on a batch than Python takes to launch it. A CPU is faster with few: at MiniLM's
    size 4,096 tokens take 1.26 times as long as 2,048, and 16,384 tokens 1.6 times (2 cores, rows of 53 tokens).
    """
    return config.eval_batch_tokens or (2**16 if device.type == "cuda" else 2**11)


def evaluation_batches(lengths: np.ndarray, tokens: int) -> tuple[np.ndarray, list[int]]:
    """Return all rows (N,), longest first, and where each batch of them ends.

    A batch padded to its first row has at most `tokens` tokens, or one row. Longest first, a lack of memory shows at once.
    """
    order, ends, end = np.argsort(-lengths, kind="stable"), list[int](), 0
    while end < len(order):
        end = min(end + max(1, tokens // int(lengths[order[end]])), len(order))
        ends.append(end)
    return order, ends


@dataclass(frozen=True)
class Schedule:
    """The rows, learning rate and length of every training step."""

    rows: np.ndarray  # (steps, batch): row numbers, -1 where a batch is not full
    rates: np.ndarray  # (steps,)
    lengths: np.ndarray  # (steps,): tokens of each batch's longest row

    @classmethod
    def of(
        cls, batches: Sequence[np.ndarray], rates: Sequence[float], lengths: np.ndarray, batch_size: int
    ) -> "Schedule":
        """Return the schedule of these batches, one a step; `lengths` (N,) are the examples'."""
        rows = np.full((len(rates), batch_size), -1, dtype=np.int64)
        for step, batch in enumerate(batches):
            rows[step, : len(batch)] = batch
        return cls(rows, np.array(rates), np.array([lengths[batch].max() for batch in batches]))

    def examples(self, steps: int) -> int:
        """Return the number of examples in the first `steps` steps."""
        return int((self.rows[:steps] >= 0).sum())
