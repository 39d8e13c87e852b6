"""How far an embedding's vectors are from the pretrained table."""

import numpy as np
import torch
from torch import Tensor, nn

DECILES = 10
CHUNK = 1024  # tokens at once, whose vectors stay in the processor's cache


def squared_errors(
    module: nn.Module, table: Tensor, padding_idx: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ||e - e'||^2 and ||e||^2 of every token except padding, each (V - 1,) or (V,), from chunks of rows."""
    ids = torch.arange(len(table))
    errors, norms = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for part, rows in zip(ids.split(CHUNK), table.split(CHUNK), strict=True):
            for squares, vectors in ((errors, module(part) - rows), (norms, rows)):
                squares.append(torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64).square())
    kept = ids != (-1 if padding_idx is None else padding_idx)
    return torch.cat(errors)[kept].numpy(), torch.cat(norms)[kept].numpy()


def relative_error(errors: np.ndarray, norms: np.ndarray) -> float:
    """Return ||E - E'||_F / ||E||_F of the tokens with these `errors` and `norms`, as `squared_errors` returns them."""
    return float(np.sqrt(errors.sum() / norms.sum()))


def decile_errors(errors: np.ndarray, norms: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return the relative error of each tenth of the tokens, from the most to the least frequent by `counts`."""
    tenths = np.array_split(np.argsort(-counts, kind="stable"), DECILES)
    return [relative_error(errors[tenth], norms[tenth]) for tenth in tenths]
