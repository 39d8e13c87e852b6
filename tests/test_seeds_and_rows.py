"""Intervals over seeds and rows: metrics of drawn rows, coverage by simulation, tests against a margin and of many hypotheses."""

import numpy as np
import pytest
from scipy import stats

from bench.statistics import DRAWS, holm, p_noninferiority, row_draws, summarise
from bench.tasks.metrics import METRICS

CLASSES = [name for name, metric in METRICS.items() if metric.labels != "numbers"]
NUMBERS = [name for name, metric in METRICS.items() if metric.labels == "numbers"]


def answered(name: str, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and labels (rows,) with ties, of the kind that the metric needs."""
    rng = np.random.default_rng(5)
    if name in NUMBERS:
        labels = rng.integers(0, 11, rows) / 2
        return np.round(labels + rng.normal(0, 2, rows), 0).astype(np.float32), labels.astype(np.float32)
    labels = rng.integers(0, 3 if METRICS[name].labels == "classes" else 2, rows)
    return np.where(rng.random(rows) < 0.6, labels, 0).astype(np.int8), labels.astype(np.int8)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_weighted_rows_is_that_of_the_rows_repeated(name: str) -> None:
    predictions, labels = answered(name)
    weights = row_draws(len(labels))[:20]
    wanted = [
        METRICS[name].compute(*(np.repeat(part, many.astype(int)) for part in (predictions, labels)))
        for many in weights
    ]
    assert METRICS[name].weighted(predictions, labels, weights) == pytest.approx(wanted, abs=1e-6)
    if name != "accuracy":  # defined as 0, and nearly so in a mean with accuracy
        constant = METRICS[name].weighted(0 * predictions, labels, weights)
        alone = METRICS[name].compute(0 * predictions, labels)
        assert np.isfinite(constant).all() and (alone != 0 or not constant.any())


def test_draws_have_all_rows_and_are_the_same_for_each_model() -> None:
    assert row_draws(50).shape == (DRAWS, 50) and (row_draws(50).sum(axis=1) == 50).all()
    again = row_draws(50).copy()
    row_draws.cache_clear()
    assert np.array_equal(row_draws(50), again)


@pytest.mark.parametrize("name", ["accuracy", "matthews", "spearmanr"])
def test_with_one_seed_the_error_is_that_of_scipys_bootstrap(name: str) -> None:
    predictions, labels = answered(name, 300)
    metric = METRICS[name]
    draws = metric.weighted(predictions, labels, row_draws(300))
    found = summarise([metric.compute(predictions, labels)], draws[None, None])
    wanted = stats.bootstrap(
        (predictions, labels), metric.compute, paired=True, vectorized=False, n_resamples=1000, rng=1
    ).standard_error
    assert found.half == pytest.approx(
        1.96 * wanted, rel=0.1
    )  # 3 standard errors of the ratio of two such errors
    assert found.interval == "1 seed, bootstrap over rows"


def experiment(
    rng: np.random.Generator, seeds: int, rows: int, tasks: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return differences of accuracy (tasks, seeds), their replicates, and the true difference for all seeds and rows.

    Whether a model is right depends on the row, which both models share, on a row's own difficulty for one of them, on the seed,
    and on chance. A single seed is without the seeds' spread, which nothing could know.
    """
    of_seed, of_both, of_one, chance = (0.1 if seeds > 1 else 0.0), 1.0, 0.4, 0.3
    spread = np.sqrt(of_seed**2 + of_both**2 + of_one**2 + chance**2)
    right = []
    shared = rng.normal(0, of_both, (tasks, 1, rows))
    for level in (0.8, 1.0):
        score = (
            level
            + shared
            + rng.normal(0, of_one, (tasks, 1, rows))
            + rng.normal(0, of_seed, (tasks, seeds, 1))
        )
        right.append((score + rng.normal(0, chance, (tasks, seeds, rows)) > 0).astype(np.float32))
    change = right[0] - right[1]
    replicates = change @ row_draws(rows).T / rows
    truth = stats.norm.cdf(0.8 / spread) - stats.norm.cdf(1 / spread)
    return change.mean(axis=2), replicates, float(truth)


@pytest.mark.parametrize(("seeds", "rows", "tasks"), [(1, 300, 1), (3, 300, 1), (5, 150, 1), (3, 200, 4)])
def test_intervals_cover_the_difference_for_new_seeds_and_rows(seeds: int, rows: int, tasks: int) -> None:
    rng, repeats = np.random.default_rng(3), 400
    covered, rejected, without = np.zeros(repeats), np.zeros(repeats), np.zeros(repeats)
    for index in range(repeats):
        values, replicates, truth = experiment(rng, seeds, rows, tasks)
        found, over_seeds = summarise(values, replicates), summarise(values)
        assert found.low is not None and found.high is not None
        covered[index] = found.low <= truth <= found.high
        without[index] = over_seeds.low is not None and over_seeds.low <= truth <= (over_seeds.high or 0)
        p = p_noninferiority(values, -truth, replicates)  # at the margin itself the hypothesis is just true
        assert p is not None
        rejected[index] = p < 0.05
    # 400 repeats know 0.95 to 0.011.
    assert 0.915 <= covered.mean() <= 0.985
    assert rejected.mean() <= 0.085
    assert covered.mean() >= without.mean() - 0.01


@pytest.mark.parametrize(("name", "true"), [("pearson", 0.8), ("spearmanr", 6 / np.pi * np.arcsin(0.4))])
def test_intervals_of_a_correlation_cover_the_true_one(name: str, true: float) -> None:
    """Two normal numbers; Spearman's correlation follows from Pearson's (Pearson 1907)."""
    rng, repeats, rows = np.random.default_rng(4), 150, 200
    covered = np.zeros(repeats)
    for index in range(repeats):
        labels = rng.normal(size=rows)
        answers = [0.8 * labels + 0.6 * rng.normal(size=rows) for _ in range(3)]
        replicates = np.array([METRICS[name].weighted(one, labels, row_draws(rows)) for one in answers])
        found = summarise([METRICS[name].compute(one, labels) for one in answers], replicates[None])
        assert found.low is not None and found.high is not None
        covered[index] = found.low <= true <= found.high
    # Seeds here differ by what they do to rows alone, which is in both parts: the intervals are rather too wide.
    assert covered.mean() >= 0.93


def test_a_mean_over_tasks_adds_the_tasks_variances_of_seeds_and_rows() -> None:
    rng = np.random.default_rng(6)
    values, replicates = rng.normal(0, 1, (2, 3)), rng.normal(0, [[[2.0]], [[1.0]]], (2, 3, DRAWS))
    of_seeds, of_rows = values.var(axis=1, ddof=1) / 3, replicates.mean(axis=1).var(axis=1, ddof=1)
    freedom = 2 * (of_seeds + of_rows).sum() ** 2 / (of_seeds**2).sum()
    wanted = stats.t.interval(0.95, freedom, values.mean(), np.sqrt((of_seeds + of_rows).sum()) / 2)
    found = summarise(values, replicates)
    assert (found.low, found.high) == pytest.approx(wanted)
    assert found.interval == "Welch's t over 2 tasks and 3 seeds, bootstrap over rows"
    p = p_noninferiority(values, -float(wanted[0]), replicates)
    assert p == pytest.approx(0.025)
    equal = summarise(np.ones((1, 3)), replicates[:1])
    assert equal.low is not None and equal.low < 1, "equal seeds on other rows are not certain"


def test_holm_is_as_in_his_paper_and_errs_in_few_families() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9]) and holm([0.7, 0.8, 0.6]).tolist() == [1, 1, 1]
    assert holm([]).size == 0
    rng = np.random.default_rng(7)
    families = [(holm(rng.random(20)) < 0.05).any() for _ in range(1000)]
    assert np.mean(families) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
    assert np.mean([(rng.random(20) < 0.05).any() for _ in range(1000)]) > 0.5
