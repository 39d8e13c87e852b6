"""The layer of subspace embedding: every token's vector rebuilt from a few small shared sub-tables.

The method of Jaiswal & Liu, "Lightweight Adaptation of Neural Language Models via Subspace Embedding", CIKM 2023
(arXiv 2308.08688). Notation: V tokens, width d, f subspaces, Q rows per sub-table, sub-dimension s.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings import rounding
from bench.embeddings.base import CompressedEmbedding
from bench.embeddings.lookup import lookup
from bench.embeddings.packing import pack, unpack
from bench.embeddings.rounding import rounded


class SubspaceEmbedding(CompressedEmbedding):
    """A drop-in for `nn.Embedding(V, d)` that holds f sub-tables (f * Q, s) and one code per token and subspace.

    `concat`: e(v) = g(v) P [C_1[c_1(v)]; ...; C_f[c_f(v)]], `sum`: e(v) = g(v) P sum_i C_i[c_i(v)], where the gain g is
    there if asked for, and P is an up-projection if f * s (concat) or s (sum) is smaller than d, or else a rotation if
    one is asked for. Kept tokens have a row of their own instead. Where tokens share rows of codes, c(v) is that of row
    `share[v]` of U. No V x d matrix is ever built.
    """

    index: Tensor  # (V or U, f): row of the stacked tables, offsets included; the padding token points past the last row
    share: Tensor | None  # (V,): row of `index`; the padding token has one at the end
    slot: Tensor  # (V,): row of `kept`, or past its last one
    rotation: Tensor | None  # (d, d)

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
        kept: np.ndarray | None = None,
        gain: bool = False,
        rotation: int | None = None,
        table_dtype: str = "fp32",
        share: np.ndarray | None = None,
    ) -> None:
        super().__init__(len(codes if share is None else share), embedding_dim, padding_idx)
        self.subspaces = codes.shape[1]
        self.rows, self.sub_dim, self.compose = rows, sub_dim, compose
        self.codes_stored, self.table_dtype = codes_stored, table_dtype
        self.code_rows = None if share is None else len(codes)
        inner = sub_dim * (self.subspaces if compose == "concat" else 1)
        self.weight = nn.Parameter(torch.zeros(self.subspaces * rows, sub_dim))
        self.projection = nn.Linear(inner, embedding_dim, bias=False) if inner != embedding_dim else None
        self.kept = None if kept is None else nn.Parameter(torch.zeros(len(kept), embedding_dim))
        self.gain = nn.Parameter(torch.ones(self.num_embeddings)) if gain else None
        self.register_buffer(
            "rotation", None if rotation is None else orthogonal(embedding_dim, rotation), persistent=False
        )
        self.register_buffer("index", self._index(codes), persistent=False)
        self.register_buffer("share", None if share is None else self._share(share), persistent=False)
        self.register_buffer("slot", None if kept is None else self._slots(kept), persistent=False)

    def _index(self, codes: np.ndarray) -> Tensor:
        index = torch.from_numpy(codes.astype(np.int64)) + torch.arange(self.subspaces) * self.rows
        if self.padding_idx is not None:
            index = index if self.code_rows is None else F.pad(index, (0, 0, 0, 1))
            index[self.padding_idx if self.code_rows is None else -1] = len(
                self.weight
            )  # the zero row that `_table` appends
        return index.to(torch.int16 if len(self.weight) < 2**15 else torch.int32)

    def _share(self, share: np.ndarray) -> Tensor:
        assert self.code_rows is not None
        rows = torch.from_numpy(share.astype(np.int32))
        if self.padding_idx is not None:
            rows[self.padding_idx] = self.code_rows
        return rows.to(torch.int16 if self.code_rows < 2**15 else torch.int32)

    def _slots(self, kept: np.ndarray) -> Tensor:
        slots = torch.full((self.num_embeddings,), len(kept), dtype=torch.int32)
        slots[torch.from_numpy(kept)] = torch.arange(len(kept), dtype=torch.int32)
        return slots

    def _table(self) -> Tensor:
        """Return the stacked tables as stored; one zero row more, which takes no gradient and is stored nowhere, if needed."""
        table = rounded(self.weight.view(self.subspaces, -1), self.table_dtype).view_as(self.weight)
        return table if self.padding_idx is None and self.kept is None else F.pad(table, (0, 0, 0, 1))

    def kept_rows(self) -> Tensor:
        """Return the kept tokens' rows (K, d) as stored."""
        assert self.kept is not None
        return rounded(self.kept, self.table_dtype)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        index = self.index[input_ids if self.share is None else self.share[input_ids].int()].int()
        if self.kept is not None:
            slot = self.slot[input_ids]
            index = index.masked_fill((slot < len(self.kept)).unsqueeze(-1), len(self.weight))
        if self.compose == "sum":
            vectors: Tensor = F.embedding_bag(index.flatten(0, -2), self._table(), mode="sum").view(
                *input_ids.shape, -1
            )
        else:
            vectors = lookup(self._table(), index).flatten(-2)
        if self.projection is not None:
            vectors = self.projection(vectors)
        if self.rotation is not None:
            vectors = vectors @ self.rotation.T
        if self.gain is not None:
            vectors = vectors * self.gain[input_ids].unsqueeze(-1)
        return vectors if self.kept is None else vectors + lookup(F.pad(self.kept_rows(), (0, 0, 0, 1)), slot)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...). Padding is the zero row: nothing has to be masked."""
        return self.rows_of(input_ids)

    def codes(self) -> np.ndarray:
        """Return the codes (V, f) as int32. The padding token has none and gets zeros, or the first row where tokens share them."""
        return self.stored_codes() if self.share is None else self.stored_codes()[self.shares()]

    def stored_codes(self) -> np.ndarray:
        """Return the rows of codes as int32: (V, f), or (U, f) where tokens share them."""
        index = (
            self.index.cpu().numpy().astype(np.int32) - np.arange(self.subspaces, dtype=np.int32) * self.rows
        )
        if self.padding_idx is not None and self.share is None:
            index[self.padding_idx] = 0
        return index[: self.code_rows]

    def shares(self) -> np.ndarray:
        """Return which of the shared rows of codes each token has, (V,) as int32: 0 for the padding token, which has none."""
        assert self.share is not None
        share = self.share.cpu().numpy().astype(np.int32)
        if self.padding_idx is not None:
            share[self.padding_idx] = 0
        return share

    def kept_ids(self) -> np.ndarray:
        """Return the ids (K,) of the tokens that have a row of their own, in the order of the rows."""
        order = torch.argsort(self.slot, stable=True)[: 0 if self.kept is None else len(self.kept)]
        return order.cpu().numpy()

    def decoder(self, bias: nn.Parameter | None) -> "SubspaceDecoder":
        """Return the tied masked-LM decoder, sharing these tables and codes."""
        return SubspaceDecoder(self, bias)

    def _tables(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are stored as `table_dtype` says, as matrices whose rows share a scale."""
        return {"weight": self.weight} | ({} if self.kept is None else {"kept": self.kept})

    def _scaled(self, name: str, table: Tensor) -> Tensor:
        return table.view(self.subspaces, -1) if name == "weight" else table

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.codes_stored:
            destination[prefix + "codes"] = torch.from_numpy(pack(self.stored_codes(), self.rows))
        if self.code_rows is not None:
            destination[prefix + "share"] = torch.from_numpy(pack(self.shares(), self.code_rows))
        if self.kept is not None:
            destination[prefix + "kept_ids"] = torch.from_numpy(pack(self.kept_ids(), self.num_embeddings))
        if self.table_dtype != "fp32":
            for name, table in self._tables().items():
                packed = rounding.pack(self._scaled(name, table.detach()), self.table_dtype)
                destination |= {prefix + name + part: tensor for part, tensor in packed.items()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        missing, unexpected = (
            args[2],
            args[3],
        )  # (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        taken: list[str] = []

        def take(name: str) -> Any:
            if prefix + name not in state_dict:
                missing.append(prefix + name)
                return None
            taken.append(prefix + name)
            return state_dict[prefix + name]

        if self.codes_stored and (packed := take("codes")) is not None:
            codes = unpack(
                packed.cpu().numpy(),
                self.rows,
                (self.num_embeddings if self.code_rows is None else self.code_rows, self.subspaces),
            )
            self.index = self._index(codes).to(self.index.device)
        if self.code_rows is not None and (packed := take("share")) is not None:
            self.share = self._share(unpack(packed.cpu().numpy(), self.code_rows, (self.num_embeddings,))).to(
                self.index.device
            )
        if self.kept is not None and (packed := take("kept_ids")) is not None:
            kept = unpack(packed.cpu().numpy(), self.num_embeddings, (len(self.kept),))
            self.slot = self._slots(kept).to(self.slot.device)
        if self.table_dtype != "fp32":
            state_dict = dict(state_dict)  # the caller's stays packed
            for name, table in self._tables().items():
                parts = ("", "_scales") if self.table_dtype.startswith("int") else ("",)
                stored = {part: take(name + part) for part in parts}
                if all(tensor is not None for tensor in stored.values()):
                    shape = self._scaled(name, table).shape
                    state_dict[prefix + name] = rounding.unpack(
                        stored, (shape[0], shape[1]), self.table_dtype
                    ).view_as(table)
        super()._load_from_state_dict(state_dict, prefix, *args)
        unexpected[:] = [key for key in unexpected if key not in taken]
        missing[:] = list(dict.fromkeys(missing))

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, subspaces={self.subspaces}, rows={self.rows}, "
            f"sub_dim={self.sub_dim}, compose={self.compose}, padding_idx={self.padding_idx}"
        )


class SubspaceDecoder(nn.Module):
    """The tied head: logits[v] = <h, e(v)> + bias[v] from f small products and V * f gathered additions."""

    def __init__(self, embedding: SubspaceEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__()
        self._tied = (embedding,)  # in a tuple, so that its tables are not registered, saved or counted twice
        self.bias = bias  # the head's own parameter: heads that keep a second name for it stay right

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., d)."""
        tied, shape = self._tied[0], hidden.shape[:-1]
        hidden = hidden.flatten(0, -2)
        inner = hidden if tied.projection is None else hidden @ tied.projection.weight
        inner = inner if tied.rotation is None else inner @ tied.rotation
        table = rounded(tied.weight.view(tied.subspaces, -1), tied.table_dtype).view_as(tied.weight)
        if tied.compose == "concat":
            tables = table.view(tied.subspaces, tied.rows, tied.sub_dim)
            scores = torch.einsum(
                "nfs,fqs->fqn", inner.unflatten(-1, (tied.subspaces, tied.sub_dim)), tables
            ).flatten(0, 1)
        else:
            scores = table @ inner.T
        if tied.padding_idx is not None:
            scores = F.pad(scores, (0, 0, 0, 1))
        logits = F.embedding_bag(tied.index.int(), scores, mode="sum")
        logits = (logits if tied.share is None else F.embedding(tied.share.int(), logits)).T
        logits = logits if tied.gain is None else logits * tied.gain
        if tied.kept is not None:
            logits = logits.index_copy(
                1, torch.argsort(tied.slot)[: len(tied.kept)], hidden @ tied.kept_rows().T
            )
        if self.bias is not None:
            logits = logits + self.bias
        return logits.view(*shape, tied.num_embeddings)


def orthogonal(width: int, seed: int) -> Tensor:
    """Return the orthogonal matrix (d, d) that the seed stands for: Q of a normal matrix, in fp32.

    It is made again from the seed, never stored; across machines it is the same up to rounding.
    """
    normal = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(normal)
    rotation: Tensor = (q * r.diagonal().sign()).float()
    return rotation
