"""A trained run's predictions, scores and measurements, as they go into its record."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from bench import store
from bench.errors import BenchError, EnvironmentBroken
from bench.models import body, swap
from bench.models.tokenizers import without_special
from bench.runs import cost
from bench.runs.identity import Prepared
from bench.runs.loading import Loaded, examples_of
from bench.tasks import data as task_data
from bench.tasks.data import Rows
from bench.tasks.scoring import headline_of, score_split
from bench.tasks.tokenise import Reader
from bench.training import processes
from bench.training.batching import Examples, evaluation_tokens
from bench.training.finetune import Outcome, predict
from bench.training.precision import resolve_dtype

# What the record has of training.finetune.Outcome under the same name.
OF_TRAINING = (
    "steps",
    "epochs",
    "seconds",
    "start_seconds",
    "engine",
    "device_batch",
    "runs_at_once",
    "curve",
)
log = logging.getLogger("bench")


class Unscored(BenchError):
    """The model is trained and its predictions are stored, but not scored; `parts` is the rest of the record."""

    def __init__(self, error: Exception, parts: dict[str, Any]) -> None:
        super().__init__(
            f"The predictions are stored, but not scored ({error}): `make rescore` completes the record."
        )
        self.parts = parts


@dataclass(frozen=True)
class Answers:
    """The predictions (rows,) of one split in one language: class codes, or numbers for a regression."""

    language: str | None
    values: np.ndarray
    split: Rows
    examples: Examples
    shares: dict[str, float]  # as `examples_of` returns them


def evaluated(
    prepared: Prepared, loaded: Loaded, outcome: Outcome, device: torch.device, oom_retries: int = 0
) -> dict[str, Any]:
    """Return the record's parts of a run whose model is trained and on the device.

    Raises Unscored where only the scores are missing.
    """
    config, task = prepared.config, prepared.config.task
    dtype = resolve_dtype(config.training.dtype, device)

    # Predict with the body as a file will hold it.
    body.round_off(loaded.model, config.body)
    answered = {
        role: list(answers(loaded.model, prepared, role, loaded.reader, device, dtype))
        for role in (*task.evaluate, *task.predict)
    }
    if config.keep_weights and processes.IS_MAIN:
        _keep_weights(prepared, loaded)
    parts = _parts(prepared, loaded, outcome, answered, device)
    parts["training"]["oom_retries"] = oom_retries

    # Score last: whatever fails here, predictions and parts are kept.
    metrics: dict[str, dict[str, float]] = {}
    try:
        for role in task.evaluate:
            metrics |= score_split(
                task, task.splits[role], [(part.language, part.values, part.split) for part in answered[role]]
            )
        headline = headline_of(task, metrics)
    except Exception as error:
        raise Unscored(error, parts) from error
    log.info("%s | %s %s = %.4f", prepared.name, headline["split"], headline["metric"], headline["value"])
    return parts | {"metrics": metrics, "headline": headline}


def answers(
    model: Any,
    prepared: Prepared,
    role: str,
    reader: Reader,
    device: torch.device,
    dtype: str,
) -> Iterator[Answers]:
    """Yield the predictions of a role language by language, and store each at once."""
    config, task = prepared.config, prepared.config.task
    folder = store.predictions_folder(Path(config.results_dir), prepared.name, prepared.run_id)
    for language in task_data.languages_of(task, role):
        split = task_data.load_split(task, config.data, role, language, labels=role in task.evaluate)
        rows = split if "label" in split.column_names else split.add_column("label", [-1] * len(split))
        examples, shares = examples_of(rows, config, reader, device)
        logits = predict(model, examples, evaluation_tokens(config.training, device), dtype)
        values = logits[:, 0] if task.labels is None else logits.argmax(axis=1).astype(np.int8)
        if processes.IS_MAIN:
            store.write_predictions(folder, store.split_name(task.splits[role], language), values)
        yield Answers(language, values, split, examples, shares)


def _used(examples: Examples, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return how many examples there are, and how many tokens and different tokens they have, special tokens aside."""
    ids = without_special(tokenizer, examples.tokens["input_ids"])
    return {"rows": len(examples), "tokens": len(ids), "distinct_tokens": len(ids.unique())}


def _keep_weights(prepared: Prepared, loaded: Loaded) -> None:
    """Write the trained weights; without room for them the run keeps its record, and `export --retrain` trains again."""
    folder = store.weights_folder(Path(prepared.config.results_dir), prepared.name, prepared.run_id)
    try:
        swap.save(prepared.config, loaded.model, folder)
    except EnvironmentBroken as error:
        log.error("%s | the weights are not kept: %s", prepared.name, error)


def _parts(
    prepared: Prepared,
    loaded: Loaded,
    outcome: Outcome,
    answered: dict[str, list[Answers]],
    device: torch.device,
) -> dict[str, Any]:
    """Return the record's parts of a trained run without its scores; `answered` is by role."""
    config, task = prepared.config, prepared.config.task
    # Measure the forward pass, unless other runs share the GPU: it would say little about the model.
    shared = device.type == "cuda" and max(config.workers or 1, outcome.runs_at_once) > 1
    reported, dtype = answered[task.evaluate[0]], resolve_dtype(config.training.dtype, device)
    return {
        "task": {
            **{key: getattr(task, key) for key in ("name", "suite", "chance", "majority", "average")},
            "version": task.task_version,
            "source": prepared.source,
            "data_sha256": prepared.canonical["data"]["sha256"],
            "splits": _splits(prepared, loaded, answered),
        },
        "model": {
            **{key: getattr(config.model, key) for key in ("name", "revision", "sha256", "weights")},
            "width": prepared.width,
            "vocab_size": prepared.vocab_size,
        },
        "size": loaded.size,
        "fit": loaded.fit,
        "training": {
            **{key: getattr(outcome, key) for key in OF_TRAINING},
            "train_rows": len(loaded.splits["train"]),
            "engine_fallback": outcome.fallback,
            "examples_per_second": outcome.examples / outcome.seconds,
            "effective_batch": config.training.batch_size,
            "processes": processes.COUNT,
            "dtype": dtype,
            "deterministic": config.deterministic,
            "collapsed": any(bool(np.ptp(part.values) == 0) for part in reported),
        },
        "recovery": loaded.recovery,
        **({"pretraining": loaded.pretraining} if loaded.pretraining else {}),
        "cost": {
            "peak_memory_bytes": cost.peak_memory_bytes(device),
            "latency_ms": None if shared else cost.latency_ms(loaded.model, reported[0].examples, dtype),
            "profiles": None,
        },
    }


def _splits(prepared: Prepared, loaded: Loaded, answered: dict[str, list[Answers]]) -> dict[str, Any]:
    """Return the record's description of the splits by role. A role in several languages has the mean of their shares."""
    config = prepared.config
    splits = task_data.split_facts(config.task, config.data, loaded.splits)
    splits["train"] |= loaded.shares
    if limit := config.training.max_train_examples:
        splits["train"]["max_train_examples"] = limit
    for role, parts in answered.items():
        splits[role] |= {
            share: float(np.mean([part.shares[share] for part in parts])) for share in loaded.shares
        }
        spoken = {part.language: part.examples for part in parts if part.language}
        if len(spoken) > 1:
            splits[role]["languages"] = {
                name: _used(one, loaded.reader.tokenizer) for name, one in spoken.items()
            }
    return splits
