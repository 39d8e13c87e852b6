"""Codes that are the base-Q digits of a number: of the token id (sequential) or of its place in a shuffle (random)."""

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


def shuffled(vocab_size: int, subspaces: int, rows: int, seed: int) -> np.ndarray:
    """Return the digits of a seeded permutation of the token ids, (V, f)."""
    return digits(np.random.Generator(np.random.PCG64(seed)).permutation(vocab_size), subspaces, rows)


def hashed(vocab_size: int, subspaces: int, rows: int, seed: int) -> np.ndarray:
    """Return codes (V, f) that a hash of token id and subspace gives: the mixing steps of splitmix64 (Steele et al. 2014)."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    x = np.arange(1, vocab_size * subspaces + 1, dtype=np.uint64).reshape(
        vocab_size, subspaces
    ) * odd + np.uint64(seed) * (odd >> np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(rows)).astype(np.int32)
