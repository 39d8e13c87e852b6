"""Tables in fewer bits than fp32: rounded in training and packed in a file.

int8 and int4 are symmetric: q = round(w / scale), with scale = max |w| / qmax of each row in fp16 (qmax 127 and 7), as in
the "absmax" quantisation of Dettmers et al., LLM.int8() (NeurIPS 2022).
"""

import torch
from torch import Tensor

BITS = {"fp32": 32, "int8": 8, "int4": 4}
FLOAT_BYTES, SCALE_BYTES = 4, 2  # of fp32 and fp16


def stored_bytes(rows: int, columns: int, dtype: str) -> int:
    """Return the bytes of a (rows, columns) table, with one scale a row unless `dtype` is fp32."""
    return -(-rows * columns * BITS[dtype] // 8) + (0 if dtype == "fp32" else SCALE_BYTES * rows)


def quantise(
    table: Tensor, dtype: str = "int8", scale_dtype: torch.dtype = torch.float16
) -> tuple[Tensor, Tensor]:
    """Return integers (n, m) as int8 and their scales (n, 1) in 16 bits; the scale of a row of zeros is 1."""
    most = 2 ** (BITS[dtype] - 1) - 1
    scales = (table.abs().amax(dim=1, keepdim=True) / most).to(scale_dtype)
    scales = scales.where(scales > 0, torch.ones_like(scales))
    return (table / scales.float()).round().clamp(-most, most).to(torch.int8), scales


def pack_int4(numbers: Tensor) -> Tensor:
    """Return int8 numbers (..., 2n) from -8 to 7 as bytes (..., n), with even positions in the low halves."""
    nibbles = (numbers & 15).view(torch.uint8).unflatten(-1, (-1, 2))
    packed: Tensor = nibbles[..., 0] | (nibbles[..., 1] << 4)
    return packed


def unpack_int4(packed: Tensor) -> Tensor:
    """Return the two numbers of each byte (..., n) side by side: (..., 2n) as int8."""
    signed = packed.view(torch.int8)
    return torch.stack([(signed << 4) >> 4, signed >> 4], dim=-1).flatten(-2)


def rounded(table: Tensor) -> Tensor:
    """Return the table (n, m) as int8 will store it, with the gradient of the fp32 table (straight-through).

    Training the fp32 table through the rounding is quantisation-aware training (Bengio et al. 2013, arXiv 1308.3432; Jacob
    et al., CVPR 2018).
    """
    with torch.no_grad():
        numbers, scales = quantise(table)
        stored = numbers.float() * scales.float()
    return table + (stored - table).detach()
