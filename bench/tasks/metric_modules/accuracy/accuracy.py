"""Share of predictions equal to the label."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score

_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class Accuracy(evaluate.Metric):
    """Share of predictions equal to the label."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions equal to the label.",
            citation="",
            inputs_description="predictions, references: equally long lists of class codes.",
            features=_FEATURES,
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}
