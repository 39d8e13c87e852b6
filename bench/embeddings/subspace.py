"""Subspace embedding: every token's vector rebuilt from a few small shared sub-tables.

The method of Jaiswal & Liu, "Lightweight Adaptation of Neural Language Models via Subspace Embedding", CIKM 2023
(arXiv 2308.08688). Notation: V tokens, width d, f subspaces, Q rows per sub-table, sub-dimension s.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config import EmbeddingConfig
from bench.embeddings.base import EmbeddingMethod, Size
from bench.embeddings.packing import bits_per_code, pack, unpack
from bench.errors import ConfigError, unknown


class SubspaceEmbedding(nn.Module):
    """A drop-in for `nn.Embedding(V, d)` that holds f sub-tables (f * Q, s) and one code per token and subspace.

    `concat`: e(v) = P [C_1[c_1(v)]; ...; C_f[c_f(v)]], `sum`: e(v) = P sum_i C_i[c_i(v)], where the up-projection P
    exists only if f * s (concat) or s (sum) is smaller than d. No V x d matrix is ever built.
    """

    index: Tensor  # (V, f): row of the stacked tables, offsets included; the padding token points past the last row

    def __init__(
        self, codes: np.ndarray, rows: int, embedding_dim: int, *, sub_dim: int, compose: str = "concat",
        padding_idx: int | None = None, codes_stored: bool = True,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.subspaces = codes.shape
        self.rows, self.embedding_dim, self.sub_dim, self.compose = rows, embedding_dim, sub_dim, compose
        self.padding_idx, self.codes_stored = padding_idx, codes_stored
        inner = sub_dim * (self.subspaces if compose == "concat" else 1)
        self.weight = nn.Parameter(torch.zeros(self.subspaces * rows, sub_dim))
        self.projection = nn.Linear(inner, embedding_dim, bias=False) if inner != embedding_dim else None
        self.register_buffer("index", self._index(codes), persistent=False)

    def _index(self, codes: np.ndarray) -> Tensor:
        index = torch.from_numpy(codes.astype(np.int64)) + torch.arange(self.subspaces) * self.rows
        if self.padding_idx is not None:
            index[self.padding_idx] = len(self.weight)  # the zero row that `_table` appends
        return index.to(torch.int16 if len(self.weight) < 2**15 else torch.int32)

    def _table(self) -> Tensor:
        """Return the stacked tables; with padding, one zero row more, which takes no gradient and is stored nowhere."""
        return self.weight if self.padding_idx is None else F.pad(self.weight, (0, 0, 0, 1))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...)."""
        index = self.index[input_ids].int()
        if self.compose == "sum":
            vectors: Tensor = F.embedding_bag(index.flatten(0, -2), self._table(), mode="sum").view(*input_ids.shape, -1)
        else:
            vectors = F.embedding(index, self._table()).flatten(-2)
        result: Tensor = vectors if self.projection is None else self.projection(vectors)
        return result

    def materialise(self) -> Tensor:
        """Return the V x d matrix that this layer stands for (tests and export only)."""
        return self.forward(torch.arange(self.num_embeddings, device=self.weight.device))

    def codes(self) -> np.ndarray:
        """Return the codes (V, f) as int32. The padding token has none and gets zeros."""
        index = self.index.cpu().numpy().astype(np.int32) - np.arange(self.subspaces, dtype=np.int32) * self.rows
        if self.padding_idx is not None:
            index[self.padding_idx] = 0
        return index

    def decoder(self, bias: nn.Parameter | None) -> "SubspaceDecoder":
        """Return the tied masked-LM decoder, sharing these tables and codes."""
        return SubspaceDecoder(self, bias)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.codes_stored:
            destination[prefix + "codes"] = torch.from_numpy(pack(self.codes(), self.rows))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        packed = state_dict.get(prefix + "codes") if self.codes_stored else None
        if packed is not None:
            codes = unpack(packed.cpu().numpy(), self.rows, (self.num_embeddings, self.subspaces))
            self.index = self._index(codes).to(self.index.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing, unexpected = args[2], args[3]  # (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        if packed is not None and prefix + "codes" in unexpected:
            unexpected.remove(prefix + "codes")
        elif packed is None and self.codes_stored:
            missing.append(prefix + "codes")

    def extra_repr(self) -> str:
        return (f"{self.num_embeddings}, {self.embedding_dim}, subspaces={self.subspaces}, rows={self.rows}, "
                f"sub_dim={self.sub_dim}, compose={self.compose}, padding_idx={self.padding_idx}")


class SubspaceDecoder(nn.Module):
    """The tied head: logits[v] = <h, e(v)> + bias[v] from f small products and V * f gathered additions."""

    def __init__(self, embedding: SubspaceEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__()
        self._tied = (embedding,)  # in a tuple, so that its tables are not registered, saved or counted twice
        self.bias = bias  # the head's own parameter: heads that keep a second name for it stay right

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., d)."""
        tied = self._tied[0]
        inner = hidden if tied.projection is None else hidden @ tied.projection.weight
        inner = inner.flatten(0, -2)
        if tied.compose == "concat":
            tables = tied.weight.view(tied.subspaces, tied.rows, tied.sub_dim)
            scores = torch.einsum("nfs,fqs->fqn", inner.unflatten(-1, (tied.subspaces, tied.sub_dim)), tables).flatten(0, 1)
        else:
            scores = tied.weight @ inner.T
        if tied.padding_idx is not None:
            scores = F.pad(scores, (0, 0, 0, 1))
        logits = F.embedding_bag(tied.index.int(), scores, mode="sum").T
        if self.bias is not None:
            logits = logits + self.bias
        return logits.reshape(*hidden.shape[:-1], tied.num_embeddings)


class Subspace(EmbeddingMethod):
    """Builds, checks and counts `SubspaceEmbedding`."""

    settings = ("subspaces", "rows", "sub_dim", "compose", "init")
    assigned = True

    def resolve(self, config: EmbeddingConfig, vocab_size: int, width: int) -> EmbeddingConfig:
        from bench.assignment import integer_root

        f = config.subspaces
        for key, choices in (("compose", ("concat", "sum")), ("init", ("random", "fitted"))):
            if getattr(config, key) not in choices:
                raise ConfigError(unknown(f"embedding.{key}", str(getattr(config, key)), choices))
        if f < 1:
            raise ConfigError(f"embedding.subspaces ({f}) must be at least 1.")
        if config.sub_dim is None and config.compose == "concat" and width % f:
            near = sorted((n for n in range(1, width + 1) if width % n == 0), key=lambda n: (abs(n - f), n))[:2]
            raise ConfigError(f"embedding.subspaces ({f}) must divide the model's width ({width}): "
                              f"use {min(near)} or {max(near)}, or set embedding.sub_dim.")
        sub_dim = config.sub_dim if config.sub_dim is not None else width // f if config.compose == "concat" else width
        pieces = f if config.compose == "concat" else 1
        inner = sub_dim * pieces
        if pieces > width:
            raise ConfigError(f"embedding.subspaces ({f}) is more than the model's width ({width}): use fewer subspaces.")
        if not 1 <= inner <= width:
            raise ConfigError(f"embedding.sub_dim ({sub_dim}) gives an inner width of {inner}, but the model's width is "
                              f"{width}: use embedding.sub_dim={width // pieces} or less, and at least 1.")
        rows = config.rows if config.rows is not None else max(2, integer_root(vocab_size, f))
        if not 2 <= rows <= vocab_size:
            raise ConfigError(f"embedding.rows ({rows}) must lie between 2 and the vocabulary size ({vocab_size:,}).")
        return replace(config, sub_dim=sub_dim, rows=rows)

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        f, q, s = config.subspaces, config.rows or 0, config.sub_dim or 0
        inner = f * s if config.compose == "concat" else s
        params = f * q * s + (inner * width if inner != width else 0)
        return Size(params, vocab_size * f * bits_per_code(q) if codes_stored else 0)

    def build(
        self, config: EmbeddingConfig, table: Tensor, codes: np.ndarray | None, padding_idx: int | None,
        codes_stored: bool, std: float, generator: torch.Generator,
    ) -> nn.Module:
        assert codes is not None and config.rows and config.sub_dim
        module = SubspaceEmbedding(codes, config.rows, table.shape[1], sub_dim=config.sub_dim, compose=config.compose,
                                   padding_idx=padding_idx, codes_stored=codes_stored)
        if config.init == "fitted":
            fit(module, table)
        else:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.normal_(std=std, generator=generator)
        return module

    def empty(
        self, config: EmbeddingConfig, vocab_size: int, width: int, padding_idx: int | None, codes: np.ndarray | None
    ) -> nn.Module:
        assert config.rows and config.sub_dim
        zeros = np.zeros((vocab_size, config.subspaces), dtype=np.int32)
        return SubspaceEmbedding(zeros if codes is None else codes, config.rows, width, sub_dim=config.sub_dim,
                                 compose=config.compose, padding_idx=padding_idx, codes_stored=codes is None)


@torch.no_grad()
def fit(module: SubspaceEmbedding, table: Tensor, sweeps: int = 8) -> None:
    """Set the sub-tables to the means of the pretrained sub-vectors that share a code, and P to the principal axes.

    For `concat` the means are the least-squares optimum given the codes. For `sum` every table in turn takes the means
    of what the others leave over (`sweeps` rounds of coordinate descent on the same squared error).
    """
    kept = torch.ones(len(table), dtype=torch.bool)
    if module.padding_idx is not None:
        kept[module.padding_idx] = False
    target, codes = table[kept].double(), torch.from_numpy(module.codes()).long()[kept]
    if module.projection is not None:
        axes = torch.linalg.eigh(target.T @ target).eigenvectors.flip(1)[:, : module.projection.in_features]
        module.projection.weight.copy_(axes)
        target = target @ axes
    tables = module.weight.view(module.subspaces, module.rows, module.sub_dim)
    if module.compose == "concat":
        for i, piece in enumerate(target.split(module.sub_dim, dim=1)):
            tables[i] = _means(piece, codes[:, i], module.rows)
        return
    for _ in range(sweeps):
        for i in range(module.subspaces):
            others = sum((tables[j].double()[codes[:, j]] for j in range(module.subspaces) if j != i), torch.zeros(()))
            tables[i] = _means(target - others, codes[:, i], module.rows)


def _means(vectors: Tensor, codes: Tensor, rows: int) -> Tensor:
    """Return the mean vector of each code (rows, s); a code that no token has gets the mean of all."""
    sums = torch.zeros(rows, vectors.shape[1], dtype=vectors.dtype).index_add_(0, codes, vectors)
    counts = torch.bincount(codes, minlength=rows).unsqueeze(1)
    return torch.where(counts > 0, sums / counts.clamp(min=1), vectors.mean(0))
