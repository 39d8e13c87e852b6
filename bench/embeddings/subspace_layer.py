"""The layer of Jaiswal & Liu, "Lightweight Adaptation of Neural Language Models via Subspace Embedding", CIKM 2023.

With V tokens, width d, f subspaces, Q rows per sub-table and sub-dimension s, a token v has a code c(v) in {0..Q-1}^f and

    concat: e(v) = P [C_1[c_1(v)]; ...; C_f[c_f(v)]]        sum: e(v) = P sum_i C_i[c_i(v)]

from sub-tables C_1..C_f of Q x s. P is an up-projection if f s (concat) or s (sum) is smaller than d, and the identity
otherwise. No V x d matrix is ever built.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import lookup


class SubspaceEmbedding(CompressedEmbedding):
    """A drop-in replacement of `nn.Embedding(V, d)`: f stacked sub-tables, and a code per token and subspace."""

    index: Tensor  # (V, f): i Q + c_i(v), a row of the stacked tables; for padding, the row past the last

    def __init__(
        self,
        codes: np.ndarray,
        rows: int,
        embedding_dim: int,
        *,
        sub_dim: int,
        compose: str = "concat",
        padding_idx: int | None = None,
        codes_stored: bool = True,
    ) -> None:
        super().__init__(len(codes), embedding_dim, padding_idx)
        self.subspaces, self.rows, self.sub_dim, self.compose = codes.shape[1], rows, sub_dim, compose
        self.codes_stored, self.tables = codes_stored, {"weight": self.subspaces}
        inner = sub_dim * (self.subspaces if compose == "concat" else 1)
        self.weight = nn.Parameter(torch.zeros(self.subspaces * rows, sub_dim))
        self.projection = nn.Linear(inner, embedding_dim, bias=False) if inner != embedding_dim else None
        self.register_buffer("index", torch.empty(0), persistent=False)
        self.set_integers("codes", codes)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        index, tables = self.index[input_ids].int(), self._with_zero_row(self.table())
        if self.compose == "concat":
            vectors = lookup(tables, index).flatten(-2)
        else:
            summed = F.embedding_bag(index.flatten(0, -2), tables, mode="sum")
            vectors = summed.view(*input_ids.shape, -1)
        return vectors if self.projection is None else self.projection(vectors)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...). Padding looks up a zero row, which saves the mask."""
        return self.rows_of(input_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return <h, e(v)>, (N, V): f small products <P' h, C_i[q]>, of which each token adds up f."""
        hidden = hidden if self.projection is None else hidden @ self.projection.weight
        if self.compose == "concat":
            pieces = hidden.unflatten(-1, (self.subspaces, self.sub_dim))
            tables = self.table().view(self.subspaces, self.rows, self.sub_dim)
            products = torch.einsum("nfs,fqs->fqn", pieces, tables).flatten(0, 1)
        else:
            products = self.table() @ hidden.T
        return F.embedding_bag(self.index.int(), self._with_zero_row(products), mode="sum").T

    def _with_zero_row(self, table: Tensor) -> Tensor:
        return table if self.padding_idx is None else F.pad(table, (0, 0, 0, 1))

    def codes(self) -> np.ndarray:
        """Return the codes (V, f) as int32, with zeros for padding, which has no code."""
        index = self.index.cpu().numpy().astype(np.int32)
        codes: np.ndarray = index - np.arange(self.subspaces, dtype=np.int32) * self.rows
        if self.padding_idx is not None:
            codes[self.padding_idx] = 0
        return codes

    def integers(self) -> dict[str, tuple[np.ndarray, int]]:
        return {"codes": (self.codes(), self.rows)} if self.codes_stored else {}

    def set_integers(self, name: str, numbers: np.ndarray) -> None:
        starts = torch.arange(self.subspaces, dtype=torch.int32) * self.rows
        index = torch.from_numpy(numbers.astype(np.int32)) + starts
        if self.padding_idx is not None:
            index[self.padding_idx] = self.subspaces * self.rows
        narrow = torch.int16 if self.subspaces * self.rows < 2**15 else torch.int32
        self.index = index.to(self.index.device, narrow)

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, subspaces={self.subspaces}, rows={self.rows}, "
            f"sub_dim={self.sub_dim}, compose={self.compose}, padding_idx={self.padding_idx}"
        )
