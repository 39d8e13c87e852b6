"""Spearman's rank correlation; 0 where it is undefined: constant values or fewer than two rows."""

import datasets
import evaluate
import numpy as np
from scipy.stats import spearmanr

_FEATURES = datasets.Features(
    {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
)


class Spearmanr(evaluate.Metric):
    """Spearman's rank correlation; 0 where it is undefined: constant values or fewer than two rows."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Spearman's rank correlation; 0 where it is undefined: constant values or fewer than two rows.",
            citation="",
            inputs_description="predictions, references: equally long lists of numbers.",
            features=_FEATURES,
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if len(references) < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"spearmanr": 0.0}
        return {"spearmanr": float(spearmanr(predictions, references).statistic)}
