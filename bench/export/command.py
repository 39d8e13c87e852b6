"""The verb `export`: a model as a folder, compact or dense, with card, tokenizer, licence, digests, and ONNX on request."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from bench import __version__
from bench.errors import ConfigError
from bench.export import card, encoder, folder, onnx, run, source
from bench.export.onnx import OPSET
from bench.export.subject import Subject
from bench.models import storage
from bench.models.tokenizers import compact_json, load_tokenizer
from bench.models.trimmed_tokenizer import trimmed_tokenizer
from bench.runs.provenance import provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Form:
    """What to write, and in which form: the flags of `bench export`."""

    to: Path
    encoder: bool = False  # the encoder before any task trains it, not a run's model
    materialise: bool = False  # a dense table instead of the compressed embedding
    retrain: bool = False  # train again where the weights were not kept
    onnx: bool = False
    int8: bool = False  # model-int8.onnx, too
    evaluate: bool = False  # a run: the headline metric with each ONNX file; an encoder: its own measures
    opset: int = OPSET


def export(words: Sequence[str], form: Form) -> Path:
    """Write the model of a run id, or of what the overrides describe, to a folder and return it.

    Raises ConfigError before any training.
    """
    folder.check_target(form.to)
    if form.onnx:
        onnx.check_installed(form.opset)
    with tempfile.TemporaryDirectory() as scratch:
        subject = _encoder(words, form, Path(scratch)) if form.encoder else _run(words, form)
        model = storage.load_compressed(subject.kept)
        tokenizer = trimmed_tokenizer(
            load_tokenizer(subject.prepared.config.model), model.get_input_embeddings()
        )
        with folder.new_folder(form.to) as target:
            _write(subject, form, model, tokenizer, target)
    return form.to


def _encoder(words: Sequence[str], form: Form, scratch: Path) -> Subject:
    """Return the encoder that the overrides describe."""
    if ids := [word for word in words if "=" not in word]:
        raise ConfigError(
            f"--encoder writes an encoder without a task, and {ids[0]} is a run: describe the encoder by key=value, as for "
            "`bench run`."
        )
    if form.retrain:
        raise ConfigError("--retrain trains a run again, and --encoder writes no run: leave one of them out.")
    return encoder.made(words, form.evaluate, scratch)


def _run(words: Sequence[str], form: Form) -> Subject:
    """Return the run with its weights: those that it kept, or train."""
    if form.evaluate and not form.onnx:
        raise ConfigError("--evaluate computes the headline with the ONNX file: add --onnx or --int8.")
    ids, overrides = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    if len(ids) > 1:
        raise ConfigError(
            f"export writes one run, and {', '.join(ids)} are {len(ids)}: export each to its own folder."
        )
    prepared, finished = source.find(ids[0], overrides) if ids else source.described(overrides)
    if form.materialise and (pooling := prepared.config.model.pooling) is not None:
        raise ConfigError(
            f"--materialise cannot carry model.pooling ({pooling}), which AutoModelForSequenceClassification does not know: "
            "leave it out; load_compressed and --onnx carry it, and so does --encoder, without the task."
        )
    kept, record = source.weights(prepared, finished, train=form.retrain or not ids)
    return run.Run(prepared, kept, {"run_id": record["run_id"]}, record)


def _write(
    subject: Subject,
    form: Form,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    target: Path,
) -> None:
    """Fill the folder: the model in its form, ONNX on request, and what tells of it."""
    if form.materialise:
        subject.save_dense(materialised(model), target)
    else:
        shutil.copytree(subject.kept, target, dirs_exist_ok=True)
    tokenizer.save_pretrained(target)
    (target / "tokenizer.json").write_text(compact_json(tokenizer), encoding="utf-8")
    facts = subject.facts | {"bench": __version__, "form": "dense" if form.materialise else "compact"}
    if form.onnx:
        facts["onnx"] = _onnx(subject, form, model, tokenizer, target)
    if form.evaluate:
        subject.evaluate(model, tokenizer, target, facts)

    # The card comes last, as it says what all other files hold.
    (target / "LICENSE").write_text(card.licence(subject.prepared.config.model))
    facts["files"] = folder.files(target)
    facts |= {
        key: value for key, value in provenance(torch.device("cpu")).items() if key in ("commit", "packages")
    }
    (target / "export.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    (target / "README.md").write_text(subject.card(facts))


@torch.no_grad()
def materialised(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the model with a dense table (V, d) in place of its compressed embedding."""
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
    subject: Subject,
    form: Form,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    target: Path,
) -> dict[str, Any]:
    """Write model.onnx, and model-int8.onnx on request; return their entry of export.json."""
    path = target / "model.onnx"
    off = onnx.write(model, tokenizer, path, form.opset, subject.output)
    models: dict[str, dict[str, float]] = {path.name: {"difference": off}}
    if form.int8:
        onnx.write_int8(path, target / "model-int8.onnx")
        models["model-int8.onnx"] = {
            "difference": onnx.difference(model, tokenizer, target / "model-int8.onnx")
        }
    return {
        "opset": form.opset,
        "inputs": onnx.inputs_of(tokenizer),
        "tolerance": onnx.TOLERANCE,
        "models": models,
    }
