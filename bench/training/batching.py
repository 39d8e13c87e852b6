"""Tokenised examples as flat tensors, and batches of similar length cut out of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

if TYPE_CHECKING:
    import datasets  # 600 modules, which a run does not need before it is evaluated

WINDOW = 50  # batches that are shuffled together before they are sorted by length


def gathered(
    tokens: list[Tensor], pads: list[int], offsets: Tensor, lengths: Tensor, rows: Tensor, length: int
) -> list[Tensor]:
    """Return the rows' part of each column of tokens, padded, and the mask of what is no padding: each (B, length)."""
    positions = torch.arange(length, device=rows.device)
    inside = positions < lengths[rows].unsqueeze(1)
    source = (offsets[rows].unsqueeze(1) + positions).where(inside, 0)
    return [flat[source].long().where(inside, pad) for flat, pad in zip(tokens, pads, strict=True)] + [
        inside.long()
    ]


@dataclass(frozen=True)
class Examples:
    """N tokenised examples laid end to end, so that any batch is one gather, on the CPU or on the device."""

    tokens: dict[str, Tensor]  # "input_ids" and, if the tokenizer has them, "token_type_ids": (total length,)
    offsets: Tensor  # (N,): where each example starts
    lengths: np.ndarray  # (N,) in tokens
    labels: Tensor  # (N,): int64 classes or float32 values
    pad: dict[str, int]

    @cached_property
    def lengths_there(self) -> Tensor:
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
        columns = [name for name in ("input_ids", "token_type_ids") if name in table.column_names]
        tokens = {name: table[name].combine_chunks() for name in columns}
        ends = {
            name: np.from_dlpack(column.offsets) for name, column in tokens.items()
        }  # np.asarray would import pandas
        lengths = np.diff(ends["input_ids"]).astype(np.int64)
        labels = torch.tensor(np.from_dlpack(table["label"].combine_chunks()))
        return cls(
            tokens={
                name: torch.tensor(
                    np.from_dlpack(column.values)[ends[name][0] : ends[name][-1]], dtype=torch.int32
                ).to(device)
                for name, column in tokens.items()
            },
            offsets=torch.tensor(np.cumsum(lengths) - lengths).to(device),
            lengths=lengths,
            labels=(labels.float() if labels.is_floating_point() else labels.long()).to(device),
            pad={"input_ids": pad_token_id, "token_type_ids": 0},
        )

    def padded(
        self, rows: Tensor, length: int, gather: Callable[..., list[Tensor]] = gathered
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model's inputs (B, length) and labels (B,) of `rows`, a tensor on the same device; reads nothing back."""
        columns = gather(
            list(self.tokens.values()),
            [self.pad[name] for name in self.tokens],
            self.offsets,
            self.lengths_there,
            rows,
            length,
        )
        return dict(zip([*self.tokens, "attention_mask"], columns, strict=True)), self.labels[rows]

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Return the same, padded to the longest of `rows`."""
        return self.padded(torch.from_numpy(rows).to(self.offsets.device), int(self.lengths[rows].max()))


def training_batches(lengths: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, epoch after epoch without end; within an epoch every row occurs once.

    Rows are shuffled, sorted by length inside windows of 50 batches, cut into batches, and the batches shuffled: little
    padding, and still a random order. Where in an epoch the long batches come is random but the same for every seed, so
    that several seeds trained side by side have batches of one length at each step.
    """
    generator, order_of_lengths = np.random.default_rng(seed), np.random.default_rng(0)
    while True:
        order = generator.permutation(len(lengths))
        batches = []
        for start in range(0, len(order), WINDOW * batch_size):
            window = order[start : start + WINDOW * batch_size]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        yield from (batches[i] for i in order_of_lengths.permutation(len(batches)))


def evaluation_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return batches over all rows in the order of their length, longest first (a memory shortage shows at once)."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
