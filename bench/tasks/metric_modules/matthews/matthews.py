"""Matthews correlation (R_K for several classes); 0 where predictions or labels are constant."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import matthews_corrcoef

_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class Matthews(evaluate.Metric):
    """Matthews correlation (R_K for several classes); 0 where predictions or labels are constant."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Matthews correlation (R_K for several classes); 0 where predictions or labels are constant.",
            citation="",
            inputs_description="predictions, references: equally long lists of class codes.",
            features=_FEATURES,
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"matthews": float(matthews_corrcoef(references, predictions))}
