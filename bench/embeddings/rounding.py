"""Tables in fewer bits than fp32: rounded in training, packed in a file.

int8 and int4 are symmetric: q = round(w / scale), with scale = max |w| / qmax of each row in fp16 (qmax 127 and 7), as in
the "absmax" quantisation of Dettmers et al., LLM.int8() (NeurIPS 2022).
"""

import torch
from torch import Tensor

BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
SCALE_BYTES = 2


def stored_bytes(rows: int, columns: int, dtype: str) -> int:
    """Return the bytes of a (rows, columns) table with its scales, one a row, where `dtype` has scales."""
    return -(-rows * columns * BITS[dtype] // 8) + (SCALE_BYTES * rows if dtype.startswith("int") else 0)


def quantise(table: Tensor, dtype: str, scale_dtype: torch.dtype = torch.float16) -> tuple[Tensor, Tensor]:
    """Return integers (n, m) as int8 and their scales (n, 1) in 16 bits. A row of zeros has a scale of 1."""
    most = 2 ** (BITS[dtype] - 1) - 1
    scales = (table.abs().amax(dim=1, keepdim=True) / most).to(scale_dtype)
    scales = scales.where(scales > 0, torch.ones_like(scales))
    return (table / scales.float()).round().clamp(-most, most).to(torch.int8), scales


def pack(table: Tensor, dtype: str) -> dict[str, Tensor]:
    """Return what a file holds of a table (n, m): "" the numbers (int4: two a byte, low half first), "_scales" (n, 1)."""
    if dtype in ("fp32", "fp16"):
        return {"": table.to(torch.float32 if dtype == "fp32" else torch.float16)}
    numbers, scales = quantise(table, dtype)
    if dtype == "int4":
        nibbles = (
            torch.nn.functional.pad(numbers.flatten() & 15, (0, numbers.numel() % 2))
            .view(-1, 2)
            .to(torch.uint8)
        )
        numbers = nibbles[:, 0] | (nibbles[:, 1] << 4)
    return {"": numbers, "_scales": scales}


def unpack_int4(packed: Tensor) -> Tensor:
    """Return the two numbers of each byte (..., n) side by side: (..., 2n) as int8."""
    signed = packed.view(torch.int8)
    return torch.stack([(signed << 4) >> 4, signed >> 4], dim=-1).flatten(-2)


def unpack(stored: dict[str, Tensor], shape: tuple[int, int], dtype: str) -> Tensor:
    """Return the fp32 table of `shape` that `pack` stored; raises ValueError where the number of bytes does not fit."""
    numbers = stored[""]
    if dtype == "int4":
        if numbers.numel() != -(-shape[0] * shape[1] // 2):
            raise ValueError(
                f"{numbers.numel()} bytes of int4, but a table of {shape} needs {-(-shape[0] * shape[1] // 2)}"
            )
        numbers = unpack_int4(numbers)[: shape[0] * shape[1]].view(shape)
    return numbers.float() * stored["_scales"].float() if dtype.startswith("int") else numbers.float()


def rounded(table: Tensor, dtype: str) -> Tensor:
    """Return the table (n, m) as it will be after storing, with the gradient of the table itself (straight-through).

    Training the fp32 table through the rounding is the standard of quantisation-aware training (Bengio et al. 2013,
    arXiv 1308.3432; Jacob et al., CVPR 2018).
    """
    if dtype == "fp32":
        return table
    with torch.no_grad():
        if dtype == "fp16":
            stored = table.half().float()
        else:
            numbers, scales = quantise(table, dtype)
            stored = numbers.float() * scales.float()
    return table + (stored - table).detach()
