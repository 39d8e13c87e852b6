"""Codes that are the base-Q digits of a number, and the least Q that gives every token its code."""

import numpy as np


def integer_root(n: int, f: int) -> int:
    """Return the smallest Q with Q**f >= n: bisection in integers, as a floating root is off on perfect powers."""
    low, high = 1, 1 << (n.bit_length() // f + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle**f >= n else (middle + 1, high)
    return low


def digits(numbers: np.ndarray, subspaces: int, rows: int) -> np.ndarray:
    """Return the `subspaces` lowest base-`rows` digits of each number, lowest first: (V, f) int32."""
    columns = []
    for _ in range(subspaces):
        numbers, digit = np.divmod(numbers, rows)
        columns.append(digit)
    return np.stack(columns, axis=1).astype(np.int32)


def sequential(vocab_size: int, subspaces: int, rows: int) -> np.ndarray:
    """Return the digits of the token ids, (V, f): the complementary partitions of Shi et al. (KDD 2020)."""
    return digits(np.arange(vocab_size), subspaces, rows)
