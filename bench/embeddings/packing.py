"""The packing of codes to the bit, as files store them."""

import numpy as np


def bits_per_code(rows: int) -> int:
    """Return ceil(log2(rows)): the bits that distinguish `rows` codes."""
    return (rows - 1).bit_length()


def pack(codes: np.ndarray, rows: int) -> np.ndarray:
    """Return `codes` (any shape, 0 <= code < rows) as uint8 of ceil(size * bits / 8) bytes, row by row, low bit first."""
    numbers = codes.reshape(-1).astype(np.min_scalar_type(rows - 1).newbyteorder("<"))
    octets = numbers.view(np.uint8).reshape(-1, numbers.itemsize)
    planes = np.unpackbits(octets, axis=1, count=bits_per_code(rows), bitorder="little")
    return np.packbits(planes.reshape(-1), bitorder="little")


def unpack(packed: np.ndarray, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the int32 codes of `shape` that `pack` stored; raises ValueError if the length or a code does not fit."""
    bits, count = bits_per_code(rows), int(np.prod(shape))
    if packed.size != -(-count * bits // 8):
        raise ValueError(
            f"there are {packed.size} bytes of packed codes, but {shape} codes of {bits} bits need {-(-count * bits // 8)}"
        )
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    codes = np.zeros(count, dtype=np.int32)
    for bit in range(bits):
        codes |= planes[:, bit].astype(np.int32) << bit
    if count and codes.max() >= rows:
        raise ValueError(f"packed codes go up to {codes.max()}, but there are {rows} rows")
    return codes.reshape(shape)
