"""`assignment=random`: codes are the digits of the token ids' places in a shuffle."""

import numpy as np

from bench.assignment.base import Assignment
from bench.assignment.digits import digits


def shuffled(vocab_size: int, subspaces: int, rows: int, seed: int) -> np.ndarray:
    """Return the digits of a seeded permutation of the token ids, (V, f)."""
    return digits(np.random.Generator(np.random.PCG64(seed)).permutation(vocab_size), subspaces, rows)


ASSIGNMENT = Assignment(lambda ask: shuffled(ask.vocab_size, ask.subspaces, ask.rows, ask.seed))
