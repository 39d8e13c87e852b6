"""Pearson's r; 0 where it is undefined: constant predictions or labels, or fewer than two rows."""

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr

_FEATURES = datasets.Features(
    {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
)


class Pearson(evaluate.Metric):
    """Pearson's r; 0 where it is undefined: constant predictions or labels, or fewer than two rows."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Pearson's r; 0 where it is undefined: constant predictions or labels, or fewer than two rows.",
            citation="",
            inputs_description="predictions, references: equally long lists of numbers.",
            features=_FEATURES,
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if len(references) < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"pearson": 0.0}
        return {"pearson": float(pearsonr(predictions, references).statistic)}
