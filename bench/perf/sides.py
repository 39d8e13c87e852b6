"""The sides that are compared: each trains a number of steps and returns the seconds that they took."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
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

from bench.perf.workload import Rows
from bench.settings.schema import TrainingConfig
from bench.training.batching import Examples
from bench.training.engine import make_engine
from bench.training.finetune import Trainee, predict
from bench.training.precision import resolve_dtype

LEARNING_RATE = 2e-5
PADDED = 128  # tokens: run_glue.py's default max_seq_length


def warm_steps(device: torch.device) -> int:
    """Return the number of steps before the clock starts."""
    return 3 if device.type == "cuda" else 1


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Work:
    """What every side of a cell trains on and evaluates."""

    train: Rows
    evaluation: Rows
    batch_size: int
    steps: int  # of each measurement
    repeats: int  # measurements
    device: torch.device


class Side:
    """A way to train."""

    how: ClassVar[str]
    dtype: str
    runs = 1
    fallback: str | None = None

    def train(self) -> float:
        """Return the seconds of `work.steps` steps; the first few of all are not counted."""
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
    pad_to: ClassVar[int | None] = PADDED

    def __init__(self, model: PreTrainedModel, work: Work) -> None:
        self.device, self.clock, self.folder = work.device, Clock(work.device), tempfile.TemporaryDirectory()
        self.dtype = self.precision()
        pad = model.config.pad_token_id
        arguments = TrainingArguments(
            self.folder.name,
            max_steps=warm_steps(work.device) + work.steps,
            per_device_train_batch_size=work.batch_size,
            learning_rate=LEARNING_RATE,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=work.device.type == "cpu",
            **self.options(),
        )
        self.trainer = Trainer(
            model,
            arguments,
            data_collator=self.collator(pad),
            callbacks=[self.clock],
            train_dataset=work.train.dataset(self.pad_to, pad),
            eval_dataset=work.evaluation.dataset(self.pad_to, pad),
        )
        self.trainer.remove_callback(PrinterCallback)

    def precision(self) -> str:
        return "fp32"

    def options(self) -> dict[str, Any]:
        """Return arguments of the Trainer that are not its defaults."""
        return {}

    def collator(self, pad_token_id: int) -> Any:
        return default_data_collator

    def train(self) -> float:
        self.trainer.train()
        return self.clock.ended - self.clock.begun

    def evaluate(self) -> float:
        synchronise(self.device)
        begun = time.perf_counter()
        self.trainer.evaluate()
        return time.perf_counter() - begun


class TunedTrainerSide(TrainerSide):
    """The Trainer with every switch that makes it faster."""

    how = (
        "transformers.Trainer tuned: bf16 on a GPU, rows of like length together and padded to the longest of the batch, "
        "fused AdamW, four loading processes on a GPU, evaluation in batches of 128"
    )
    pad_to = None

    def precision(self) -> str:
        return resolve_dtype("auto", self.device)

    def options(self) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        return {
            "bf16": self.dtype == "bf16",
            "optim": "adamw_torch_fused",
            "train_sampling_strategy": "group_by_length",
            "per_device_eval_batch_size": 128,
            **({"dataloader_num_workers": 4, "dataloader_persistent_workers": True} if on_gpu else {}),
        }

    def collator(self, pad_token_id: int) -> Any:
        # The collator asks the tokenizer for the padding only.
        words = {"[PAD]": pad_token_id, "[UNK]": 1 - pad_token_id}
        model = Tokenizer(WordLevel(words, "[UNK]"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]")
        multiple = 8 if self.device.type == "cuda" else None
        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)


class EngineSide(Side):
    """This project's engine `choice` on one model, or on several side by side."""

    how = "this project: length buckets, rows on the device, fused AdamW, bf16 on a GPU, evaluation in batches of 128"

    def __init__(self, choice: str, models: Sequence[PreTrainedModel], work: Work) -> None:
        self.device, self.dtype, self.steps = work.device, resolve_dtype("auto", work.device), work.steps
        self.models, self.runs = models, len(models)

        # Rows on the device.
        pad = models[0].config.pad_token_id
        self.evaluation = Examples.from_dataset(work.evaluation.dataset(), pad, work.device)
        data = Examples.from_dataset(work.train.dataset(), pad, work.device)

        # An engine, warm. The configuration's three epochs decide which lengths get a graph.
        config = TrainingConfig(batch_size=work.batch_size, learning_rate=LEARNING_RATE)
        planned = Trainee(models[0], data, config, 0, "perf").steps
        config.max_steps = max(warm_steps(work.device) + work.repeats * work.steps, planned)
        trainees = [Trainee(model, data, config, seed, "perf") for seed, model in enumerate(models)]
        self.lanes = [trainee.lane(self.dtype) for trainee in trainees]
        self.engine, self.fallback = make_engine(choice, self.lanes)
        self.done = 0
        self._run(warm_steps(work.device))

    def _run(self, steps: int) -> None:
        for step in range(self.done, self.done + steps):
            self.engine.step(step)
        self.done += steps
        synchronise(self.device)

    def train(self) -> float:
        for model in self.models:
            model.train()
        begun = time.perf_counter()
        self._run(self.steps)
        return time.perf_counter() - begun

    def evaluate(self) -> float | None:
        if self.runs > 1:
            return None
        self.lanes[0].close()  # training is over, and a run evaluates its fp32 weights, too
        begun = time.perf_counter()
        predict(self.models[0], self.evaluation, 128, self.dtype)
        return time.perf_counter() - begun


TOGETHER = {"together": "auto", "compile_together": "compile"}  # sides of several models, and their engines
SIDES = ("trainer", "trainer_tuned", "eager", "graph", "compile", *TOGETHER)


def make_side(name: str, models: Sequence[PreTrainedModel], work: Work) -> Side:
    """Return the side `name` on fresh models: several for a side in TOGETHER, one for any other."""
    if name == "trainer":
        return TrainerSide(models[0], work)
    if name == "trainer_tuned":
        return TunedTrainerSide(models[0], work)
    return EngineSide(TOGETHER.get(name, name), models, work)
