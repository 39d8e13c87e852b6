"""Wrappers that fit any embedding: kept rows, a gain per token, and rows that tokens share."""

from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import lookup


class Wrapper(CompressedEmbedding):
    """An embedding around another. A file holds the tensors of both side by side, like those of a single layer."""

    stored: ClassVar[tuple[str, ...]]  # names of the wrapper's tensors in a file

    def __init__(self, inner: CompressedEmbedding, vocab_size: int, padding_idx: int | None) -> None:
        super().__init__(vocab_size, inner.embedding_dim, padding_idx)
        self.inner, self.codes_stored = inner, inner.codes_stored
        self.register_state_dict_post_hook(_flatten)

    def usable_ids(self) -> Tensor | None:
        return self.inner.usable_ids()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if (name := key.removeprefix(prefix)) not in self.stored:
                state_dict[f"{prefix}inner.{name}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _flatten(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    inner = f"{prefix}inner."
    for key in [key for key in state if key.startswith(inner)]:
        state[prefix + key.removeprefix(inner)] = state.pop(key)


class Kept(Wrapper):
    """K tokens have a separate row instead of their vector in the inner embedding."""

    stored = ("kept", "kept_scales", "kept_ids")
    ids: Tensor  # (K,): the tokens
    slot: Tensor  # (V,): a token's row of `kept`, or K

    def __init__(self, inner: CompressedEmbedding, number: int) -> None:
        super().__init__(inner, inner.num_embeddings, inner.padding_idx)
        self.kept = nn.Parameter(torch.zeros(number, self.embedding_dim))
        self.tables = {"kept": number}
        self.register_buffer("ids", torch.arange(number), persistent=False)
        self.register_buffer("slot", torch.empty(0), persistent=False)
        self.set_integers("kept_ids", np.arange(number))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        slot, last = self.slot[input_ids], len(self.ids) - 1
        rows = lookup(self.table("kept"), slot.clamp(max=last))
        return torch.where((slot <= last).unsqueeze(-1), rows, self.inner.rows_of(input_ids))

    def logits(self, hidden: Tensor) -> Tensor:
        return self.inner.logits(hidden).index_copy(1, self.ids, hidden @ self.table("kept").T)

    def usable_ids(self) -> Tensor | None:
        inner = self.inner.usable_ids()
        return None if inner is None else torch.cat([inner, self.ids])

    def integers(self) -> dict[str, tuple[np.ndarray, int]]:
        return {"kept_ids": (self.ids.cpu().numpy(), self.num_embeddings)}

    def set_integers(self, name: str, numbers: np.ndarray) -> None:
        ids = torch.from_numpy(numbers.astype(np.int64))
        slot = torch.full((self.num_embeddings,), len(ids), dtype=torch.int32)
        slot[ids] = torch.arange(len(ids), dtype=torch.int32)
        self.ids, self.slot = ids.to(self.ids.device), slot.to(self.slot.device)


class Gain(Wrapper):
    """Each token's inner vector is multiplied by the token's gain."""

    stored = ("gain",)

    def __init__(self, inner: CompressedEmbedding) -> None:
        super().__init__(inner, inner.num_embeddings, inner.padding_idx)
        self.gain = nn.Parameter(torch.ones(self.num_embeddings))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        return self.inner.rows_of(input_ids) * self.gain[input_ids].unsqueeze(-1)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.inner.logits(hidden) * self.gain


class Shared(Wrapper):
    """V tokens share the U rows of an inner embedding, which has no padding token."""

    stored = ("share",)
    share: Tensor  # (V,): each token's row

    def __init__(self, inner: CompressedEmbedding, vocab_size: int, padding_idx: int | None) -> None:
        super().__init__(inner, vocab_size, padding_idx)
        self.register_buffer("share", torch.empty(0), persistent=False)
        self.set_integers("share", np.zeros(vocab_size, dtype=np.int32))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        return self.inner.rows_of(self.share[input_ids].int())

    def logits(self, hidden: Tensor) -> Tensor:
        logits = F.embedding(self.share.int(), self.inner.logits(hidden).T).T
        if self.padding_idx is not None:
            logits[:, self.padding_idx] = 0
        return logits

    def codes(self) -> np.ndarray:
        """Return the inner embedding's codes (V, f) as int32; padding has those of the first row."""
        codes: np.ndarray = cast(Any, self.inner).codes()[self.share.cpu().numpy()]
        return codes

    def integers(self) -> dict[str, tuple[np.ndarray, int]]:
        return {"share": (self.share.cpu().numpy().astype(np.int32), self.inner.num_embeddings)}

    def set_integers(self, name: str, numbers: np.ndarray) -> None:
        share = torch.from_numpy(numbers.astype(np.int32))
        if self.padding_idx is not None:
            share[self.padding_idx] = 0
        narrow = torch.int16 if self.inner.num_embeddings < 2**15 else torch.int32
        self.share = share.to(self.share.device, narrow)
