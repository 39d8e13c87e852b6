"""Peak memory and latency of a model, for its record."""

import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

from bench.training.batching import Examples
from bench.training.precision import autocast

STATUS = Path("/proc/self/status")


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory_bytes` returns; only on Linux and CUDA, elsewhere it spans the process's life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak since the reset: on a GPU allocated by torch, on a CPU resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return 1024 * next(
            int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@torch.inference_mode()
def latency_ms(model: nn.Module, data: Examples, dtype: str, repeats: int = 10) -> dict[str, float]:
    """Return the median forward time in ms for a batch of 1 and of 32 of the reported split's examples."""
    device = data.offsets.device
    model.eval()
    result = {}
    for size in (1, 32):
        inputs, _ = data.batch(torch.arange(min(size, len(data))).numpy())
        times = []
        for _ in range(repeats + 2):
            synchronise(device)
            start = time.perf_counter()
            with autocast(dtype, device):
                model(**inputs)
            synchronise(device)
            times.append(1000 * (time.perf_counter() - start))
        result[f"batch{size}"] = round(statistics.median(times[2:]), 3)
    return result
