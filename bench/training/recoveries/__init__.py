"""Recovery: training on unlabelled text that restores what a smaller embedding lost, once for every task of a sweep.

`recovery=<name>` chooses `learners` of bench/training/recoveries/<name>.py; its keys are a class in
bench/settings/recoveries.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.errors import DataError
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig, TrainingConfig
from bench.tasks.corpora import UNNAMED, Passages
from bench.tasks.text import rules_sha256
from bench.tasks.tokenise import Reader, tokenise_texts
from bench.training import encoder_file, processes
from bench.training.batching import Examples
from bench.training.checkpoint import Checkpoint
from bench.training.finetune import Diverged, Outcome, Trainee, finetune_together
from bench.training.lane import Objective

VERSION = 5  # raised whenever a change here or in the training changes a recovered model
# Of the training's outcome, kept in the file and in every record, beside `stored_states`: whether a teacher's states were
# computed once, which rounds otherwise than a teacher that runs in each step.
FACTS = ("steps", "seconds", "engine", "curve", "runs_at_once")
# Keys that may differ where recoveries train side by side.
OWN = {"corpus", "seed", "learning_rate", "table_factor"}

# `learners` takes models with swapped embeddings, a run's configuration, the tokenizer, the texts, the same texts in the tokens
# of the dense model (the same object where none were removed), and the number format. It returns, for each model, the module to
# train, whose `logits` (B,) are the rows' losses, and the model whose encoder this trains: the same, or one that shares its
# embedding. It also returns the examples to train on: the texts, or with more columns.
Learners = Callable[
    [Sequence[PreTrainedModel], RunConfig, PreTrainedTokenizerBase, Examples, Examples, str],
    tuple[list[tuple[nn.Module, PreTrainedModel]], Examples],
]


@dataclass(frozen=True)
class Recovery:
    """The recovery of a run: everything that decides the recovered model, except the model that it starts from."""

    config: RunConfig
    identity: dict[str, Any]  # of the pretrained model
    reader: Reader  # of the texts; `ends_with` is the dense model's where the embedding removes tokens
    texts: Sequence[str]
    device: torch.device
    dtype: str
    name: str  # of the run, for the log

    @property
    def settings(self) -> TrainedRecoveryConfig:
        """Return the keys of `recovery`."""
        return cast(TrainedRecoveryConfig, self.config.recovery)

    @cached_property
    def texts_sha256(self) -> str:
        """Return the SHA-256 of the texts joined by line feeds."""
        return store.lines_sha256(self.texts)

    @property
    def languages(self) -> dict[str, dict[str, int]]:
        """Return the record's `languages`: language -> passages; nothing where the corpus names none."""
        known = self.texts.languages if isinstance(self.texts, Passages) else {}
        named = {language: count for language, count in known.items() if language != UNNAMED}
        return {"languages": named} if named else {}

    def path(self, model: PreTrainedModel) -> Path:
        """Return the path of the encoder recovered from `model`."""
        recipe = {key: value for key, value in vars(self.settings).items() if key != "corpus"}
        embedding = model.get_input_embeddings()
        table = {name: part.cpu().numpy() for name, part in embedding.state_dict().items()}
        parts = (part for part in embedding.modules() if isinstance(part, SubspaceEmbedding))
        computed = [part.codes() for part in parts if not part.codes_stored]  # of ids: no state holds them
        engine = self.config.training.engine
        means = ("means", *self.reader.key()) if self.reader.ends_with else ()
        key = store.key(
            VERSION, recipe, engine, self.identity, self.dtype, table, self.texts_sha256, *means, *computed
        )
        return Path(self.config.cache_dir) / "recovered" / f"{key}.safetensors"

    @property
    def shared(self) -> str:
        """Return a digest that recoveries share if they can train side by side: of teacher, texts, tokens and steps."""
        recipe = {key: value for key, value in vars(self.settings).items() if key not in OWN}
        return store.key(
            recipe, self.identity, self.dtype, self.texts_sha256, rules_sha256(self.reader.tokenizer)
        )

    @property
    def recipe(self) -> TrainingConfig:
        """Return the recipe of the training; `device_batch` is the same share of a batch as in the run."""
        settings, training = self.settings, self.config.training
        part = training.device_batch or training.batch_size
        return TrainingConfig(
            max_steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            engine=training.engine,
            device_batch=-(-settings.batch_size * part // training.batch_size),
        )


def recover_together(
    recoveries: Sequence[Recovery], models: Sequence[PreTrainedModel]
) -> list[dict[str, Any]]:
    """Load the recovered encoder into each of the models, whose embeddings have been swapped; return the records' `recovery`.

    An encoder, without a pooler, is trained unless `cache_dir/recovered` holds it for the same model, initial embedding,
    recipe, texts and number format. Those that are missing train side by side where they can. Raises DataError for a corpus
    without text, ConfigError if a masked-LM head is needed and the model has none, and Diverged.
    """
    for recovery in recoveries:
        if not recovery.texts:
            corpus = recovery.settings.corpus
            raise DataError(f"recovery.corpus ({corpus}) is empty: give one with text.")
    paths = [recovery.path(model) for recovery, model in zip(recoveries, models, strict=True)]

    # Train the encoders, or wait for another process that trains them.
    with store.locked(*paths):
        first = {path: number for number, path in reversed(list(enumerate(paths)))}
        missing = sorted(first[path] for path in first if store.read_cached(path, load_file) is None)
        groups: dict[str, list[tuple[Recovery, PreTrainedModel, Path]]] = {}
        for number in missing:
            job = recoveries[number], models[number], paths[number]
            groups.setdefault(recoveries[number].shared, []).append(job)
        for jobs in groups.values():
            processes.refuse_several("recovery", "recovered model")
            _train(jobs)

    return [
        {"name": recovery.settings.name, "reused": number not in missing, "texts": len(recovery.texts)}
        | recovery.languages
        | encoder_file.load(path, model)
        for number, (recovery, model, path) in enumerate(zip(recoveries, models, paths, strict=True))
    ]


def _train(jobs: Sequence[tuple[Recovery, PreTrainedModel, Path]]) -> None:
    """Train the encoders side by side, and write those that converge; raises Diverged for the first other."""
    # Load the texts and the modules to train.
    recoveries, models, paths = zip(*jobs, strict=True)
    one: Recovery = recoveries[0]
    cache_dir = Path(one.config.cache_dir)
    texts = whole = unlabelled(one.reader, one.texts, one.device, cache_dir)
    if one.reader.ends_with:
        whole = unlabelled(one.reader.ends_with, one.texts, one.device, cache_dir)
    tables = [frozenset(model.get_input_embeddings().parameters()) for model in models]
    make = cast(Learners, import_module(f"{__name__}.{one.settings.name}").learners)
    learners, data = make(models, one.config, one.reader.tokenizer, texts, whole, one.dtype)

    # Train them.
    trainees = []
    kept = [Checkpoint(path.with_suffix(".checkpoint"), f"{path.stem} {one.device.type}") for path in paths]
    for recovery, (learner, _), table, checkpoint in zip(recoveries, learners, tables, kept, strict=True):
        settings, name = recovery.settings, f"{recovery.name} {recovery.settings.name}"
        objective = Objective(rows_losses, table, settings.table_factor)
        seed = cast(int, settings.seed)  # a prepared run has put its own for null
        trainee = Trainee(learner, data, recovery.recipe, seed, name, objective, checkpoint)
        trainees.append(trainee)
    outcomes = finetune_together(trainees, one.dtype)

    # Write the encoders.
    for model, (_, trained), path, outcome in zip(models, learners, paths, outcomes, strict=True):
        if isinstance(outcome, Outcome):
            if trained is not model:
                model.base_model.load_state_dict(encoder_file.state_of(trained), strict=False)
            facts = {key: getattr(outcome, key) for key in FACTS}
            encoder_file.write(path, model, facts | {"stored_states": data is not texts})
    for checkpoint in kept:
        checkpoint.remove()
    for outcome in outcomes:
        if isinstance(outcome, Diverged):
            raise outcome


def rows_losses(losses: Tensor, _: Tensor) -> Tensor:
    """Return the rows' losses (B,), which a learner's logits already are."""
    return losses


def unlabelled(reader: Reader, texts: Sequence[str], device: torch.device, cache_dir: Path) -> Examples:
    """Return the texts as examples with labels of 0."""
    table = tokenise_texts(reader, texts, cache_dir)
    table = table.append_column("label", [np.zeros(len(table), np.int64)])
    return Examples.from_table(table, cast(int, reader.tokenizer.pad_token_id), device)
