"""From a run to a folder that others load: compact or dense, with card, tokenizer, licence, digests, and ONNX if asked for."""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from bench import __version__, store
from bench.errors import ConfigError, unknown
from bench.export import card, folder, onnx, source
from bench.models import pretrained
from bench.models.tokenizers import load_tokenizer
from bench.runs.identity import Prepared
from bench.runs.provenance import provenance
from bench.tasks.metrics import score_split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags and what is left, a run id or overrides; raises ConfigError for a flag or a value that is none."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--opset", type=int, default=onnx.OPSET)
    for flag in ("--materialise", "--retrain", "--onnx", "--int8", "--evaluate"):
        parser.add_argument(flag, action="store_true")
    try:
        flags, others = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}.") from error
    for other in others:
        if other.startswith("-"):
            raise ConfigError(unknown("flag", other, [f"--{name}" for name in vars(flags)]))
    if flags.to is None:
        raise ConfigError(
            "--to is not set: name the folder to write, as in `bench export RUN_ID --to exported`."
        )
    flags.onnx |= flags.int8
    if flags.evaluate and not flags.onnx:
        raise ConfigError("--evaluate computes the headline with the ONNX file: add --onnx or --int8.")
    return flags, others


def export(arguments: Sequence[str]) -> Path:
    """Write the folder that the command line asks for and return it; raises before any training what can be known by then."""
    flags, others = parse(arguments)
    folder.check_target(flags.to)
    if flags.onnx:
        onnx.check_installed(flags.opset)
    ids, overrides = (
        [other for other in others if "=" not in other],
        [other for other in others if "=" in other],
    )
    if len(ids) > 1:
        raise ConfigError(
            f"export writes one run, but {', '.join(ids)} are {len(ids)}: name one, each with a folder of its own."
        )
    prepared, found = source.find(ids[0], overrides) if ids else source.described(overrides)
    kept, record = source.weights(prepared, found, train=flags.retrain or not ids)
    model, tokenizer = pretrained.load_compressed(kept), load_tokenizer(prepared.config.model)
    with folder.new_folder(flags.to) as target:
        facts: dict[str, Any] = {
            "bench": __version__,
            "form": "dense" if flags.materialise else "compact",
            "run_id": record["run_id"],
        }
        if flags.materialise:
            materialised(model).save_pretrained(target)
        else:
            shutil.copytree(kept, target, dirs_exist_ok=True)
        tokenizer.save_pretrained(target)
        if flags.onnx:
            facts["onnx"] = _onnx(flags, model, tokenizer, target, prepared)
        (target / "LICENSE").write_text(card.licence(prepared.config.model))
        facts["files"] = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
        facts["packages"] = provenance(torch.device("cpu"))["packages"]
        (target / "export.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        (target / "README.md").write_text(
            card.write(prepared, record, store.read_all(Path(prepared.config.results_dir))[0], facts)
        )
    return cast(Path, flags.to)


@torch.no_grad()
def materialised(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the classifier with a dense table (V, d) in place of its compressed embedding, as any tool knows it."""
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
    flags: argparse.Namespace,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    target: Path,
    prepared: Prepared,
) -> dict[str, Any]:
    """Write model.onnx, and model-int8.onnx if asked for; return what export.json says of them."""
    path = target / "model.onnx"
    models: dict[str, dict[str, float]] = {
        path.name: {"difference": onnx.write(model, tokenizer, path, flags.opset)}
    }
    if flags.int8:
        onnx.write_int8(path, target / "model-int8.onnx")
        models["model-int8.onnx"] = {
            "difference": onnx.difference(model, tokenizer, target / "model-int8.onnx")
        }
    if flags.evaluate:
        for name, one in models.items():
            one["headline"] = headline(onnx.OnnxModel(target / name), prepared, tokenizer)
    return {
        "opset": flags.opset,
        "inputs": onnx.inputs_of(tokenizer),
        "tolerance": onnx.TOLERANCE,
        "models": models,
    }


def headline(model: nn.Module, prepared: Prepared, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Return the run's headline metric on its reported split, computed with another form of its model."""
    from bench.runs.execute import answers

    task = prepared.config.task
    split = task.splits[task.evaluate[0]]
    with tempfile.TemporaryDirectory() as scratch:  # the answers of another form are not the run's
        elsewhere = replace(prepared, config=replace(prepared.config, results_dir=scratch))
        found = answers(model, elsewhere, task.evaluate[0], tokenizer, torch.device("cpu"), "fp32")
        scores = score_split(task, split, [(one.language, one.values, one.split) for one in found])
    return scores[split][task.headline]
