"""What the embedding tests compare with: a dense table by plain indexing, a file's bytes, the largest tensor made."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def dense_table(
    weight: Tensor, codes: np.ndarray, compose: str, projection: Tensor | None, padding_idx: int | None
) -> Tensor:
    """Return the (V, d) table that the stacked tables (f * Q, s) stand for: each token's rows, put together."""
    rows = len(weight) // codes.shape[1]
    pieces = [weight[i * rows : (i + 1) * rows][torch.from_numpy(codes[:, i]).long()] for i in range(codes.shape[1])]
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


class LargestTensor(TorchDispatchMode):
    """Records the most elements of any tensor that an operation under it gives back (views included)."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result
