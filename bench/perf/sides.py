"""What is compared: the interface of a side, which trains or evaluates and returns the seconds that it took."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bench.perf.workload import Rows

LEARNING_RATE = 2e-5


def warm_steps(device: torch.device) -> int:
    """Return the number of steps before the clock starts; torch.compile replays its CUDA graphs from the third on."""
    return 10 if device.type == "cuda" else 1


@dataclass(frozen=True)
class Work:
    """What every side of a cell goes through."""

    rows: Rows
    batch_size: int
    steps: int  # of each measurement
    repeats: int  # measurements
    device: torch.device


class Side:
    """A way to train or to evaluate."""

    how: ClassVar[str]
    dtype: str
    fallback: str | None = None

    def measure(self) -> float:
        """Return the seconds of `work.steps` training steps, or of one evaluation of all rows; warming up is not counted."""
        raise NotImplementedError
