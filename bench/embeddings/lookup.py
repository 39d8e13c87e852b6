"""The lookup of table rows, with a faster gradient for small tables on a GPU."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, library, nn

ONE_HOT = 2**22  # the most elements of a one-hot matrix: 16 MiB
# The most ids for which PyTorch may compute the gradient by a kernel of its own, on a Hopper GPU; for more it sorts them.
UNSORTED = 2**12


class OneHotLookup(torch.autograd.Function):
    """`F.embedding` with a gradient that is a product with the one-hot matrix of the ids."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.padding_idx = len(table), padding_idx
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        one_hot = ids.flatten() == torch.arange(ctx.rows, device=ids.device).unsqueeze(1)
        # torch.compile traces this under the autocast of the forward pass, which would change the dtype.
        with torch.autocast(gradient.device.type, enabled=False):
            table = one_hot.to(gradient.dtype) @ gradient.flatten(0, -2)
        if ctx.padding_idx is not None:
            table[ctx.padding_idx] = 0
        return table, None, None


class MatchedLookup(OneHotLookup):
    """`F.embedding` with a gradient that is a product with the matrix of the places (N, N) that have the same id.

    PyTorch's own kernel for so few ids has a race, which rarely gives a wrong gradient (github.com/pytorch/pytorch/pull/187687).
    It may be why two runs with the same seed, alike for 1,673 steps, parted in the 239 after these (H200).
    """

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ids, gradient = ctx.saved_tensors[0].flatten().long(), gradient.flatten(0, -2)
        same = (ids == ids.unsqueeze(1)).to(gradient.dtype)
        with torch.autocast(gradient.device.type, enabled=False):
            sums = same @ gradient
        # A row of the table is written once for each place of its id, so that all these have to write the same bits.
        sums = sums.index_select(0, same.argmax(1))
        table = gradient.new_zeros(ctx.rows, gradient.shape[-1]).index_copy(0, ids, sums)
        if ctx.padding_idx is not None:
            table[ctx.padding_idx] = 0
        return table, None, None


@library.custom_op("bench::embedding_gradient", mutates_args=())
def embedding_gradient(gradient: Tensor, ids: Tensor, rows: int, padding_idx: int) -> Tensor:
    """Return PyTorch's own gradient (rows, d) of `F.embedding`; a `padding_idx` of -1 is none."""
    return cast(Tensor, torch.ops.aten.embedding_dense_backward(gradient, ids, rows, padding_idx, False))


@embedding_gradient.register_fake
def _(gradient: Tensor, ids: Tensor, rows: int, padding_idx: int) -> Tensor:
    return gradient.new_empty(rows, gradient.shape[-1])


class OpaqueLookup(OneHotLookup):
    """`F.embedding` with PyTorch's own gradient, for which torch.compile would write additions in no fixed order."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        padding_idx = -1 if ctx.padding_idx is None else ctx.padding_idx
        return embedding_gradient(gradient, *ctx.saved_tensors, ctx.rows, padding_idx), None, None


def lookup(table: Tensor, ids: Tensor, padding_idx: int | None = None) -> Tensor:
    """Return the rows (..., d) of the table (N, d) at `ids` (...), like `F.embedding`.

    On a GPU the gradient is the same to the bit each time, compiled too. For small tables it is computed as a one-hot matrix
    product, which saves MiniLM 4 % of its time (H100, 32 rows, compiled).
    """
    if not table.is_cuda:
        return F.embedding(ids, table, padding_idx)
    small, few = len(table) * ids.numel() <= ONE_HOT, ids.numel() <= UNSORTED
    kind = OneHotLookup if small else MatchedLookup if few else OpaqueLookup
    return cast(Tensor, kind.apply(table, ids, padding_idx))


class Lookup(nn.Embedding):
    """`nn.Embedding` with the gradient of `lookup`."""

    @staticmethod
    def can_replace(layer: nn.Embedding) -> bool:
        """Return whether the layer uses none of the options that `lookup` lacks."""
        return not (layer.max_norm or layer.scale_grad_by_freq or layer.sparse)

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows (..., d) of the ids (...)."""
        return lookup(self.weight, input, self.padding_idx)
