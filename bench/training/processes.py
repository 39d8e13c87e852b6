"""One run on several devices: `torchrun --nproc-per-node N -m bench run ...` starts N processes, which share every batch."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.errors import BenchError

COUNT = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
RANK = int(os.environ.get("RANK", "0"))
IS_MAIN = RANK == 0  # the only process that logs and writes


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process: each of several processes has its own GPU."""
    return device if COUNT == 1 else cast(torch.device, _accelerator(device.type == "cpu").device)


@cache
def _accelerator(cpu: bool) -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=cpu)


def wait(device: torch.device) -> None:
    """Wait until all processes of the run have come here; `device` is this one's."""
    if COUNT > 1:
        _accelerator(device.type == "cpu").wait_for_everyone()


def refuse_several(key: str, what: str) -> None:
    """Raise BenchError in a run of several processes: all would wait for the lock of a file that only one may write."""
    if COUNT > 1:
        raise BenchError(
            f"{key}: only a single process can compute the {what}: run it once without torchrun, then all {COUNT} use it."
        )


class SharedModel:
    """A model whose gradients are averaged over the processes; with a single process, the model itself."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.accelerator = _accelerator(device.type == "cpu") if COUNT > 1 else None
        self.model = cast(nn.Module, self.accelerator.prepare_model(model)) if self.accelerator else model

    def backward_pass(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a backward pass. Processes exchange gradients only in the `last` pass of a step."""
        return nullcontext() if self.accelerator is None or last else self.accelerator.no_sync(self.model)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` over the processes."""
        return values if self.accelerator is None else cast(Tensor, self.accelerator.reduce(values, "mean"))
