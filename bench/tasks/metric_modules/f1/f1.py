"""F1 of class 1, as GLUE counts it for MRPC and QQP; 0 where class 1 never occurs."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score

_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class F1(evaluate.Metric):
    """F1 of class 1, as GLUE counts it for MRPC and QQP; 0 where class 1 never occurs."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 of class 1, as GLUE counts it for MRPC and QQP; 0 where class 1 never occurs.",
            citation="",
            inputs_description="predictions, references: equally long lists of class codes 0 and 1.",
            features=_FEATURES,
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, pos_label=1, zero_division=0))}
