"""The base of every replacement of `nn.Embedding(V, d)`: vectors, a tied decoder, and a file packed to the bit."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings import rounding
from bench.embeddings.packing import pack, unpack

CHUNK = 4096  # tokens whose logits are computed at once


class CompressedEmbedding(nn.Module):
    """The base of every replacement of `nn.Embedding(V, d)`.

    A subclass implements `rows_of`. It names its `tables`, which can be stored in 8 bits, and its `integers`, which are
    stored packed.
    """

    codes_stored = (
        False  # whether the file holds codes; codes that are not stored are computed from a token's id
    )
    table_dtype = "fp32"  # fp32 | int8: how the file holds the tables, and how the layer computes with them

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.tables: dict[str, int] = {}  # name of a parameter -> number of its scales in 8 bits

    def rows_of(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...); that of the padding token is not used."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors (..., d) of token ids (...): zero and without gradient for padding."""
        vectors = self.rows_of(input_ids)
        if self.padding_idx is None:
            return vectors
        return vectors.masked_fill((input_ids == self.padding_idx).unsqueeze(-1), 0)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return <h, e(v)> of each hidden state (N, d) and token, (N, V), computed in chunks of the vocabulary."""
        ids = torch.arange(self.num_embeddings, device=hidden.device)
        return torch.cat([hidden @ self(part).T for part in ids.split(CHUNK)], dim=-1)

    def usable_ids(self) -> Tensor | None:
        """Return the ids (K,) of the tokens that a text may consist of, as only these have vectors; None: all tokens."""
        return None

    def decoder(self, bias: nn.Parameter | None) -> "TiedDecoder":
        """Return the tied masked-LM decoder, which shares this layer's tensors."""
        return TiedDecoder(self, bias)

    def materialise(self) -> Tensor:
        """Return the V x d matrix of all vectors (for tests and export only)."""
        device = next(iter(self.state_dict().values())).device
        return self.forward(torch.arange(self.num_embeddings, device=device))

    def table(self, name: str = "weight") -> Tensor:
        """Return a table as the file will hold it, with the gradient of the fp32 table."""
        table: Tensor = getattr(self, name)
        if self.table_dtype == "fp32":
            return table
        return rounding.rounded(table.view(self.tables[name], -1)).view_as(table)

    def integers(self) -> dict[str, tuple[np.ndarray, int]]:
        """Return the integers that are stored packed to the bit: name -> (numbers from 0, an upper bound of them)."""
        return {}

    def set_integers(self, name: str, numbers: np.ndarray) -> None:
        """Set the numbers called `name`, in the shape that `integers` returns."""
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, (numbers, distinct) in self.integers().items():
            destination[prefix + name] = torch.from_numpy(pack(numbers, distinct))
        if self.table_dtype != "fp32":
            for name, scales in self.tables.items():
                table = getattr(self, name).detach().view(scales, -1)
                destination[prefix + name], destination[f"{prefix}{name}_scales"] = rounding.quantise(table)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        missing = args[2]  # args: local_metadata, strict, missing_keys, unexpected_keys, error_msgs

        # Unpack the integers.
        for name, (numbers, distinct) in self.integers().items():
            if (packed := state_dict.pop(prefix + name, None)) is None:
                missing.append(prefix + name)
            else:
                self.set_integers(name, unpack(packed.cpu().numpy(), distinct, numbers.shape))

        # Rescale the tables.
        if self.table_dtype != "fp32":
            for name in self.tables:
                if (scales := state_dict.pop(f"{prefix}{name}_scales", None)) is None:
                    missing.append(f"{prefix}{name}_scales")
                elif prefix + name in state_dict:
                    table = state_dict[prefix + name].float() * scales.float()
                    state_dict[prefix + name] = table.view_as(getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)


class TiedDecoder(nn.Module):
    """The tied head: logits[v] = <h, e(v)> + bias[v]."""

    def __init__(self, embedding: CompressedEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__()
        self._tied = (embedding,)  # in a tuple, so that its tables are not registered, saved or counted twice
        self.bias = bias  # the head's parameter itself, so that a second name for it in the head stays valid

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., d)."""
        logits = self._tied[0].logits(hidden.flatten(0, -2))
        logits = logits if self.bias is None else logits + self.bias
        return logits.view(*hidden.shape[:-1], -1)
