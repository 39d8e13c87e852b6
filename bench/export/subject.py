"""What `bench export` needs to know of a model: a run's (run.py) or an encoder alone (encoder.py)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.runs.identity import Prepared

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Subject(ABC):
    """A model to export: `kept` is the folder with its compact form, `facts` go into export.json."""

    prepared: Prepared
    kept: Path
    facts: dict[str, Any]

    output: ClassVar[str]  # what the model calls the tensor that it returns

    @abstractmethod
    def save_dense(self, model: "PreTrainedModel", target: Path) -> None:
        """Write the model, which has a dense table, as other tools load it."""

    @abstractmethod
    def evaluate(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        target: Path,
        facts: dict[str, Any],
    ) -> None:
        """Add to the facts what the model or its ONNX files in `target` score."""

    @abstractmethod
    def card(self, facts: dict[str, Any]) -> str:
        """Return README.md; `facts` are the content of export.json."""
