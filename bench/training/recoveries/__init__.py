"""Recovery: what a smaller embedding lost is trained back on text without labels, once for every task of a sweep.

`recovery=<name>` chooses `learner` of bench/training/recoveries/<name>.py; its keys are a class in
bench/settings/recoveries.py.
"""

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.errors import BenchError, DataError
from bench.models import pretrained
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig, TrainingConfig
from bench.training import processes
from bench.training.batching import Examples
from bench.training.finetune import Outcome, finetune
from bench.training.lane import Objective

VERSION = 1  # raised whenever a change here changes a recovered model

# Takes the model, whose embedding has been swapped, the run, the tokenizer and the device. Returns the module to train, whose
# output's `logits` (B,) are each row's loss, and the model whose encoder it trains: the given one, or one that shares its embedding.
Learner = Callable[
    [PreTrainedModel, RunConfig, PreTrainedTokenizerBase, torch.device], tuple[nn.Module, PreTrainedModel]
]


def _learner(name: str) -> Learner:
    return cast(Learner, import_module(f"{__name__}.{name}").learner)


def recover(
    model: PreTrainedModel,
    config: RunConfig,
    identity: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    device: torch.device,
    dtype: str,
    name: str,
) -> dict[str, Any]:
    """Put the recovered encoder into `model`, whose embedding has been swapped, and return the record's `recovery`.

    It is trained if no equal one lies in `cache_dir/recovered`; equal are those of the same model and initial embedding,
    recipe, texts and number format. The pooler is no part of it. `identity` is the model's. Raises DataError for a corpus
    without text, ConfigError where a masked-LM head is needed and the model has none, Diverged.
    """
    if not texts:
        raise DataError(
            f"recovery.corpus ({cast(TrainedRecoveryConfig, config.recovery).corpus}) is empty: give one with text."
        )
    path = Path(config.cache_dir) / "recovered" / f"{_key(model, config, identity, texts, dtype)}.safetensors"
    store.make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):  # others who need the same model wait for it
        reused = store.read_cached(path, load_file) is not None
        if not reused:
            processes.refuse_several("recovery", "recovered model")
            outcome = _train(model, config, tokenizer, texts, device, dtype, name)
            facts = {key: getattr(outcome, key) for key in ("steps", "seconds", "engine", "curve")}
            cast(Any, model).to("cpu")
            state = {key: value.contiguous() for key, value in _encoder(model).items()}
            store.write_atomically(path, save(state, {"facts": json.dumps(facts)}))
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    # Also where it was trained just now: tables in few bits are stored rounded, and every user gets the same.
    missing, unexpected = model.base_model.load_state_dict(load_file(path), strict=False)
    if unexpected or any(not key.startswith("pooler.") for key in missing):
        raise BenchError(
            f"{path} does not hold this model (missing {missing}, left over {unexpected}): delete it."
        )
    return {
        "name": config.recovery.name,
        "sha256": pretrained.digest(path),
        "reused": reused,
        "texts": len(texts),
        **facts,
    }


def _encoder(model: PreTrainedModel) -> dict[str, Tensor]:
    return {
        key: value for key, value in model.base_model.state_dict().items() if not key.startswith("pooler.")
    }


def _key(
    model: PreTrainedModel, config: RunConfig, identity: dict[str, Any], texts: Sequence[str], dtype: str
) -> str:
    recipe = {key: value for key, value in vars(config.recovery).items() if key != "corpus"}
    embedding = {name: part.cpu().numpy() for name, part in model.get_input_embeddings().state_dict().items()}
    return store.key(VERSION, recipe, identity, dtype, embedding, list(texts))


def _train(
    model: PreTrainedModel,
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    device: torch.device,
    dtype: str,
    name: str,
) -> Outcome:
    """Train the encoder in place and return the outcome."""
    recovery = cast(TrainedRecoveryConfig, config.recovery)
    data = unlabelled(tokenizer, texts, recovery.max_length, device)
    embedding = model.get_input_embeddings()
    learner, trained = _learner(recovery.name)(model, config, tokenizer, device)
    transformers.set_seed(recovery.seed)
    objective = Objective(lambda rows, _: rows, frozenset(embedding.parameters()), recovery.table_factor)
    part = config.training.device_batch or config.training.batch_size
    recipe = TrainingConfig(
        max_steps=recovery.steps,
        batch_size=recovery.batch_size,
        learning_rate=recovery.learning_rate,
        weight_decay=0.0,
        engine=config.training.engine,
        device_batch=-(-recovery.batch_size * part // config.training.batch_size),
    )
    name = f"{name} {recovery.name}"
    outcome = finetune(learner, data, recipe, seed=recovery.seed, dtype=dtype, name=name, objective=objective)
    if trained is not model:
        model.base_model.load_state_dict(_encoder(trained), strict=False)
    return outcome


def unlabelled(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, device: torch.device
) -> Examples:
    """Return the texts as examples without meaning in their labels."""
    ids = cast(list[list[int]], tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"])
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    return Examples(
        tokens={"input_ids": torch.from_numpy(np.concatenate(ids).astype(np.int32)).to(device)},
        offsets=torch.from_numpy(np.cumsum(lengths) - lengths).to(device),
        lengths=lengths,
        labels=torch.zeros(len(ids), dtype=torch.int64, device=device),
        pad={"input_ids": cast(int, tokenizer.pad_token_id)},
    )
