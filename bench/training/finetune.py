"""Fine-tuning of a sequence classifier, and its predictions."""

import itertools
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.settings.schema import TrainingConfig
from bench.training import processes
from bench.training.batching import Examples, Schedule, evaluation_batches, training_batches
from bench.training.checkpoint import Checkpoint, Keeper, load_state
from bench.training.engine import make_engine
from bench.training.lane import TASK, Lane, Objective
from bench.training.precision import autocast
from bench.training.random_stream import RandomStream

log = logging.getLogger("bench")


class Diverged(BenchError):
    """The training loss is not a finite number after `done` of `steps` steps."""

    def __init__(self, done: int, steps: int, whose: str = "", key: str = "training.learning_rate") -> None:
        super().__init__(
            f"The {whose}training loss is no longer a finite number after {done} of {steps} steps: lower {key}."
        )
        self.done, self.steps = done, steps


class NotFinite(BenchError):
    """The trained model returns NaN or infinite logits: its last update, after the last loss, broke it."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training."""

    steps: int
    epochs: float
    seconds: float  # of the steps; capturing or compiling them is `start_seconds`
    start_seconds: float
    examples: int
    curve: list[list[float]]  # [step, mean loss since the previous point]
    engine: str  # eager | graph | compile
    fallback: str | None  # why it is not the configured engine
    device_batch: int  # rows in a forward pass
    runs_at_once: int  # runs trained side by side in these seconds, including this run


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Return the learning rate of update `step` (from 0) of `steps`: linear warm-up from 0, then linear decay to 0."""
    warmup = int(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    return config.learning_rate * (steps - step) / max(1, steps - warmup)


@dataclass(frozen=True)
class Trainee:
    """A model to train in place, on the device of its examples."""

    model: nn.Module
    train: Examples
    config: TrainingConfig
    seed: int
    name: str
    objective: Objective = TASK
    checkpoint: Checkpoint | None = None

    @property
    def per_epoch(self) -> int:
        """Return the steps of one epoch."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        if self.config.max_steps is not None:
            return self.config.max_steps
        return max(1, round(self.config.epochs * self.per_epoch))

    def lane(self, dtype: str) -> Lane:
        """Return the lane that trains the model."""
        size, lengths = self.config.batch_size, self.train.lengths
        batches = list(itertools.islice(training_batches(lengths, size, self.seed), self.steps))
        rates = [learning_rate(step, self.steps, self.config) for step in range(self.steps)]
        schedule = Schedule.of(batches, rates, lengths, size)
        # Several processes draw different dropout masks.
        seed = self.seed if processes.COUNT == 1 else self.seed * processes.COUNT + processes.RANK
        random = RandomStream(seed, self.train.offsets.device)
        # The embedding learns at its own rate; a recovery names the embedding itself.
        objective = self.objective
        if self.config.table_factor != 1:
            table = frozenset(cast(Any, self.model).get_input_embeddings().parameters())
            objective = replace(objective, fast=table, factor=self.config.table_factor)
        self.model.train()
        return Lane(self.model, self.train, schedule, self.config, dtype, random, objective)


def finetune_together(trainees: Sequence[Trainee], dtype: str) -> list[Outcome | Diverged]:
    """Train the models side by side and return the outcome of each; a model that diverges does not stop the others.

    All train for the same number of steps, by the engine of the first. One that has a checkpoint goes on from its state:
    those that go on from different steps train one group after the other. The caller removes the checkpoints.
    """
    states = [trainee.checkpoint.read() if trainee.checkpoint else None for trainee in trainees]
    groups: dict[int, list[int]] = {}
    for number, state in enumerate(states):
        groups.setdefault(int(state["counter"]) if state else 0, []).append(number)
    outcomes: dict[int, Outcome | Diverged] = {}
    for numbers in groups.values():
        together = [trainees[number] for number in numbers]
        lanes = [trainee.lane(dtype) for trainee in together]
        try:
            of_group = _train(together, lanes, [states[number] for number in numbers])
        finally:
            for lane in lanes:
                lane.close()
        outcomes |= zip(numbers, of_group, strict=True)
    return [outcomes[number] for number in range(len(trainees))]


def _train(
    trainees: Sequence[Trainee], lanes: Sequence[Lane], states: Sequence[dict[str, Tensor] | None]
) -> list[Outcome | Diverged]:
    # Capture or compile the step, which a state must follow.
    begin, steps = time.perf_counter(), trainees[0].steps
    engine, fallback = make_engine(trainees[0].config.engine, lanes)
    start_seconds = time.perf_counter() - begin

    # Train, and read the losses about 20 times.
    name = trainees[0].name + (f" and {len(lanes) - 1} more" if len(lanes) > 1 else "")
    points = {*range(max(1, steps // 20), steps, max(1, steps // 20)), steps}
    progress = Progress(name, steps, lanes)
    start = progress.resume(states, points)
    keeper = Keeper([trainee.checkpoint for trainee in trainees], lanes)
    try:
        for step in range(start, steps):
            engine.step(step)
            if step + 1 in points:
                engine.join()
                progress.read(step + 1)
                progress.log_progress()
                if len(progress.diverged) == len(lanes):
                    break
            if keeper.due():
                keeper.write(time.perf_counter() - progress.begin)
    finally:
        engine.join()
    seconds = time.perf_counter() - progress.begin

    return [
        progress.diverged.get(number)
        or Outcome(
            steps=steps,
            epochs=steps / trainee.per_epoch,
            seconds=seconds,
            start_seconds=start_seconds,
            examples=lane.schedule.examples(steps),
            curve=progress.curves[number],
            engine=engine.name,
            fallback=fallback,
            device_batch=lane.device_batch,
            runs_at_once=len(lanes),
        )
        for number, (trainee, lane) in enumerate(zip(trainees, lanes, strict=True))
    ]


class Progress:
    """The losses of lanes that train side by side, read from the device at intervals and logged."""

    def __init__(self, name: str, steps: int, lanes: Sequence[Lane]) -> None:
        self.name, self.steps, self.lanes = name, steps, lanes
        self.begin, self.done = time.perf_counter(), 0
        self.curves: list[list[list[float]]] = [[] for _ in lanes]
        self.diverged: dict[int, Diverged] = {}  # by the lane's number

    def resume(self, states: Sequence[dict[str, Tensor] | None], points: Collection[int]) -> int:
        """Set the lanes to the states of their checkpoints, if any, and return the number of steps that were done.

        The losses are read at these `points` again.
        """
        done = 0
        for lane, state in zip(self.lanes, states, strict=True):
            if state:
                load_state(lane, state)
                done, seconds = int(state["counter"]), float(state["seconds"])
                self.begin = time.perf_counter() - seconds
        for point in sorted(point for point in points if point <= done):
            self.read(point)
        if done:
            log.info(f"{self.name} | goes on after step {done}/{self.steps}")
        return done

    def read(self, done: int) -> None:
        """Read the losses of all steps up to `done`."""
        losses = torch.stack([lane.losses[self.done : done] for lane in self.lanes]).cpu()
        means = losses.mean(1)
        for number, finite in enumerate(losses.isfinite()):
            if number not in self.diverged and not finite.all():
                self.diverged[number] = Diverged(self.done + int(finite.int().argmin()), self.steps)
            self.curves[number].append([done, means[number].item()])
        self.done = done

    def log_progress(self) -> None:
        """Log the last loss, the learning rate, the speed and the time left."""
        if not processes.IS_MAIN or len(self.diverged) == len(self.lanes):
            return
        loss, seconds = np.nanmean([curve[-1][1] for curve in self.curves]), time.perf_counter() - self.begin
        rate = self.lanes[0].schedule.rates[self.done - 1]
        speed = sum(lane.schedule.examples(self.done) for lane in self.lanes) / seconds
        minutes, rest = divmod(round(seconds / self.done * (self.steps - self.done)), 60)
        log.info(
            f"{self.name} | step {self.done}/{self.steps} | loss {loss:.3f} | lr {rate:.1e} | "
            f"{speed:.0f} examples/s | {minutes}:{rest:02d} left"
        )


@torch.inference_mode()
def predict(model: nn.Module, data: Examples, tokens: int, dtype: str) -> np.ndarray:
    """Return the logits (N, C) in the order of the examples, in fp32; raises NotFinite for NaN or infinite logits.

    A batch has at most `tokens` tokens with its padding, or one row. Nothing is read back before the last batch.
    """
    model.eval()
    device = data.offsets.device
    order, ends = evaluation_batches(data.lengths, tokens)
    on_device, outputs = torch.from_numpy(order).to(device), []
    with autocast(dtype, device):  # around all batches, as it casts each weight once
        for begin, end in itertools.pairwise([0, *ends]):
            inputs, _ = data.padded(on_device[begin:end], int(data.lengths[order[begin]]))
            outputs.append(model(**inputs).logits.float())
    logits = torch.cat(outputs).cpu().numpy()[np.argsort(order, kind="stable")]

    # Refuse NaN, which an argmax would take for class 0.
    if bad := int((~np.isfinite(logits).all(axis=1)).sum()):
        raise NotFinite(
            f"The model's logits of {bad:,} of {len(logits):,} rows are NaN or infinite: lower training.learning_rate."
        )
    return logits
