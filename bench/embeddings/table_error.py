"""How far an embedding's vectors are from the pretrained table."""

import numpy as np
import torch
from torch import Tensor, nn

DECILES = 10


def squared_errors(
    module: nn.Module, table: Tensor, padding_idx: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ||e - e'||^2 and ||e||^2 of every token except padding, each (V - 1,) or (V,), from chunks of rows."""
    errors, norms = [], []
    with torch.no_grad():
        for ids in torch.arange(len(table)).split(1024):
            if padding_idx is not None:
                ids = ids[ids != padding_idx]
            rows = table[ids].double()
            errors.append((module(ids).double() - rows).square().sum(1))
            norms.append(rows.square().sum(1))
    return torch.cat(errors).numpy(), torch.cat(norms).numpy()


def relative_error(errors: np.ndarray, norms: np.ndarray) -> float:
    """Return ||E - E'||_F / ||E||_F of the tokens with these `errors` and `norms`, as `squared_errors` returns them."""
    return float(np.sqrt(errors.sum() / norms.sum()))


def decile_errors(errors: np.ndarray, norms: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return the relative error of each tenth of the tokens, from the most to the least frequent by `counts`."""
    tenths = np.array_split(np.argsort(-counts, kind="stable"), DECILES)
    return [relative_error(errors[tenth], norms[tenth]) for tenth in tenths]
