"""What every embedding method offers, and how its size is counted."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.config import EmbeddingConfig

FLOAT_BYTES = 4  # tables are stored in fp32


@dataclass(frozen=True)
class Size:
    """What an embedding stores: `params` floats, and `code_bits` bits of packed codes."""

    params: int
    code_bits: int = 0

    @property
    def bytes(self) -> int:
        """Return the stored bytes: fp32 floats and codes packed to the bit."""
        return self.params * FLOAT_BYTES + -(-self.code_bits // 8)


class EmbeddingMethod:
    """A way to store V vectors of width d. V is the vocabulary size, d the width of the pretrained table."""

    version: ClassVar[int] = 1  # raised whenever a change here changes numbers
    settings: ClassVar[tuple[str, ...]] = ()  # keys of EmbeddingConfig that are part of a run's identity
    assigned: ClassVar[bool] = False  # whether an assignment gives each token its codes

    def resolve(self, config: EmbeddingConfig, vocab_size: int, width: int) -> EmbeddingConfig:
        """Return `config` with its nulls filled in; raises ConfigError where the settings contradict the model."""
        return config

    def size(self, config: EmbeddingConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        """Return the size by formula (method.md section 3), for a resolved configuration."""
        raise NotImplementedError

    def build(
        self, config: EmbeddingConfig, table: Tensor, codes: np.ndarray | None, padding_idx: int | None,
        codes_stored: bool, std: float, generator: torch.Generator,
    ) -> nn.Module:
        """Return the module that replaces `nn.Embedding`: `table` (V, d) is the pretrained one, `codes` (V, f)."""
        raise NotImplementedError

    def empty(
        self, config: EmbeddingConfig, vocab_size: int, width: int, padding_idx: int | None, codes: np.ndarray | None
    ) -> nn.Module:
        """Return the same module before its state is loaded; `codes` is None where the state holds them."""
        raise NotImplementedError

    def identity(self, config: EmbeddingConfig) -> dict[str, Any]:
        """Return what of a resolved configuration decides the result: name, version and the settings that are used."""
        return {"name": config.name, "version": self.version} | {key: getattr(config, key) for key in self.settings}


def relative_error(module: nn.Module, table: Tensor, padding_idx: int | None, chunk: int = 8192) -> float:
    """Return ||E - E'||_F / ||E||_F over all tokens but the padding one, a chunk of rows at a time."""
    error = norm = 0.0
    with torch.no_grad():
        for ids in torch.arange(len(table)).split(chunk):
            if padding_idx is not None:
                ids = ids[ids != padding_idx]
            rows = table[ids].double()
            error += (module(ids).double() - rows).square().sum().item()
            norm += rows.square().sum().item()
    return float((error / norm) ** 0.5)
