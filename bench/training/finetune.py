"""Fine-tuning of a sequence classifier, and its predictions."""

import itertools
import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.config import TrainingConfig
from bench.errors import BenchError
from bench.training.batching import Examples, evaluation_batches, training_batches
from bench.training.engine import make_engine, make_schedule
from bench.training.precision import autocast

log = logging.getLogger("bench")


class Diverged(BenchError):
    """The training loss is no longer a finite number."""


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


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Return the rate of the `step`-th of `steps` updates (from 0): linear warm-up from 0, then linear decay to 0."""
    warmup = int(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    return config.learning_rate * (steps - step) / max(1, steps - warmup)


def finetune(model: nn.Module, train: Examples, config: TrainingConfig, *, seed: int, dtype: str, name: str) -> Outcome:
    """Train `model` in place and return what was done; raises Diverged at the first check that finds a loss not finite."""
    per_epoch = -(-len(train) // config.batch_size)
    steps = config.max_steps if config.max_steps is not None else max(1, round(config.epochs * per_epoch))
    batches = list(itertools.islice(training_batches(train.lengths, config.batch_size, seed), steps))
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    on_gpu = train.offsets.device.type == "cuda"
    schedule = make_schedule([batches], rates, train.lengths, config.batch_size, rounded=on_gpu)
    model.train()
    begun = time.perf_counter()
    engine, fallback = make_engine(config.engine, model, train, schedule, config, dtype)
    started = time.perf_counter()
    every, curve, seen = max(1, steps // 20), list[list[float]](), np.cumsum([len(batch) for batch in batches])
    for step in range(steps):
        engine.step(step)
        if (step + 1) % every == 0 or step + 1 == steps:
            first = int(curve[-1][0]) if curve else 0
            curve.append([step + 1, _mean(engine.losses[:, 0], first, step + 1)])
            _tell(name, step + 1, steps, curve[-1][1], rates[step], int(seen[step]), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return Outcome(steps, steps / per_epoch, seconds, started - begun, int(seen[-1]), curve, engine.name, fallback,
                   min(engine.device_batch, config.batch_size))


def _mean(losses: Tensor, first: int, end: int) -> float:
    """Return the mean loss of the steps `first` to `end`, whose losses are read back for it."""
    values = losses[first:end].cpu()
    finite = values.isfinite()
    if not finite.all():
        done = first + int(finite.int().argmin())
        raise Diverged(f"The training loss is not a finite number any more after {done} of {len(losses)} steps: lower training.learning_rate.")
    return values.mean().item()


def _tell(name: str, step: int, steps: int, loss: float, rate: float, examples: int, seconds: float) -> None:
    left = divmod(round(seconds / step * (steps - step)), 60)
    log.info("%s | step %d/%d | loss %.3f | lr %.1e | %.0f examples/s | %d:%02d left", name, step, steps, loss, rate,
             examples / seconds, *left)


@torch.inference_mode()
def predict(model: nn.Module, data: Examples, batch_size: int, dtype: str) -> np.ndarray:
    """Return the logits (N, C) in the order of the examples, fp32."""
    model.eval()
    batches = evaluation_batches(data.lengths, batch_size)
    logits = []
    for rows in batches:
        inputs, _ = data.batch(rows)
        with autocast(dtype, data.offsets.device):
            logits.append(model(**inputs).logits.float())
    return torch.cat(logits).cpu().numpy()[np.argsort(np.concatenate(batches), kind="stable")]
