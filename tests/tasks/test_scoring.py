"""Metrics equal scikit-learn's and scipy's, and are numbers where those are not."""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from bench.errors import BenchError, ConfigError
from bench.settings.schema import TaskConfig
from bench.tasks.data import Rows
from bench.tasks.metrics import METRICS
from bench.tasks.scoring import check_metrics, score, score_groups, score_split

ROOT = Path(__file__).resolve().parents[2]
CLASSES = TaskConfig(
    name="classes",
    labels=["a", "b"],
    headline="accuracy",
    metrics=["matthews", "accuracy", "f1", "accuracy_f1_mean"],
)
NUMBERS = TaskConfig(
    name="numbers", labels=None, headline="pearson", metrics=["pearson", "spearmanr", "pearson_spearman_mean"]
)
THREE = dataclasses.replace(CLASSES, labels=["a", "b", "c"], metrics=["accuracy", "matthews"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_binary_metrics_equal_sklearn(pairs: list[tuple[int, int]]) -> None:
    predicted, true = np.array(pairs).T
    accuracy, f1 = sk.accuracy_score(true, predicted), sk.f1_score(true, predicted, zero_division=0)
    assert score(CLASSES, predicted, true) == pytest.approx(
        {
            "matthews": sk.matthews_corrcoef(true, predicted),
            "accuracy": accuracy,
            "f1": f1,
            "accuracy_f1_mean": (accuracy + f1) / 2,
        }
    )


def test_matthews_by_its_definition() -> None:
    """Binary: (TP TN - FP FN) / sqrt(...) (Matthews 1975); three classes: R_K of Gorodkin (2004), equation 8."""
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    (tn, fp), (fn, tp) = [[int(((true == t) & (predicted == p)).sum()) for p in (0, 1)] for t in (0, 1)]
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert score(CLASSES, predicted, true)["matthews"] == pytest.approx(expected)
    predicted, true = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    p, t = np.eye(3)[predicted], np.eye(3)[true]
    p, t = p - p.mean(0), t - t.mean(0)
    expected = (p * t).sum() / math.sqrt((p * p).sum() * (t * t).sum())
    assert score(THREE, predicted, true)["matthews"] == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-5, 5, width=32), st.sampled_from([0.0, 1.5, 2.2, 5.0])), min_size=2, max_size=40
    )
)
def test_correlations_equal_scipy_or_are_zero(pairs: list[tuple[float, float]]) -> None:
    predicted, true = np.array(pairs, dtype=np.float32).T
    found = score(NUMBERS, predicted, true)
    assert all(-1.000001 <= value <= 1.000001 for value in found.values())
    if np.ptp(predicted) > 1e-6 * (1 + np.abs(predicted).max()) and np.ptp(true):
        r = stats.pearsonr(predicted.astype(float), true.astype(float)).statistic
        rho = stats.spearmanr(predicted, true).statistic
        assert found == pytest.approx(
            {"pearson": r, "spearmanr": rho, "pearson_spearman_mean": (r + rho) / 2}
        )


@pytest.mark.parametrize(
    ("predicted", "true"), [([2.5, 2.5, 2.5], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1], [1])]
)
def test_undefined_correlations_are_zero(predicted: list[float], true: list[float]) -> None:
    assert set(score(NUMBERS, np.array(predicted), true).values()) == {0.0}


def test_constant_classes_are_zero_and_not_nan() -> None:
    assert score(CLASSES, np.zeros(4, int), [0, 1, 1, 0]) == {
        "matthews": 0.0,
        "accuracy": 0.5,
        "f1": 0.0,
        "accuracy_f1_mean": 0.25,
    }
    assert score(CLASSES, np.zeros(3, int), [0, 0, 0]) == {
        "matthews": 0.0,
        "accuracy": 1.0,
        "f1": 0.0,
        "accuracy_f1_mean": 0.5,
    }


@pytest.mark.parametrize(
    ("task", "predicted", "true", "said"),
    [
        (NUMBERS, [1.0, float("nan")], [1, 2], "1 of 2 predictions are NaN or infinite"),
        (NUMBERS, [float("inf"), float("nan")], [1, 2], "2 of 2 predictions are NaN or infinite"),
        (CLASSES, [1.0, float("nan")], [1, 0], "1 of 2 predictions are NaN"),
        (CLASSES, [0.3, 0.9], [0, 1], "argmax"),
        (CLASSES, [0, 1, 1], [0, 1], r"\(3,\) predictions for \(2,\) labels"),
        (CLASSES, [], [], r"\(0,\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    task: TaskConfig, predicted: list[float], true: list[float], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        score(task, np.array(predicted), true)


def test_unknown_names_say_what_was_meant() -> None:
    with pytest.raises(
        ConfigError, match=r"task\.metrics: Unknown metric 'mathews'\. Did you mean 'matthews'"
    ):
        score(dataclasses.replace(CLASSES, metrics=["mathews"], headline="mathews"), np.array([0, 1]), [0, 1])
    with pytest.raises(ConfigError, match=r"task\.headline \(f1\) must be one of task\.metrics: accuracy"):
        score(dataclasses.replace(CLASSES, metrics=["accuracy"], headline="f1"), np.array([0, 1]), [0, 1])
    assert set(METRICS) == {
        "accuracy",
        "f1",
        "matthews",
        "pearson",
        "spearmanr",
        "accuracy_f1_mean",
        "pearson_spearman_mean",
    }


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        (THREE, "f1", "needs two classes, but .* has 3 classes"),
        (THREE, "accuracy_f1_mean", "needs two classes"),
        (THREE, "pearson", "needs numbers, but .* has 3 classes"),
        (CLASSES, "pearson_spearman_mean", "needs numbers, but .* has 2 classes"),
        (NUMBERS, "accuracy", "needs classes, but .* has no classes"),
        (NUMBERS, "f1", "needs two classes"),
    ],
)
def test_a_metric_that_does_not_fit_the_labels_is_refused(task: TaskConfig, metric: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.metrics \({metric}\) {said}"):
        check_metrics(dataclasses.replace(task, metrics=[metric], headline=metric))


def test_categories_are_scored_apart() -> None:
    task = dataclasses.replace(THREE, groups=["Logic", "Knowledge", "Absent"])
    cells = ["Negation", "Negation;Disjunction", "", None, "Disjunction", "Negation"]
    rows = Rows(pa.table({"Logic": cells, "Knowledge": [""] * 6, "label": [0, 1, 2, 0, 1, 2]}), "made here")
    predicted = np.array([0, 2, 2, 1, 1, 2])
    found = score_groups(task, predicted, rows)
    expected = {"Logic": [0, 1, 4, 5], "Logic: Negation": [0, 1, 5], "Logic: Disjunction": [1, 4]}
    assert found.keys() == expected.keys()
    for name, members in expected.items():
        true = np.array(rows["label"])[members]
        assert found[name] == pytest.approx(
            {
                "rows": len(members),
                "accuracy": np.mean(true == predicted[members]),
                "matthews": sk.matthews_corrcoef(true, predicted[members]),
            }
        )


def test_the_mean_over_languages_is_of_whole_splits() -> None:
    task = dataclasses.replace(THREE, groups=["Logic"], train_language="en")
    rows = Rows(pa.table({"Logic": ["a", "", "", ""], "label": [0, 1, 2, 0]}), "made here")
    answered = [("en", np.array([0, 1, 2, 0]), rows), ("fr", np.array([1, 1, 2, 1]), rows)]
    found = score_split(task, "test", answered)
    assert found["test"]["accuracy"] == 0.75 and found["test"]["gap"] == found["test/en"]["accuracy"] - 0.5
    assert found.keys() == {"test", "test/en", "test/fr"}


def test_processes_may_score_at_once_without_a_home_folder() -> None:
    """Offline, and with no folder for the caches that `evaluate` keeps by default."""
    code = """
import numpy as np
from bench.settings.schema import TaskConfig
from bench.tasks.scoring import score

task = TaskConfig(name="t", labels=["a", "b"], metrics=["accuracy", "f1", "matthews"])
print(score(task, np.array([0, 1, 1]), [0, 1, 0]))
"""
    env = {**os.environ, "HOME": "/dev/null", "HF_HOME": "/dev/null/cache"}
    env |= {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    started: Any = {
        "cwd": ROOT,
        "env": env,
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    scoring = [subprocess.Popen([sys.executable, "-c", code], **started) for _ in range(3)]
    for process in scoring:
        said, errors = process.communicate(timeout=120)
        assert said.strip() == str({"accuracy": 2 / 3, "f1": 2 / 3, "matthews": 0.5}), errors
