"""Recovery: training on unlabelled text that restores what a smaller embedding lost, once for every task of a sweep.

`recovery=<name>` chooses `learner` of bench/training/recoveries/<name>.py; its keys are a class in
bench/settings/recoveries.py.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from bench.models import location
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig, TrainingConfig
from bench.training import processes
from bench.training.batching import Examples
from bench.training.finetune import Outcome, finetune
from bench.training.lane import Objective

VERSION = 1  # raised whenever a change here changes a recovered model

# A learner takes a model with a swapped embedding, the run's configuration, the tokenizer and the device. It returns the module
# to train, whose `logits` (B,) are the rows' losses, and the model whose encoder this trains: the same, or one that shares its
# embedding.
Learner = Callable[
    [PreTrainedModel, RunConfig, PreTrainedTokenizerBase, torch.device], tuple[nn.Module, PreTrainedModel]
]


@dataclass(frozen=True)
class Recovery:
    """The recovery of a run: everything that decides the recovered model, except the model that it starts from."""

    config: RunConfig
    identity: dict[str, Any]  # of the pretrained model
    tokenizer: PreTrainedTokenizerBase
    texts: Sequence[str]
    device: torch.device
    dtype: str
    name: str  # of the run, for the log

    def recover(self, model: PreTrainedModel) -> dict[str, Any]:
        """Load the recovered encoder into `model`, whose embedding has been swapped, and return the record's `recovery`.

        The encoder, without a pooler, is trained unless `cache_dir/recovered` holds it for the same model, initial embedding,
        recipe, texts and number format. Raises DataError for a corpus without text, ConfigError if a masked-LM head is needed
        and the model has none, and Diverged.
        """
        if not self.texts:
            raise DataError(f"recovery.corpus ({self._settings.corpus}) is empty: give one with text.")

        # Train the encoder, or wait for another process that trains it.
        path = Path(self.config.cache_dir) / "recovered" / f"{self._key(model)}.safetensors"
        store.make_folder(path.parent)
        with FileLock(path.with_suffix(".lock")):
            reused = store.read_cached(path, load_file) is not None
            if not reused:
                processes.refuse_several("recovery", "recovered model")
                outcome = self._train(model)
                facts = {key: getattr(outcome, key) for key in ("steps", "seconds", "engine", "curve")}
                cast(Any, model).to("cpu")
                state = {key: value.contiguous() for key, value in _encoder(model).items()}
                store.write_atomically(path, save(state, {"facts": json.dumps(facts)}))
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])

        # Load the file even after training: it holds tables in few bits rounded, and every run gets the same encoder.
        missing, unexpected = model.base_model.load_state_dict(load_file(path), strict=False)
        if unexpected or any(not key.startswith("pooler.") for key in missing):
            raise BenchError(
                f"{path} does not hold this model (missing {missing}, unexpected {unexpected}): delete the file."
            )
        return {
            "name": self._settings.name,
            "sha256": location.digest(path),
            "reused": reused,
            "texts": len(self.texts),
            **facts,
        }

    @property
    def _settings(self) -> TrainedRecoveryConfig:
        return cast(TrainedRecoveryConfig, self.config.recovery)

    def _key(self, model: PreTrainedModel) -> str:
        recipe = {key: value for key, value in vars(self._settings).items() if key != "corpus"}
        embedding = model.get_input_embeddings().state_dict()
        table = {name: part.cpu().numpy() for name, part in embedding.items()}
        return store.key(VERSION, recipe, self.identity, self.dtype, table, store.lines_sha256(self.texts))

    def _train(self, model: PreTrainedModel) -> Outcome:
        """Train the encoder in place and return the outcome."""
        # Load the texts and the module to train.
        settings, training = self._settings, self.config.training
        data = unlabelled(self.tokenizer, self.texts, settings.max_length, self.device)
        table = frozenset(model.get_input_embeddings().parameters())
        make = cast(Learner, import_module(f"{__name__}.{settings.name}").learner)
        learner, trained = make(model, self.config, self.tokenizer, self.device)

        # Train it; `device_batch` is the same share of a batch as in the run.
        transformers.set_seed(settings.seed)
        part = training.device_batch or training.batch_size
        recipe = TrainingConfig(
            max_steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            engine=training.engine,
            device_batch=-(-settings.batch_size * part // training.batch_size),
        )
        outcome = finetune(
            learner,
            data,
            recipe,
            seed=settings.seed,
            dtype=self.dtype,
            name=f"{self.name} {settings.name}",
            objective=Objective(lambda rows, _: rows, table, settings.table_factor),
        )

        if trained is not model:
            model.base_model.load_state_dict(_encoder(trained), strict=False)
        return outcome


def _encoder(model: PreTrainedModel) -> dict[str, Tensor]:
    state = model.base_model.state_dict()
    return {key: value for key, value in state.items() if not key.startswith("pooler.")}


def unlabelled(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, device: torch.device
) -> Examples:
    """Return the texts as examples with labels of 0."""
    ids = cast(list[list[int]], tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"])
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    return Examples(
        tokens={"input_ids": torch.from_numpy(np.concatenate(ids).astype(np.int32)).to(device)},
        offsets=torch.from_numpy(np.cumsum(lengths) - lengths).to(device),
        lengths=lengths,
        labels=torch.zeros(len(ids), dtype=torch.int64, device=device),
        pad={"input_ids": cast(int, tokenizer.pad_token_id)},
    )
