"""Digits of ids and of permutations, and the exact integer root."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.assignment import assign, integer_root
from bench.settings.choices import named


def codes(name: str, vocab_size: int, subspaces: int, rows: int, tmp: Path, seed: int = 0) -> np.ndarray:
    config = named("assignment", {"name": name, "seed": seed})
    return assign(
        config, vocab_size=vocab_size, subspaces=subspaces, rows=rows, table=None, vectors=None, cache_dir=tmp
    ).codes


@given(st.integers(1, 10**40), st.integers(1, 60))
def test_integer_root_is_the_smallest(n: int, f: int) -> None:
    q = integer_root(n, f)
    assert q**f >= n and (q == 1 or (q - 1) ** f < n)


@pytest.mark.parametrize(("base", "power"), [(3, 40), (10, 18), (2, 63), (10, 3), (63, 3), (501, 2), (7, 21)])
def test_integer_root_of_perfect_powers(base: int, power: int) -> None:
    assert integer_root(base**power, power) == base
    assert integer_root(base**power + 1, power) == base + 1


@pytest.mark.parametrize(
    ("vocab_size", "f", "q"),
    [(30_522, 2, 175), (30_522, 3, 32), (30_522, 4, 14), (30_522, 8, 4),
     (250_002, 2, 501), (250_002, 3, 63), (250_002, 4, 23), (250_002, 8, 5)],
)  # fmt: skip
def test_integer_root_of_real_vocabularies(vocab_size: int, f: int, q: int) -> None:
    assert integer_root(vocab_size, f) == q


@pytest.mark.parametrize(("vocab_size", "f", "q"), [(1000, 3, 10), (999, 4, 7), (50, 1, 50), (300, 70, 3)])
def test_sequential_spells_the_id(vocab_size: int, f: int, q: int, tmp_path: Path) -> None:
    found = codes("sequential", vocab_size, f, q, tmp_path)
    assert found.dtype == np.int32
    for token in range(vocab_size):
        assert [int(c) for c in found[token]] == [token // q**i % q for i in range(f)]
    assert not list(tmp_path.iterdir())  # costs nothing, so nothing is kept


def test_random_permutes_the_sequential_codes(tmp_path: Path) -> None:
    def numbers(seed: int) -> list[int]:
        return (codes("random", 1000, 3, 10, tmp_path, seed) @ np.array([1, 10, 100])).tolist()

    assert sorted(numbers(0)) == list(range(1000))
    assert numbers(0) == np.random.Generator(np.random.PCG64(0)).permutation(1000).tolist()
    assert numbers(0) != numbers(1)
