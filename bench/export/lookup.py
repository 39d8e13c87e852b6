"""Embeddings as standard ONNX operators: Gather, Cast and sums, with codes as narrow integers."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.quantised import QuantisedEmbedding
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.embeddings.wrappers import Wrapper


@torch.no_grad()
def as_operators(embedding: nn.Module) -> nn.Module:
    """Return a module with the same vectors that ONNX can express. The embedding is changed, and returned if it qualifies."""
    if isinstance(embedding, CompressedEmbedding):
        for name in embedding.tables:  # round once, not in every forward pass
            getattr(embedding, name).copy_(embedding.table(name))
        embedding.table_dtype = "fp32"
    if isinstance(embedding, Wrapper):
        embedding.inner = cast(CompressedEmbedding, as_operators(embedding.inner))
    if isinstance(embedding, SubspaceEmbedding):
        return SubspaceLookup(embedding)
    if isinstance(embedding, QuantisedEmbedding) and embedding.bits == 4:
        return Int4Lookup(embedding)
    return embedding


class SubspaceLookup(CompressedEmbedding):
    """A gather on the codes and a gather on the tables, with a zero row at the end of each sub-table for padding."""

    codes: Tensor  # (V, f) in the narrowest integers that hold 0..Q; Q is the zero row
    offsets: Tensor  # (f,)
    weight: Tensor  # (f * (Q + 1), s)

    def __init__(self, old: SubspaceEmbedding) -> None:
        super().__init__(old.num_embeddings, old.embedding_dim, None)
        codes = torch.from_numpy(old.codes())
        if old.padding_idx is not None:
            codes[old.padding_idx] = old.rows
        narrow = torch.uint8 if old.rows < 2**8 else torch.int16 if old.rows < 2**15 else torch.int32
        tables = F.pad(old.weight.detach().view(old.subspaces, old.rows, -1), (0, 0, 0, 1)).flatten(0, 1)
        self.summed, self.projection = old.compose == "sum", old.projection
        self.register_buffer("codes", codes.to(narrow))
        self.register_buffer("offsets", torch.arange(old.subspaces) * (old.rows + 1))
        self.register_buffer("weight", tables)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        pieces = F.embedding(self.codes[input_ids.long()].long() + self.offsets, self.weight)
        vectors = pieces.sum(-2) if self.summed else pieces.flatten(-2)
        return vectors if self.projection is None else self.projection(vectors)


class Int4Lookup(CompressedEmbedding):
    """Two numbers a byte, separated by arithmetic: ONNX has no shift of signed integers."""

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
