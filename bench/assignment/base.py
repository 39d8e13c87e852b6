"""An assignment, and the request that it answers with codes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

VECTORS = ("static", "context", "both")  # what can stand for the tokens: `assignment.vectors`


@dataclass(frozen=True, eq=False)
class Request:
    """A request for codes: V tokens, f sub-tables of Q rows, and for clusters the tokens' vectors."""

    vocab_size: int  # V
    subspaces: int  # f
    rows: int  # Q
    seed: int = 0
    points: np.ndarray | None = None  # (V, d): the tokens' vectors
    weights: np.ndarray | None = None  # (V,): of each token's error; None: all the same

    device: torch.device | None = None  # that finds clusters; None: the CPU, by scikit-learn

    def vectors(self) -> np.ndarray:
        """Return the points of an assignment that clusters them."""
        assert self.points is not None
        return self.points


@dataclass(frozen=True)
class Assignment:
    """A way to compute codes, and the properties that all its codes have."""

    build: Callable[[Request], np.ndarray]  # codes (V, f), int32 in 0..Q-1
    # of VECTORS: what stands for the tokens unless `assignment.vectors` is set
    vectors: str | None = None
    injective: bool = True  # all codes differ
    stored: bool = True  # False where codes are computed from the token id and cost no bytes
    constants: Mapping[str, Any] = field(default_factory=dict)  # part of a run's identity, beside its keys
