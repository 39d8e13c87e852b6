"""Engines compared over paired seeds."""

import pytest
import scipy.stats

from bench.errors import BenchError
from bench.perf.equivalence import Comparison, compare


def test_a_difference_counts_against_the_spread_of_the_seeds():
    same = Comparison("mrpc", "graph", "accuracy", [0.80, 0.82, 0.84], [0.81, 0.82, 0.84])
    assert (
        same.difference.mean == pytest.approx(0.01 / 3) and same.spread == pytest.approx(0.02) and same.same
    )
    assert not Comparison("mrpc", "graph", "accuracy", [0.80, 0.82, 0.84], [0.83, 0.851, 0.87]).same


def test_a_difference_wider_than_the_spread_is_the_same_where_it_goes_both_ways():
    """RTE on a model at chance: the eager seeds happen to lie close together, the differences do not."""
    measured = Comparison("rte", "graph", "accuracy", [0.5379, 0.5307, 0.5560], [0.5632, 0.5668, 0.5451])
    reference = scipy.stats.ttest_rel(measured.other, measured.eager).confidence_interval(0.95)
    assert (measured.difference.low, measured.difference.high) == pytest.approx(tuple(reference))
    assert measured.difference.mean > measured.spread and measured.same


def test_a_fallback_is_no_comparison(tiny):
    with pytest.raises(BenchError, match="trained with the engine eager, not graph.*CUDA"):
        compare([*tiny, "embedding=dense"], tasks=["lexical_sentiment"])
