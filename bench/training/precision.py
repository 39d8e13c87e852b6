"""Number formats of the forward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = ("auto", "fp32", "bf16")


def resolve_dtype(dtype: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 on a GPU and fp32 on a CPU."""
    return dtype if dtype != "auto" else "bf16" if device.type == "cuda" else "fp32"


def autocast(dtype: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for forward passes in `dtype` (fp32 | bf16)."""
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bf16" else nullcontext()
