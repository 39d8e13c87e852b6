"""Engines compared over paired seeds."""

import json

import numpy as np
import pytest
import scipy.stats

from bench.errors import BenchError, ConfigError
from bench.perf.equivalence import Comparison, compare


def test_a_difference_counts_against_the_spread_of_the_seeds():
    same = Comparison("mrpc", ("eager", "graph"), "accuracy", [0.80, 0.82, 0.84], [0.81, 0.82, 0.84])
    assert (
        same.difference.mean == pytest.approx(0.01 / 3) and same.spread == pytest.approx(0.02) and same.same
    )
    assert not Comparison(
        "mrpc", ("eager", "graph"), "accuracy", [0.80, 0.82, 0.84], [0.83, 0.851, 0.87]
    ).same


def test_a_difference_wider_than_the_spread_is_the_same_where_it_goes_both_ways():
    """RTE on a model at chance: the eager seeds happen to lie close together, the differences do not."""
    measured = Comparison(
        "rte", ("eager", "graph"), "accuracy", [0.5379, 0.5307, 0.5560], [0.5632, 0.5668, 0.5451]
    )
    reference = scipy.stats.ttest_rel(measured.other, measured.first).confidence_interval(0.95)
    assert (measured.difference.low, measured.difference.high) == pytest.approx(tuple(reference))
    assert measured.difference.mean > measured.spread and measured.same


def test_a_fallback_is_no_comparison(tiny):
    with pytest.raises(BenchError, match="trained with the engine eager, not graph.*CUDA"):
        compare([*tiny, "embedding=dense"], tasks=["lexical_sentiment"])


@pytest.mark.parametrize("pooling", ["null", "mean"])
def test_the_trainer_trains_a_run_as_our_engine_does(tiny, steady_model, tmp_path, pooling):
    """Without dropout, on one batch of all rows, both do the same arithmetic; what is left to differ is rounding."""
    one_batch = ["training.max_train_examples=8", "training.batch_size=8", "training.max_steps=20"]
    overrides = [
        *tiny,
        f"model.path={steady_model}",
        f"model.pooling={pooling}",
        "embedding=dense",
        "training.learning_rate=3e-3",
        *one_batch,
    ]
    (comparison,) = compare(overrides, tasks=["lexical_sentiment"], sides=["eager", "trainer"])
    assert comparison.sides == ("eager", "trainer") and comparison.other == pytest.approx(comparison.first)

    ours, trainers = (
        [
            json.loads(path.read_text())["training"]["curve"]
            for path in sorted((tmp_path / "results/equivalence" / side).rglob("*.json"))
        ]
        for side in comparison.sides
    )
    assert len(trainers) == 3 and trainers[0][0][1] > 1.05 * trainers[0][-1][1], "the loss falls"
    np.testing.assert_allclose(trainers, ours, rtol=1e-4)


def test_what_the_trainer_has_not_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"training.table_factor \(3.0\).*compare with 1"):
        compare([*tiny, "training.table_factor=3"], tasks=["lexical_sentiment"], sides=["trainer", "eager"])
    with pytest.raises(ConfigError, match="--sides.*grahp.*graph"):
        compare(tiny, sides=["eager", "grahp"])
    with pytest.raises(ConfigError, match="needs two or more of eager"):
        compare(tiny, sides=["trainer"])
