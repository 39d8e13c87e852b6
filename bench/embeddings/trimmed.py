"""Vocabulary trimming: special and the most frequent tokens keep their rows, all others share the unknown token's.

As in Abdaoui, Pradel & Sigel, "Load What You Need" (SustaiNLP 2020), but the tokenizer stays as it is.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings.base import CompressedEmbedding, EmbeddingMethod, Size, Vocabulary
from bench.embeddings.lookup import lookup
from bench.embeddings.packing import bits_per_code, pack, unpack
from bench.settings.schema import EmbeddingConfig


class TrimmedEmbedding(CompressedEmbedding):
    """K rows and the ids that they belong to; the first of these is the one that stands for all other tokens."""

    ids: Tensor  # (K,)
    slot: Tensor  # (V,): row of each token

    def __init__(self, num_embeddings: int, embedding_dim: int, ids: Tensor, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight = nn.Parameter(torch.zeros(len(ids), embedding_dim))
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("slot", self._slots(ids), persistent=False)

    def _slots(self, ids: Tensor) -> Tensor:
        slots = torch.zeros(self.num_embeddings, dtype=torch.int32)
        slots[ids.cpu()] = torch.arange(len(ids), dtype=torch.int32)
        return slots

    def rows_of(self, input_ids: Tensor) -> Tensor:
        return lookup(self.weight, self.slot[input_ids])

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "ids"] = torch.from_numpy(pack(self.ids.cpu().numpy(), self.num_embeddings))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        key, missing, unexpected = prefix + "ids", args[2], args[3]
        if key not in state_dict:
            missing.append(key)
            return
        ids = torch.from_numpy(
            unpack(state_dict[key].cpu().numpy(), self.num_embeddings, (len(self.weight),))
        ).long()
        self.slot, self.ids = self._slots(ids).to(self.slot.device), ids.to(self.ids.device)
        if key in unexpected:
            unexpected.remove(key)


class Trimmed(EmbeddingMethod):
    """`embedding.rows` tokens keep a row: special ones, then the most frequent of assignment.corpus."""

    settings, scaled = ("rows",), "rows"

    def limits(self, vocab_size: int, width: int) -> tuple[int, int]:
        return 2, vocab_size - 1

    def needs_counts(self, config: EmbeddingConfig) -> bool:
        return True

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        rows = config.rows or 0
        return Size(rows * width, rows * bits_per_code(vocab_size))

    def build(
        self,
        config: EmbeddingConfig,
        table: Tensor,
        codes: np.ndarray | None,
        padding_idx: int | None,
        codes_stored: bool,
        std: float,
        generator: torch.Generator,
        vocabulary: Vocabulary | None = None,
    ) -> nn.Module:
        assert vocabulary is not None and config.rows
        kept = vocabulary.foremost(config.rows, padding_idx)
        if vocabulary.unknown not in kept:
            kept[np.argmin(vocabulary.counts[kept])] = vocabulary.unknown
        ids = torch.from_numpy(np.r_[vocabulary.unknown, np.sort(kept[kept != vocabulary.unknown])])
        module = TrimmedEmbedding(len(table), table.shape[1], ids, padding_idx)
        module.weight.data = table[ids].clone()
        return module

    def empty(
        self,
        config: EmbeddingConfig,
        vocab_size: int,
        width: int,
        padding_idx: int | None,
        codes: np.ndarray | None,
    ) -> nn.Module:
        return TrimmedEmbedding(vocab_size, width, torch.arange(config.rows or 0), padding_idx)
