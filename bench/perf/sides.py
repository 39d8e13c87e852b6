"""The sides that are compared: each trains some steps when asked, and says how long they took."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from bench.models.architectures import build
from bench.perf.workload import Rows
from bench.settings.schema import TrainingConfig
from bench.training.batching import Examples
from bench.training.engine import make_engine
from bench.training.finetune import Trainee, predict
from bench.training.precision import resolve_dtype

LEARNING_RATE = 2e-5
PADDED = 128  # tokens: run_glue.py's default max_seq_length


def warm_steps(device: torch.device) -> int:
    """Return the steps before the clock starts."""
    return 3 if device.type == "cuda" else 1


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Side:
    """One way to train: `train(steps)` returns the seconds of that many steps after the first few."""

    how: ClassVar[str]
    dtype: str
    runs = 1
    fallback: str | None = None

    def train(self, steps: int) -> float:
        raise NotImplementedError

    def evaluate(self) -> float | None:
        """Return the seconds of one pass over the evaluation rows; None where another side's number holds."""
        raise NotImplementedError


class Clock(TrainerCallback):
    """Takes the time from the end of the warm-up to the end of the training."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.begun, self.ended = device, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == warm_steps(self.device):
            synchronise(self.device)
            self.begun = time.perf_counter()
        elif state.global_step == state.max_steps:
            synchronise(self.device)
            self.ended = time.perf_counter()


class TrainerSide(Side):
    """transformers' Trainer as run_glue.py documents it."""

    how = (
        f"transformers.Trainer as run_glue.py documents it: fp32, every row padded to {PADDED} tokens, default collator, "
        f"lr {LEARNING_RATE}, evaluation in batches of 8, everything else default"
    )

    def __init__(
        self,
        model: PreTrainedModel,
        train: Rows,
        evaluation: Rows,
        batch_size: int,
        device: torch.device,
        steps: int,
    ) -> None:
        self.device, self.clock, self.folder = device, Clock(device), tempfile.TemporaryDirectory()
        self.steps, self.dtype = steps, self.precision()
        pad = model.config.pad_token_id
        arguments = TrainingArguments(
            self.folder.name,
            max_steps=warm_steps(device) + steps,
            per_device_train_batch_size=batch_size,
            learning_rate=LEARNING_RATE,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
            **self.options(),
        )
        self.trainer = Trainer(
            model,
            arguments,
            data_collator=self.collator(pad),
            callbacks=[self.clock],
            train_dataset=train.dataset(self.pad_to(), pad),
            eval_dataset=evaluation.dataset(self.pad_to(), pad),
        )
        self.trainer.remove_callback(PrinterCallback)

    def precision(self) -> str:
        return "fp32"

    def options(self) -> dict[str, Any]:
        return {}

    def pad_to(self) -> int | None:
        return PADDED

    def collator(self, pad_token_id: int) -> Any:
        return default_data_collator

    def train(self, steps: int) -> float:
        assert steps == self.steps, "the Trainer's number of steps is fixed when it is made"
        self.trainer.train()
        return self.clock.ended - self.clock.begun

    def evaluate(self) -> float:
        synchronise(self.device)
        begun = time.perf_counter()
        self.trainer.evaluate()
        return time.perf_counter() - begun


class TunedTrainerSide(TrainerSide):
    """The Trainer with every switch that helps it."""

    how = (
        "transformers.Trainer tuned: bf16 on a GPU, rows of like length together and padded to the longest of the batch, "
        "fused AdamW, four loading processes on a GPU, evaluation in batches of 128"
    )

    def precision(self) -> str:
        return resolve_dtype("auto", self.device)

    def options(self) -> dict[str, Any]:
        workers = (
            {"dataloader_num_workers": 4, "dataloader_persistent_workers": True}
            if self.device.type == "cuda"
            else {}
        )
        return {
            "bf16": self.dtype == "bf16",
            "optim": "adamw_torch_fused",
            "train_sampling_strategy": "group_by_length",
            "per_device_eval_batch_size": 128,
            **workers,
        }

    def pad_to(self) -> int | None:
        return None

    def collator(self, pad_token_id: int) -> Any:
        words = {
            "[PAD]": pad_token_id,
            "[UNK]": 1 - pad_token_id,
        }  # the collator asks the tokenizer for the padding only
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel(words, "[UNK]")), pad_token="[PAD]"
        )
        return DataCollatorWithPadding(
            tokenizer, pad_to_multiple_of=8 if self.device.type == "cuda" else None
        )


class EngineSide(Side):
    """This project's engine `choice` on one model, or on several side by side."""

    how = "this project: length buckets, rows on the device, fused AdamW, bf16 on a GPU, evaluation in batches of 128"

    def __init__(
        self,
        choice: str,
        models: Sequence[nn.Module],
        train: Rows,
        evaluation: Rows,
        batch_size: int,
        device: torch.device,
        steps: int,
        pad_token_id: int,
    ) -> None:
        self.device, self.models, self.runs, self.dtype = (
            device,
            models,
            len(models),
            resolve_dtype("auto", device),
        )
        self.evaluation = Examples.from_dataset(evaluation.dataset(), pad_token_id, device)
        data = Examples.from_dataset(train.dataset(), pad_token_id, device)
        config = TrainingConfig(
            batch_size=batch_size, learning_rate=LEARNING_RATE
        )  # its three epochs decide which lengths get a graph
        config.max_steps = max(steps, Trainee(models[0], data, config, 0, "perf").steps)
        self.lanes = [
            Trainee(model, data, config, seed, "perf").lane(self.dtype) for seed, model in enumerate(models)
        ]
        self.engine, self.fallback = make_engine(choice, self.lanes)
        self.done = 0
        self._steps(warm_steps(device))

    def _steps(self, count: int) -> None:
        for step in range(self.done, self.done + count):
            self.engine.step(step)
        self.done += count
        synchronise(self.device)

    def train(self, steps: int) -> float:
        for model in self.models:
            model.train()
        begun = time.perf_counter()
        self._steps(steps)
        return time.perf_counter() - begun

    def evaluate(self) -> float | None:
        if self.runs > 1:
            return None
        self.lanes[0].close()  # all its turns at training are over: a run, too, evaluates its fp32 weights
        begun = time.perf_counter()
        predict(self.models[0], self.evaluation, 128, self.dtype)
        return time.perf_counter() - begun


TOGETHER = {"together": "auto", "compile_together": "compile"}  # sides of several models, and their engines
SIDES = ("trainer", "trainer_tuned", "eager", "graph", "compile", *TOGETHER)


def make_side(
    name: str,
    backbone: str,
    embedding: str,
    train: Rows,
    evaluation: Rows,
    batch_size: int,
    device: torch.device,
    steps: int,
    repeats: int,
    together: int,
) -> Side:
    """Return the side `name` with fresh models: one, or as many as `together` says for a side of several."""
    models = [build(backbone, embedding, device, seed) for seed in range(together if name in TOGETHER else 1)]
    if name in ("trainer", "trainer_tuned"):
        kind = TrainerSide if name == "trainer" else TunedTrainerSide
        return kind(models[0], train, evaluation, batch_size, device, steps)
    return EngineSide(
        TOGETHER.get(name, name),
        models,
        train,
        evaluation,
        batch_size,
        device,
        warm_steps(device) + repeats * steps,
        models[0].config.pad_token_id,
    )
