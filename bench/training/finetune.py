"""Fine-tuning of a sequence classifier, and its predictions."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bench.config import TrainingConfig
from bench.errors import BenchError
from bench.training import processes
from bench.training.batching import Examples, evaluation_batches, training_batches
from bench.training.engine import TASK, Objective, make_engine, make_schedule
from bench.training.precision import autocast
from bench.training.seeds import SeedStack

log = logging.getLogger("bench")


class Diverged(BenchError):
    """The training loss is no longer a finite number after `done` of `steps` steps."""

    def __init__(self, done: int, steps: int) -> None:
        super().__init__(f"The training loss is not a finite number any more after {done} of {steps} steps: lower training.learning_rate.")


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
    seeds_at_once: int  # trained in these seconds as one batched model, this one included


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Return the rate of the `step`-th of `steps` updates (from 0): linear warm-up from 0, then linear decay to 0."""
    warmup = int(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    return config.learning_rate * (steps - step) / max(1, steps - warmup)


def finetune(
    model: nn.Module, train: Examples, config: TrainingConfig, *, seed: int, dtype: str, name: str, objective: Objective = TASK
) -> Outcome:
    """Train `model` in place and return what was done; raises Diverged at the first check that finds a loss not finite."""
    (outcome,) = _train(model, train, config, [seed], dtype, name, objective)
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def finetune_together(
    models: Sequence[nn.Module], train: Examples, config: TrainingConfig, *, seeds: Sequence[int], dtype: str, name: str
) -> list[Outcome | Diverged]:
    """Train one model a seed, all as one batched model, and return what was done for each; one that diverges stops no other.

    The models, on the CPU, get their trained weights back. Raises BenchError for an architecture that cannot be stacked.
    """
    stack = SeedStack(models).to(train.offsets.device)
    outcomes = _train(stack, train, config, seeds, dtype, f"{name} and {len(seeds) - 1} seeds more")
    stack.unstack(models)
    return outcomes


def _train(
    model: nn.Module, train: Examples, config: TrainingConfig, seeds: Sequence[int], dtype: str, name: str,
    objective: Objective = TASK,
) -> list[Outcome | Diverged]:
    per_epoch = -(-len(train) // config.batch_size)
    steps = config.max_steps if config.max_steps is not None else max(1, round(config.epochs * per_epoch))
    batches = [list(itertools.islice(training_batches(train.lengths, config.batch_size, seed), steps)) for seed in seeds]
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    on_gpu = train.offsets.device.type == "cuda"
    schedule = make_schedule(batches, rates, train.lengths, config.batch_size, rounded=on_gpu)
    if processes.COUNT > 1:
        torch.manual_seed(seeds[0] * processes.COUNT + processes.RANK)  # each draws dropout of its own
    model.train()
    begun = time.perf_counter()
    engine, fallback = make_engine(config.engine, model, train, schedule, config, dtype, objective)
    started = time.perf_counter()
    every, told, curve, seen = max(1, steps // 20), 0, list[list[float]](), np.cumsum([len(batch) for batch in batches[0]])
    diverged: dict[int, Diverged] = {}  # by the seed's place
    for step in range(steps):
        engine.step(step)
        if (step + 1) % every == 0 or step + 1 == steps:
            losses = engine.losses[told : step + 1].cpu()
            for place in set(range(len(seeds))) - diverged.keys():
                if not losses[:, place].isfinite().all():
                    diverged[place] = Diverged(told + int(losses[:, place].isfinite().int().argmin()), steps)
            if len(diverged) == len(seeds):
                break
            curve.append([step + 1, *losses.mean(0).tolist()])
            told = step + 1
            mean = losses.mean(0).nanmean().item()
            _tell(name, told, steps, mean, rates[step], len(seeds) * int(seen[step]), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return [diverged.get(place) or Outcome(
        steps=steps, epochs=steps / per_epoch, seconds=seconds, start_seconds=started - begun, examples=int(seen[-1]),
        curve=[[at, means[place]] for at, *means in curve], engine=engine.name, fallback=fallback,
        device_batch=min(engine.device_batch, config.batch_size), seeds_at_once=len(seeds)) for place in range(len(seeds))]


def _tell(name: str, step: int, steps: int, loss: float, rate: float, examples: int, seconds: float) -> None:
    if not processes.FIRST:
        return
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
