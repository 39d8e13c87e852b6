"""Pretraining: an encoder trained from random weights with its embedding in place, once for every task and fine-tuning seed."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.errors import ConfigError
from bench.models import pretrained, swap
from bench.settings.pretrainings import MaskedLmPretrainingConfig
from bench.settings.schema import RunConfig, TrainingConfig
from bench.tasks import corpora
from bench.tasks.packing import Packed, packed
from bench.training import encoder_file, processes
from bench.training.batching import Examples
from bench.training.checkpoint import Checkpoint
from bench.training.finetune import Diverged, Outcome, Trainee, finetune_together
from bench.training.lane import Objective
from bench.training.precision import autocast
from bench.training.pretraining.masked_rows import VALIDATION, MaskedRows
from bench.training.recoveries import rows_losses

# Of the training's outcome, kept in the file and in every record.
FACTS = ("steps", "seconds", "start_seconds", "engine", "fallback", "curve", "runs_at_once")
# Of a run's identity, what decides the pretrained model.
DECIDES = ("model", "embedding", "assignment", "pretraining", "sampling")
# Keys of `pretraining` that may differ where models train side by side.
OWN = {"seed", "learning_rate", "weight_decay", "warmup_fraction"}
log = logging.getLogger("bench")


@dataclass(frozen=True)
class Pretraining:
    """The pretraining of a run."""

    config: RunConfig  # resolved
    canonical: dict[str, Any]  # the run's identity
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: str
    name: str  # of the run, for the log

    @property
    def settings(self) -> MaskedLmPretrainingConfig:
        """Return the keys of `pretraining`."""
        return cast(MaskedLmPretrainingConfig, self.config.pretraining)

    @cached_property
    def key(self) -> str:
        """Return the SHA-256 of all that decides the pretrained model, except the kind of device."""
        parts = {name: self.canonical.get(name) for name in DECIDES}
        # How a classifier reads the encoder decides nothing here.
        parts["model"] = {key: value for key, value in self.canonical["model"].items() if key != "pooling"}
        return store.key(parts, self.config.training.engine, self.dtype)

    @property
    def path(self) -> Path:
        """Return the path of the pretrained encoder."""
        return Path(self.config.cache_dir) / "pretrained" / f"{self.key}.safetensors"

    @property
    def shared(self) -> str:
        """Return a digest that pretrainings share if they can train side by side: of architecture, text and steps."""
        recipe = {key: value for key, value in self.canonical["pretraining"].items() if key not in OWN}
        return store.key(recipe, self.canonical["model"], self.canonical.get("sampling"), self.dtype)

    @property
    def recipe(self) -> TrainingConfig:
        """Return the recipe of the training; `device_batch` is the same share of a batch as in the run."""
        settings, training = self.settings, self.config.training
        part = training.device_batch or training.batch_size
        # So many steps pay for compiling.
        compiled = training.engine == "auto" and self.device.type == "cuda" and processes.COUNT == 1
        return TrainingConfig(
            max_steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_fraction=settings.warmup_fraction,
            engine="compile" if compiled else training.engine,
            device_batch=-(-settings.batch_size * part // training.batch_size),
        )

    def packed(self) -> Packed:
        """Return the rows of the text; raises ConfigError for a tokenizer without the tokens that they need."""
        for name in ("mask_token", "cls_token", "sep_token"):
            if getattr(self.tokenizer, name) is None:
                raise ConfigError(
                    f"pretraining={self.settings.name} needs a {name}, which the tokenizer of model.path "
                    f"({self.config.model.path}) lacks: use another tokenizer."
                )
        named = f"pretraining.corpus ({self.settings.corpus})"
        texts = corpora.passages(cast(str, self.settings.corpus), self.config, "pretraining.corpus")
        length, cache_dir = self.settings.length, Path(self.config.cache_dir)
        return packed(texts, self.tokenizer, length, cache_dir, named)

    def learner(self) -> tuple[MaskedRows, PreTrainedModel]:
        """Return what is trained, on the device, and the encoder in it, as the pretraining's seed draws them."""
        seed = self.settings.seed
        config = replace(self.config, seed=seed)
        transformers.set_seed(seed)
        encoder = pretrained.load_model(config.model, "none")
        module, _ = swap.compressed(
            config,
            encoder,
            self.tokenizer,
            lambda: corpora.passages(config.assignment.corpus, config, "assignment.corpus"),
        )
        pretrained.swap_embedding(encoder, module)
        transformers.set_seed(seed)  # the head does not depend on what drew random numbers before
        return MaskedRows(encoder, self.tokenizer, seed).to(self.device), encoder


def pretrain_together(stages: Sequence[Pretraining]) -> list[dict[str, Any]]:
    """Return the facts of each pretrained encoder, which then lies in `cache_dir/pretrained`; the record's `pretraining`.

    Those that are missing there train side by side where they can; several processes train one together. Raises DataError
    for a text that the rows cannot be made of, ConfigError for a tokenizer or an assignment's model that does not fit, and
    Diverged.
    """
    if not stages:
        return []
    paths = [stage.path for stage in stages]
    # Train the encoders, or wait for another program that trains them.
    with store.locked(*(paths if processes.IS_MAIN else ())):
        processes.wait(stages[0].device)
        first = {path: number for number, path in reversed(list(enumerate(paths)))}
        missing = sorted(
            first[path] for path in first if store.read_cached(path, encoder_file.facts_of) is None
        )
        groups: dict[str, list[Pretraining]] = {}
        for number in missing:
            groups.setdefault(stages[number].shared, []).append(stages[number])
        for group in groups.values():
            _train(group)
        processes.wait(stages[0].device)
    return [
        {"name": stage.settings.name, "seed": stage.settings.seed, "reused": number not in missing}
        | encoder_file.facts_of(stage.path)
        for number, stage in enumerate(stages)
    ]


def _train(stages: Sequence[Pretraining]) -> None:
    """Train the encoders side by side, and write those that converge; raises Diverged for the first other."""
    # Load the text and the models.
    one, rows = stages[0], stages[0].packed()
    train, validation = examples(rows.ids, one.settings.held_out, one.device)
    if one.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    learners, encoders = zip(*(stage.learner() for stage in stages), strict=True)

    # Train them.
    kept = [
        Checkpoint(stage.path.with_suffix(".checkpoint"), f"{stage.key} {one.device.type}")
        for stage in stages
    ]
    objective = Objective(rows_losses, by_step=True)
    trainees = [
        Trainee(
            learner,
            train,
            stage.recipe,
            stage.settings.seed,
            f"{stage.name} pretraining",
            objective,
            checkpoint,
        )
        for stage, learner, checkpoint in zip(stages, learners, kept, strict=True)
    ]
    outcomes = finetune_together(trainees, one.dtype)

    # Measure and write those that converge.
    about_text = {
        "train_rows": len(train),
        "held_out_rows": len(validation),
        "text_tokens": rows.tokens,
        "unknown": rows.unknown / rows.tokens,
        "text_sha256": rows.sha256,
    }
    failed = [
        outcome
        if isinstance(outcome, Diverged)
        else _write(stage, learner, encoder, validation, about_text | _measured(stage, outcome))
        for stage, learner, encoder, outcome in zip(stages, learners, encoders, outcomes, strict=True)
    ]
    if one.device.type == "cuda":
        torch.cuda.empty_cache()
    if processes.IS_MAIN:
        for checkpoint in kept:
            checkpoint.remove()
    for error in filter(None, failed):
        raise Diverged(error.done, error.steps, "pretraining's ", "pretraining.learning_rate")


def _write(
    stage: Pretraining,
    learner: MaskedRows,
    encoder: PreTrainedModel,
    validation: Examples,
    facts: dict[str, Any],
) -> Diverged | None:
    """Write the encoder with the facts and the validation loss, and free the device of it.

    Returns the error, and writes nothing, where the validation loss is not finite: the last update broke the model.
    """
    loss = validation_loss(learner, validation, stage.dtype, stage.recipe.device_batch or 1)
    learner.to("cpu")
    if not math.isfinite(loss):
        return Diverged(facts["steps"], facts["steps"])
    log.info("%s | validation loss %.3f, perplexity %.1f", stage.name, loss, math.exp(loss))
    if processes.IS_MAIN:
        encoder_file.write(
            stage.path, encoder, facts | {"validation_loss": loss, "perplexity": math.exp(loss)}
        )
    return None


def _measured(stage: Pretraining, outcome: Outcome) -> dict[str, Any]:
    """Return what the pretraining took and went through."""
    tokens = outcome.examples * stage.settings.length
    on_gpu, alone = stage.device.type == "cuda", outcome.runs_at_once == 1
    return {key: getattr(outcome, key) for key in FACTS} | {
        "tokens": tokens,
        "tokens_per_second": tokens / outcome.seconds,
        "dtype": stage.dtype,
        "processes": processes.COUNT,
        "device": torch.cuda.get_device_name(stage.device) if on_gpu else "cpu",
        "device_hours": (outcome.seconds + outcome.start_seconds)
        * processes.COUNT
        / outcome.runs_at_once
        / 3600,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(stage.device) if on_gpu and alone else None,
    }


def examples(ids: np.ndarray, held_out: float, device: torch.device) -> tuple[Examples, Examples]:
    """Return the rows (N, length) to train on and those held out, the same for every seed; both share the tokens."""
    count, length = ids.shape
    drawn = np.random.default_rng(0).permutation(count)
    held = max(1, round(held_out * count))
    tokens = torch.from_numpy(ids.reshape(-1)).to(device)

    def chosen(rows: np.ndarray) -> Examples:
        return Examples(
            tokens={"input_ids": tokens},
            offsets=torch.from_numpy(rows * length).to(device),
            lengths=np.full(len(rows), length),
            labels=torch.zeros(len(rows), dtype=torch.int64, device=device),
            pad={"input_ids": 0},  # never used: all rows are full
        )

    return chosen(np.sort(drawn[held:])), chosen(np.sort(drawn[:held]))


@torch.inference_mode()
def validation_loss(learner: nn.Module, data: Examples, dtype: str, batch_size: int) -> float:
    """Return the mean loss of the rows' hidden tokens, the same ones for every model."""
    device, total = data.offsets.device, 0.0
    step, length = torch.tensor([VALIDATION], device=device), int(data.lengths[0])
    for rows in torch.arange(len(data), device=device).split(batch_size):
        inputs, _ = data.padded(rows, length)
        with autocast(dtype, device):
            total += learner(**inputs, rows=rows, step=step).logits.double().sum()
    return float(total) / len(data)
