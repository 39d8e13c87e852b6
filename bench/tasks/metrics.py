"""Metrics by name: how each is computed, which labels it needs, and how its values are shown.

A new metric is another entry of METRICS. scikit-learn and scipy are imported when a metric is computed, so that plans
and reports, which only read the entries, start fast.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metric:
    """One metric. Its values lie between -1 and 1; reports show them times 100."""

    meaning: str
    compute: Callable[[np.ndarray, np.ndarray], float]  # of predictions and labels, (rows,) each
    labels: str = "classes"  # kind of labels that it needs: classes | two classes | numbers
    percent: bool = False  # times 100 it is a percentage
    of_rows: bool = False  # it is a share of the rows, so that a single seed has a binomial interval


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.equal(predictions, labels)))


def _f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, pos_label=1, zero_division=0))


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def _constant(predictions: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether a correlation is undefined."""
    return len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0


def _pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return 0.0 if _constant(predictions, labels) else float(pearsonr(predictions, labels).statistic)


def _spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return 0.0 if _constant(predictions, labels) else float(spearmanr(predictions, labels).statistic)


METRICS = {
    "accuracy": Metric("Share of predictions equal to the label.", _accuracy, percent=True, of_rows=True),
    "f1": Metric(
        "F1 of class 1, as GLUE counts it for MRPC and QQP; 0 without any positive.",
        _f1,
        "two classes",
        percent=True,
    ),
    "matthews": Metric("Matthews correlation (R_K for several classes); 0 for constant values.", _matthews),
    "pearson": Metric("Pearson's r; 0 for constant values.", _pearson, "numbers"),
    "spearmanr": Metric("Spearman's rank correlation; 0 for constant values.", _spearman, "numbers"),
    "accuracy_f1_mean": Metric(
        "Mean of accuracy and F1, GLUE's summary of MRPC and QQP.",
        lambda predictions, labels: (_accuracy(predictions, labels) + _f1(predictions, labels)) / 2,
        "two classes",
        percent=True,
    ),
    "pearson_spearman_mean": Metric(
        "Mean of Pearson's and Spearman's correlation, GLUE's summary of STS-B.",
        lambda predictions, labels: (_pearson(predictions, labels) + _spearman(predictions, labels)) / 2,
        "numbers",
    ),
}
