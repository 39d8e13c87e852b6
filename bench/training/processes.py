"""One run on several devices: `torchrun --nproc-per-node N -m bench run ...` starts N processes, which share every batch."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.errors import BenchError

COUNT = int(os.environ.get("WORLD_SIZE", "1"))  # set by the launcher
RANK = int(os.environ.get("RANK", "0"))
IS_MAIN = RANK == 0  # the only process that logs and writes


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process: with several, each has a GPU of its own."""
    if COUNT == 1:
        return device
    own: torch.device = _accelerator(device.type == "cpu").device
    return own


@cache
def _accelerator(cpu: bool) -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=cpu)


def refuse_several(key: str, what: str) -> None:
    """Raise BenchError in a run of several processes, which would wait for one another at the lock of what is made once."""
    if COUNT > 1:
        raise BenchError(
            f"{key}: the {what} is made by one process: run it once without torchrun, then all {COUNT} use it."
        )


class Shared:
    """A model whose gradients are averaged over the processes; with one process the model as it is."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.accelerator = _accelerator(device.type == "cpu") if COUNT > 1 else None
        self.model = (
            model if self.accelerator is None else cast(nn.Module, self.accelerator.prepare_model(model))
        )

    def alone(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a backward pass; only after the `last` of a step do the processes exchange gradients."""
        return nullcontext() if self.accelerator is None or last else self.accelerator.no_sync(self.model)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` over the processes."""
        return values if self.accelerator is None else cast(Tensor, self.accelerator.reduce(values, "mean"))
