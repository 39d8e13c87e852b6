"""Number formats and kernels of the forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = ("auto", "fp32", "bf16")
# Without cuDNN's attention, which plans again for each new length.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def resolve_dtype(dtype: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 on a GPU and fp32 on a CPU."""
    return dtype if dtype != "auto" else "bf16" if device.type == "cuda" else "fp32"


@contextmanager
def autocast(dtype: str, device: torch.device) -> Iterator[None]:
    """Run forward passes in `dtype` (fp32 | bf16); on a GPU, with the attention that is fastest for short rows.

    PyTorch prefers cuDNN's attention. Without it BERT-base trains 2.5 % faster and MiniLM 3 % (H100, 32 rows).
    """
    attention = sdpa_kernel(ATTENTION) if device.type == "cuda" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"), attention:
        yield
