"""`assignment=hash`: codes are a hash of token id and subspace."""

import numpy as np

from bench.assignment.base import Assignment


def hashed(vocab_size: int, subspaces: int, rows: int, seed: int) -> np.ndarray:
    """Return hashes of token id and subspace as codes (V, f), by the mixing steps of splitmix64 (Steele et al. 2014)."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    number = np.arange(1, vocab_size * subspaces + 1, dtype=np.uint64).reshape(vocab_size, subspaces)
    x = number * odd + np.uint64(seed) * (odd >> np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(rows)).astype(np.int32)


ASSIGNMENT = Assignment(
    lambda ask: hashed(ask.vocab_size, ask.subspaces, ask.rows, ask.seed),
    injective=False,
    stored=False,
)
