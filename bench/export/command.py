"""The verb `export`: a run's model as a folder, compact or dense, with card, tokenizer, licence, digests, and ONNX on request."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from bench import __version__, store
from bench.errors import ConfigError
from bench.export import card, folder, onnx, source
from bench.export.onnx import OPSET
from bench.models import storage
from bench.models.tokenizers import load_tokenizer
from bench.runs.evaluate import answers
from bench.runs.identity import Prepared
from bench.runs.provenance import provenance
from bench.tasks.scoring import score_split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Form:
    """What to write, and in which form: the flags of `bench export`."""

    to: Path
    materialise: bool = False  # a dense table instead of the compressed embedding
    retrain: bool = False  # train again where the weights were not kept
    onnx: bool = False
    int8: bool = False  # model-int8.onnx, too
    evaluate: bool = False  # compute the headline metric with each ONNX file
    opset: int = OPSET


def export(words: Sequence[str], form: Form) -> Path:
    """Write the model of a run id, or of the run that the overrides describe, to a folder and return it.

    Raises ConfigError before any training.
    """
    if form.evaluate and not form.onnx:
        raise ConfigError("--evaluate computes the headline with the ONNX file: add --onnx or --int8.")
    folder.check_target(form.to)
    if form.onnx:
        onnx.check_installed(form.opset)
    ids, overrides = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    if len(ids) > 1:
        raise ConfigError(
            f"export writes one run, and {', '.join(ids)} are {len(ids)}: export each to its own folder."
        )

    # Get the weights: those that the run kept, or train.
    prepared, finished = source.find(ids[0], overrides) if ids else source.described(overrides)
    if form.materialise and (pooling := prepared.config.model.pooling) is not None:
        raise ConfigError(
            f"--materialise cannot carry model.pooling ({pooling}), which AutoModelForSequenceClassification does not know: "
            "leave it out; load_compressed and --onnx carry it."
        )
    kept, record = source.weights(prepared, finished, train=form.retrain or not ids)
    model, tokenizer = storage.load_compressed(kept), load_tokenizer(prepared.config.model)

    with folder.new_folder(form.to) as target:
        if form.materialise:
            materialised(model).save_pretrained(target)
        else:
            shutil.copytree(kept, target, dirs_exist_ok=True)
        tokenizer.save_pretrained(target)
        facts: dict[str, Any] = {"bench": __version__, "form": "dense" if form.materialise else "compact"}
        facts["run_id"] = record["run_id"]
        if form.onnx:
            facts["onnx"] = _onnx(form, model, tokenizer, target, prepared)
        (target / "LICENSE").write_text(card.licence(prepared.config.model))
        facts["files"] = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
        facts["packages"] = provenance(torch.device("cpu"))["packages"]
        (target / "export.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        records, _ = store.read_all(Path(prepared.config.results_dir))
        (target / "README.md").write_text(card.write(prepared, record, records, facts))
    return form.to


@torch.no_grad()
def materialised(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the classifier with a dense table (V, d) in place of its compressed embedding."""
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        return model
    dense = deepcopy(model)
    rows = cast(Any, embedding).materialise()
    dense.set_input_embeddings(
        nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=cast(Any, embedding).padding_idx)
    )
    return dense


def _onnx(
    form: Form,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    target: Path,
    prepared: Prepared,
) -> dict[str, Any]:
    """Write model.onnx, and model-int8.onnx on request; return their entry of export.json."""
    path = target / "model.onnx"
    models: dict[str, dict[str, float]] = {
        path.name: {"difference": onnx.write(model, tokenizer, path, form.opset)}
    }
    if form.int8:
        onnx.write_int8(path, target / "model-int8.onnx")
        models["model-int8.onnx"] = {
            "difference": onnx.difference(model, tokenizer, target / "model-int8.onnx")
        }
    if form.evaluate:
        for name, entry in models.items():
            entry["headline"] = headline(onnx.OnnxModel(target / name), prepared, tokenizer)
    return {
        "opset": form.opset,
        "inputs": onnx.inputs_of(tokenizer),
        "tolerance": onnx.TOLERANCE,
        "models": models,
    }


def headline(model: nn.Module, prepared: Prepared, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Return the run's headline metric on its reported split, computed with another form of its model."""
    task = prepared.config.task
    split = task.splits[task.evaluate[0]]
    # The answers of another form must not overwrite those of the run.
    with tempfile.TemporaryDirectory() as scratch:
        run = replace(prepared, config=replace(prepared.config, results_dir=scratch))
        parts = answers(model, run, task.evaluate[0], tokenizer, torch.device("cpu"), "fp32")
        scores = score_split(task, split, [(part.language, part.values, part.split) for part in parts])
    return scores[split][task.headline]
