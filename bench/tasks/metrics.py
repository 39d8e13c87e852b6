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
    # The same for rows that occur `weights` (draws, rows) times: (draws,).
    weighted: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
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


def _confusion(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the confusion matrices (label, prediction, draws)."""
    classes = 1 + int(max(predictions.max(), labels.max(), 1))
    cells = labels.astype(int) * classes + predictions
    counts = np.eye(classes**2, dtype=np.float32)[:, cells] @ weights.T
    matrices: np.ndarray = counts.reshape(classes, classes, -1)
    return matrices


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, 0 where the metric is undefined; spreads of constant values are rounding errors."""
    quotient: np.ndarray = np.divide(above, below, out=np.zeros_like(above), where=below > 1e-12)
    return quotient


def _weighted_accuracy(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right = np.equal(predictions, labels).astype(np.float32)
    counts = weights @ np.stack([right, np.ones_like(right)], axis=1)  # faster than to add the weights up
    return _divide(counts[:, 0], counts[:, 1])


def _weighted_f1(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    confusion = _confusion(predictions, labels, weights)
    hits = 2 * confusion[1, 1]
    return _divide(hits, hits + confusion[0, 1] + confusion[1, 0])


def _weighted_matthews(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    confusion = _confusion(predictions, labels, weights).astype(float)
    true, predicted, rows = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum(axis=(0, 1))
    spreads = (rows**2 - (true**2).sum(axis=0)) * (rows**2 - (predicted**2).sum(axis=0))
    return _divide(rows * confusion.trace() - (true * predicted).sum(axis=0), np.sqrt(spreads))


def _weighted_pearson(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Pearson's r; predictions and labels are (rows,) or differ by draw, (draws, rows)."""
    shares = weights.astype(float) / weights.sum(axis=1, keepdims=True)
    x, y = (
        values - (shares * values).sum(axis=1, keepdims=True)
        for values in (predictions.astype(float), labels.astype(float))
    )
    together, of_x, of_y = ((shares * a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y)))
    return _divide(together, np.sqrt(of_x * of_y))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rank (draws, rows) of each row in each draw; equal values share the mean of their ranks."""
    _, first, group = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = values.argsort(kind="stable")
    many = np.add.reduceat(weights[:, order].astype(float), first, axis=1)
    ranks = np.empty(weights.shape)
    ranks[:, order] = (many.cumsum(axis=1) - (many - 1) / 2)[:, group]
    return ranks


def _weighted_spearman(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _weighted_pearson(_ranks(predictions, weights), _ranks(labels, weights), weights)


METRICS = {
    "accuracy": Metric(
        "Share of predictions equal to the label.", _accuracy, _weighted_accuracy, percent=True, of_rows=True
    ),
    "f1": Metric(
        "F1 of class 1, as GLUE counts it for MRPC and QQP; 0 without any positive.",
        _f1,
        _weighted_f1,
        "two classes",
        percent=True,
    ),
    "matthews": Metric(
        "Matthews correlation (R_K for several classes); 0 for constant values.",
        _matthews,
        _weighted_matthews,
    ),
    "pearson": Metric("Pearson's r; 0 for constant values.", _pearson, _weighted_pearson, "numbers"),
    "spearmanr": Metric(
        "Spearman's rank correlation; 0 for constant values.", _spearman, _weighted_spearman, "numbers"
    ),
    "accuracy_f1_mean": Metric(
        "Mean of accuracy and F1, GLUE's summary of MRPC and QQP.",
        lambda predictions, labels: (_accuracy(predictions, labels) + _f1(predictions, labels)) / 2,
        lambda *rows: (_weighted_accuracy(*rows) + _weighted_f1(*rows)) / 2,
        "two classes",
        percent=True,
    ),
    "pearson_spearman_mean": Metric(
        "Mean of Pearson's and Spearman's correlation, GLUE's summary of STS-B.",
        lambda predictions, labels: (_pearson(predictions, labels) + _spearman(predictions, labels)) / 2,
        lambda *rows: (_weighted_pearson(*rows) + _weighted_spearman(*rows)) / 2,
        "numbers",
    ),
}
