"""A run's model as what is exported, with its scores."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench import store
from bench.export import card, onnx
from bench.export.subject import Subject
from bench.models.tokenizers import load_tokenizer
from bench.runs.evaluate import answers
from bench.runs.identity import Prepared
from bench.runs.loading import reader_of
from bench.store import Record
from bench.tasks.scoring import score_split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bench.tasks.tokenise import Reader


@dataclass(frozen=True)
class Run(Subject):
    """A run's classifier, with the run's record."""

    record: Record
    output = "logits"

    def save_dense(self, model: "PreTrainedModel", target: Path) -> None:
        """Write the classifier as AutoModelForSequenceClassification loads it."""
        model.save_pretrained(target)

    def evaluate(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        target: Path,
        facts: dict[str, Any],
    ) -> None:
        """Add the headline to the entry of each ONNX file."""
        config = self.prepared.config
        reader = reader_of(config, load_tokenizer(config.model), model.get_input_embeddings())
        for name, entry in facts["onnx"]["models"].items():
            entry["headline"] = headline(onnx.OnnxModel(target / name), self.prepared, reader)

    def card(self, facts: dict[str, Any]) -> str:
        """Return README.md."""
        records, _ = store.read_all(Path(self.prepared.config.results_dir))
        return card.write(self.prepared, self.record, records, facts)


def headline(model: nn.Module, prepared: Prepared, reader: "Reader") -> float:
    """Return the run's headline metric on its reported split, computed with another form of its model."""
    task = prepared.config.task
    split = task.splits[task.evaluate[0]]
    # The answers of another form must not overwrite those of the run.
    with tempfile.TemporaryDirectory() as scratch:
        run = replace(prepared, config=replace(prepared.config, results_dir=scratch))
        parts = answers(model, run, task.evaluate[0], reader, torch.device("cpu"), "fp32")
        scores = score_split(task, split, [(part.language, part.values, part.split) for part in parts])
    return scores[split][task.headline]
