"""Embeddings as standard operators: what a graph of Gather, Cast and sums can say, with codes as narrow integers."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings import rounding
from bench.embeddings.base import CompressedEmbedding
from bench.embeddings.quantised import QuantisedEmbedding
from bench.embeddings.subspace_layer import SubspaceEmbedding


def as_operators(embedding: nn.Module) -> nn.Module:
    """Return a module of the same vectors that ONNX can say; the embedding itself where it can already."""
    if isinstance(embedding, SubspaceEmbedding):
        return SubspaceLookup(embedding)
    if isinstance(embedding, QuantisedEmbedding) and embedding.bits == 4:
        return Int4Lookup(embedding)
    return embedding


class SubspaceLookup(nn.Module):
    """A gather on codes, and one on the tables: rows with their rounding done, and a zero row at the end of each sub-table."""

    codes: Tensor  # (V, f), or (U + 1, f) where tokens share them, in the narrowest integers that hold 0..Q; Q is the zero row
    share: Tensor | None  # (V,): row of the codes; the last one is that of zero rows
    offsets: Tensor  # (f,)
    tables: Tensor  # (f * (Q + 1), s)
    slot: Tensor | None  # (V,)
    kept: Tensor | None  # (K + 1, d)

    def __init__(self, old: SubspaceEmbedding) -> None:
        super().__init__()
        f, rows = old.subspaces, old.rows
        without = torch.zeros(old.num_embeddings, dtype=torch.bool)  # tokens that have nothing of the tables
        if old.kept is not None:
            without[torch.from_numpy(old.kept_ids()).long()] = True
        if old.padding_idx is not None:
            without[old.padding_idx] = True
        codes, share = torch.from_numpy(old.stored_codes()), None
        if old.code_rows is None:
            codes = codes.masked_fill(without.unsqueeze(1), rows)
        else:
            codes = F.pad(codes, (0, 0, 0, 1), value=rows)
            share = _narrow(torch.from_numpy(old.shares()).masked_fill(without, old.code_rows), old.code_rows)
        stored = rounding.rounded(old.weight.detach().view(f, -1), old.table_dtype).view(f, rows, -1)
        self.summed, self.projection = old.compose == "sum", old.projection
        self.register_buffer("codes", _narrow(codes, rows))
        self.register_buffer("share", share)
        self.register_buffer("offsets", torch.arange(f) * (rows + 1))
        self.register_buffer("tables", F.pad(stored, (0, 0, 0, 1)).flatten(0, 1))
        self.register_buffer("rotation", old.rotation)
        self.register_buffer("gain", None if old.gain is None else old.gain.detach().unsqueeze(-1))
        self.register_buffer("slot", None if old.kept is None else old.slot)
        self.register_buffer(
            "kept", None if old.kept is None else F.pad(old.kept_rows().detach(), (0, 0, 0, 1))
        )

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...)."""
        codes = self.codes[input_ids if self.share is None else self.share[input_ids].long()]
        pieces = F.embedding(codes.long() + self.offsets, self.tables)
        vectors = pieces.sum(-2) if self.summed else pieces.flatten(-2)
        if self.projection is not None:
            vectors = self.projection(vectors)
        if self.rotation is not None:
            vectors = vectors @ cast(Tensor, self.rotation).T
        if self.gain is not None:
            vectors = vectors * F.embedding(input_ids, cast(Tensor, self.gain))
        if self.kept is None or self.slot is None:
            return vectors
        return vectors + F.embedding(self.slot[input_ids].long(), self.kept)


def _narrow(numbers: Tensor, most: int) -> Tensor:
    """Return the numbers as the narrowest integers that hold 0..most."""
    return numbers.to(torch.uint8 if most < 2**8 else torch.int16 if most < 2**15 else torch.int32)


class Int4Lookup(CompressedEmbedding):
    """Two numbers a byte, told apart by arithmetic: ONNX shifts no signed integers."""

    def __init__(self, old: QuantisedEmbedding) -> None:
        super().__init__(old.num_embeddings, old.embedding_dim, old.padding_idx)
        self.register_buffer("weight", old.weight)
        self.register_buffer("scales", old.scales)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        packed = cast(Tensor, self.weight)[input_ids].int()
        halves = torch.stack([packed % 16, packed // 16], dim=-1).flatten(-2)
        scales = cast(Tensor, self.scales)[input_ids].float()
        vectors: Tensor = (
            ((halves + 8) % 16 - 8).unflatten(-1, (scales.shape[-1], -1)) * scales.unsqueeze(-1)
        ).flatten(-2)
        return vectors
