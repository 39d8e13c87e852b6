"""What the embedding tests compare with: a dense table by plain indexing, a file's bytes, the largest tensor made."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.embeddings import method
from bench.embeddings.base import Source, Vocabulary
from bench.settings.choices import CHOICES
from bench.settings.embeddings import EmbeddingConfig


def configured(name: str, **keys: Any) -> Any:
    """Return a configuration of the method with these keys."""
    return CHOICES["embedding"][name](**keys)


def dense_table(
    weight: Tensor, codes: np.ndarray, compose: str, projection: Tensor | None, padding_idx: int | None
) -> Tensor:
    """Return the (V, d) table that the stacked tables (f * Q, s) stand for: each token's rows, put together."""
    rows = len(weight) // codes.shape[1]
    pieces = [
        weight[i * rows : (i + 1) * rows][torch.from_numpy(codes[:, i]).long()] for i in range(codes.shape[1])
    ]
    vectors = torch.cat(pieces, dim=1) if compose == "concat" else torch.stack(pieces).sum(0)
    vectors = vectors if projection is None else vectors @ projection.T
    if padding_idx is None:
        return vectors
    kept = torch.ones(len(vectors), 1, dtype=vectors.dtype)
    kept[padding_idx] = 0
    return vectors * kept


def tensor_bytes(path: Path) -> int:
    """Return the bytes of a safetensors file behind its header: 8 bytes that hold its length, and the header itself."""
    return path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")


def stored_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of every tensor in a safetensors file."""
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def built(
    name: str,
    keys: dict[str, Any],
    vocab_size: int,
    width: int,
    codes_stored: bool,
    table: Tensor | None = None,
) -> tuple[EmbeddingConfig, torch.nn.Module, np.ndarray | None]:
    """Return a resolved configuration, the module for a random table with random codes, padding 0, and the codes."""
    chosen, rng = method(name), np.random.default_rng(0)
    config, codes = chosen.resolve(configured(name, **keys), vocab_size, width), None
    if chosen.assigned:
        subspaces, rows = chosen.codes(config)
        codes = rng.integers(0, rows, (vocab_size, subspaces), dtype=np.int32)
    table = (
        torch.from_numpy(rng.normal(size=(vocab_size, width)).astype(np.float32)) if table is None else table
    )
    power = getattr(config, "frequency_power", 0.0)
    counts, characters = rng.permutation(vocab_size), rng.integers(0, 2, vocab_size) * 9
    vocabulary = Vocabulary(counts, (0, 3, 4), 3, power, characters)
    source = Source(table, 0, codes, codes_stored, vocabulary, generator=torch.Generator().manual_seed(0))
    return config, chosen.build(config, source), codes


def empty(
    config: EmbeddingConfig,
    vocab_size: int,
    width: int,
    padding_idx: int | None,
    codes: np.ndarray | None = None,
) -> Any:
    """Return the module of a resolved configuration, ready for a state; without `codes` they are in the state."""
    source = Source(torch.empty(vocab_size, width, device="meta"), padding_idx, codes, codes is None)
    return method(config.name).empty(config, source)


class LargestTensor(TorchDispatchMode):
    """Records the most elements of any tensor that an operation under it gives back (views included)."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and not tensor.is_meta:  # those take no memory
                self.numel = max(self.numel, tensor.numel())
        return result
