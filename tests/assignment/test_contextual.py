"""Injective contextual codes: all different, better than random, the same on any number of threads."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.assignment import integer_root
from bench.assignment.contextual import contextual_codes
from bench.assignment.random import shuffled
from tests.assignment.test_clusters import squared_error

ROOT = Path(__file__).resolve().parents[2]


def clustered(tokens: int, width: int) -> np.ndarray:
    """Return points about a few centres, unevenly many at each."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, width))
    return (centres[rng.zipf(1.5, tokens) % 30] + 0.3 * rng.standard_normal((tokens, width))).astype(
        np.float32
    )


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(2, 9), st.data())
def test_all_codes_differ(f: int, rows: int, data: st.DataObject) -> None:
    most = min(rows**f, 700)
    vocab_size = data.draw(st.one_of(st.just(most), st.integers(min(rows, most), most)))
    points = np.random.default_rng(vocab_size).standard_normal((vocab_size, 7)).astype(np.float32)
    points[: vocab_size // 3] = points[0]  # tokens that cannot be told apart still get codes of their own
    codes = contextual_codes(points, f, rows, iterations=2, seed=0)
    assert codes.shape == (vocab_size, f) and codes.dtype == np.int32
    assert codes.min() >= 0 and codes.max() < rows
    assert len(np.unique(codes, axis=0)) == vocab_size


@pytest.mark.parametrize(("vocab_size", "f"), [(1000, 3), (997, 3), (961, 2), (1296, 4)])
def test_related_tokens_share_pieces(vocab_size: int, f: int) -> None:
    rows, points = integer_root(vocab_size, f), clustered(vocab_size, 24)
    codes = contextual_codes(points, f, rows, iterations=4, seed=0)
    assert len(np.unique(codes, axis=0)) == vocab_size
    assert squared_error(points, codes) < 0.9 * squared_error(points, shuffled(vocab_size, f, rows, seed=0))


@pytest.mark.parametrize("seed", range(4))
def test_more_rounds_are_never_worse(seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((125, 9)).astype(np.float32)  # no spare code
    errors = [squared_error(points, contextual_codes(points, 3, 5, rounds, seed=0)) for rounds in range(1, 9)]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(errors))
    assert errors[-1] < errors[0]


DIGESTS = """
import hashlib, numpy as np
from bench.assignment.contextual import contextual_codes
from bench.assignment.pq import product_quantisation
points = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
tight, loose = contextual_codes(points, 2, 55, 2, 0), contextual_codes(points, 5, 8, 2, 0)
pq = product_quantisation(points, 5, 20, 0)
digests = [hashlib.sha256(codes.tobytes()).hexdigest() for codes in (tight, loose, pq)]
print(*digests)
"""


def test_threads_do_not_change_codes() -> None:
    here: dict[str, list[str]] = {}
    exec(DIGESTS, here)
    threads = {
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "LOKY_MAX_CPU_COUNT": "1",
    }  # and one worker
    command = [sys.executable, "-c", DIGESTS]
    there = subprocess.run(
        command, cwd=ROOT, env=os.environ | threads, stdout=subprocess.PIPE, check=True, text=True
    )
    assert there.stdout.split() == here["digests"]


def test_seed_changes_codes() -> None:
    points = clustered(1000, 24)
    zero, again, one = (contextual_codes(points, 3, 10, 2, seed) for seed in (0, 0, 1))
    assert (zero == again).all() and (zero != one).any()
