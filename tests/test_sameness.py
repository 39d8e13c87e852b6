"""Engines compared over paired seeds."""

import pytest

from bench.errors import BenchError
from bench.sameness import Comparison, compare


def test_a_difference_counts_against_the_spread_of_the_seeds():
    same = Comparison("mrpc", "accuracy", [0.80, 0.82, 0.84], [0.81, 0.82, 0.84])
    assert same.difference == pytest.approx(0.01 / 3) and same.spread == pytest.approx(0.02) and same.same
    assert not Comparison("mrpc", "accuracy", [0.80, 0.82, 0.84], [0.83, 0.85, 0.87]).same


def test_a_fallback_is_no_comparison(tiny):
    with pytest.raises(BenchError, match="trained with the engine eager, not graph.*CUDA"):
        compare([*tiny, "embedding=dense"], tasks=["lexical_sentiment"])
