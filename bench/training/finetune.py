"""Fine-tuning of a sequence classifier, and its predictions."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bench.errors import BenchError
from bench.settings.schema import TrainingConfig
from bench.training import processes
from bench.training.batching import Examples, evaluation_batches, training_batches
from bench.training.engine import make_engine
from bench.training.lane import TASK, Lane, Objective, make_schedule
from bench.training.precision import autocast

log = logging.getLogger("bench")


class Diverged(BenchError):
    """The training loss is no longer a finite number after `done` of `steps` steps."""

    def __init__(self, done: int, steps: int, whose: str = "") -> None:
        super().__init__(
            f"The {whose}training loss is not a finite number any more after {done} of {steps} steps: lower training.learning_rate."
        )
        self.done, self.steps = done, steps


class NotFinite(BenchError):
    """The trained model answers with NaN or infinite numbers: its last step, after the last loss, broke it."""


@dataclass(frozen=True)
class Outcome:
    """What training did: `curve` holds [step, mean loss since the previous point]."""

    steps: int
    epochs: float
    seconds: float  # of the steps; capturing or compiling them is `start_seconds`
    start_seconds: float
    examples: int
    curve: list[list[float]]
    engine: str  # eager | graph | compile
    fallback: str | None  # why the engine is not the one asked for
    device_batch: int  # rows that go through the model at once
    runs_at_once: int  # trained side by side in these seconds, this one included


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Return the rate of the `step`-th of `steps` updates (from 0): linear warm-up from 0, then linear decay to 0."""
    warmup = int(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    return config.learning_rate * (steps - step) / max(1, steps - warmup)


@dataclass(frozen=True)
class Trainee:
    """What one run trains: `model`, on the device of the rows, in place."""

    model: nn.Module
    train: Examples
    config: TrainingConfig
    seed: int
    name: str
    objective: Objective = TASK

    @property
    def per_epoch(self) -> int:
        """Return the steps of one epoch."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return (
            self.config.max_steps
            if self.config.max_steps is not None
            else max(1, round(self.config.epochs * self.per_epoch))
        )

    def lane(self, dtype: str) -> Lane:
        """Return the lane that trains the model."""
        batches = list(
            itertools.islice(
                training_batches(self.train.lengths, self.config.batch_size, self.seed), self.steps
            )
        )
        rates = [learning_rate(step, self.steps, self.config) for step in range(self.steps)]
        self.model.train()
        return Lane(
            self.model,
            self.train,
            make_schedule(batches, rates, self.train.lengths, self.config.batch_size),
            self.config,
            dtype,
            self.objective,
        )


def finetune(
    model: nn.Module,
    train: Examples,
    config: TrainingConfig,
    *,
    seed: int,
    dtype: str,
    name: str,
    objective: Objective = TASK,
) -> Outcome:
    """Train `model` in place and return what was done; raises Diverged at the first check that finds a loss not finite."""
    (outcome,) = finetune_together([Trainee(model, train, config, seed, name, objective)], dtype)
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def finetune_together(trainees: Sequence[Trainee], dtype: str) -> list[Outcome | Diverged]:
    """Train the models side by side and return what was done for each; one that diverges stops no other.

    All do the same number of steps, and the first one's engine is used.
    """
    first = trainees[0]
    if processes.COUNT > 1:
        torch.manual_seed(first.seed * processes.COUNT + processes.RANK)  # each draws dropout of its own
    lanes = [trainee.lane(dtype) for trainee in trainees]
    try:
        return _train(trainees, lanes)
    finally:
        for lane in lanes:
            lane.close()


def _train(trainees: Sequence[Trainee], lanes: Sequence[Lane]) -> list[Outcome | Diverged]:
    steps, schedules = trainees[0].steps, [lane.schedule for lane in lanes]
    begun = time.perf_counter()
    engine, fallback = make_engine(trainees[0].config.engine, lanes)
    started = time.perf_counter()
    every, told, curve = max(1, steps // 20), 0, list[list[float]]()
    seen = np.cumsum(
        [(schedule.rows >= 0).sum(1) for schedule in schedules], axis=1
    )  # (lanes, steps): examples
    diverged: dict[int, Diverged] = {}  # by the lane's place
    for step in range(steps):
        engine.step(step)
        if (step + 1) % every == 0 or step + 1 == steps:
            losses = torch.stack([lane.losses[told : step + 1] for lane in lanes]).cpu()
            for place in set(range(len(lanes))) - diverged.keys():
                if not losses[place].isfinite().all():
                    diverged[place] = Diverged(told + int(losses[place].isfinite().int().argmin()), steps)
            if len(diverged) == len(lanes):
                break
            curve.append([step + 1, *losses.mean(1).tolist()])
            told = step + 1
            name = trainees[0].name + (f" and {len(lanes) - 1} more" if len(lanes) > 1 else "")
            _tell(
                name,
                told,
                steps,
                losses.mean(1).nanmean().item(),
                schedules[0].rates[step],
                int(seen[:, step].sum()),
                time.perf_counter() - started,
            )
    seconds = time.perf_counter() - started
    return [
        diverged.get(place)
        or Outcome(
            steps=steps,
            epochs=steps / trainee.per_epoch,
            seconds=seconds,
            start_seconds=started - begun,
            examples=int(seen[place, -1]),
            curve=[[at, means[place]] for at, *means in curve],
            engine=engine.name,
            fallback=fallback,
            device_batch=lane.device_batch,
            runs_at_once=len(lanes),
        )
        for place, (trainee, lane) in enumerate(zip(trainees, lanes, strict=True))
    ]


def _tell(name: str, step: int, steps: int, loss: float, rate: float, examples: int, seconds: float) -> None:
    if not processes.IS_MAIN:
        return
    left = divmod(round(seconds / step * (steps - step)), 60)
    log.info(
        "%s | step %d/%d | loss %.3f | lr %.1e | %.0f examples/s | %d:%02d left",
        name,
        step,
        steps,
        loss,
        rate,
        examples / seconds,
        *left,
    )


@torch.inference_mode()
def predict(model: nn.Module, data: Examples, batch_size: int, dtype: str) -> np.ndarray:
    """Return the logits (N, C) in the order of the examples, fp32; raises NotFinite for NaN or infinite ones."""
    model.eval()
    batches = evaluation_batches(data.lengths, batch_size)
    logits = []
    for rows in batches:
        inputs, _ = data.batch(rows)
        with autocast(dtype, data.offsets.device):
            logits.append(model(**inputs).logits.float())
    found = torch.cat(logits).cpu().numpy()[np.argsort(np.concatenate(batches), kind="stable")]
    if bad := int((~np.isfinite(found).all(axis=1)).sum()):  # an argmax would make class 0 of them
        raise NotFinite(
            f"The model's answers to {bad:,} of {len(found):,} rows are NaN or infinite: lower training.learning_rate."
        )
    return found
