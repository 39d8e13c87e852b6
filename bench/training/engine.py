"""The training step: eager anywhere, or on a GPU as one CUDA graph per length, so that the card never waits for Python.

Everything a step needs lies on the device: the tokenised examples, which rows each step takes, the learning rates, and a
counter of the steps. A graph reads them by the counter, so that one replay is one whole step: batch, forward, backward,
clipping, AdamW.
"""

import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config import TrainingConfig
from bench.training import processes
from bench.training.batching import Examples
from bench.training.precision import autocast
from bench.training.processes import Shared

log = logging.getLogger("bench")
ENGINES = ("auto", "eager", "graph", "compile")
ROUND = 8  # graphs exist for lengths in multiples of this


@dataclass(frozen=True)
class Schedule:
    """What every step does: `rows` (steps, seeds, batch), -1 where a batch is not full; `rates` (steps,)."""

    rows: np.ndarray
    rates: np.ndarray
    lengths: list[int]  # (steps,): padded length of each batch, in tokens


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each row's loss (B,): squared error for float labels, else cross-entropy, computed in fp32."""
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels, reduction="none")
    return F.cross_entropy(logits.float(), labels, reduction="none")


@dataclass(frozen=True)
class Objective:
    """What a step minimises: each row's loss (B,), from the model's logits and the labels.

    The parameters in `fast` learn at `factor` times the schedule's rate.
    """

    losses: Callable[[Tensor, Tensor], Tensor] = losses_of
    fast: frozenset[nn.Parameter] = frozenset()
    factor: float = 1.0


TASK = Objective()


def make_optimizer(
    model: nn.Module, config: TrainingConfig, rate: float | Tensor, vector_dims: int = 1, objective: Objective = TASK
) -> torch.optim.AdamW:
    """Return AdamW; biases and normalisation weights (all vectors) do not decay, as in BERT's own recipe.

    A group's `factor` says by how much its rate differs from the schedule's.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in (p for p in model.parameters() if p.requires_grad):
        decays, fast = parameter.ndim > vector_dims, parameter in objective.fast
        own: dict[str, Any] = {"weight_decay": config.weight_decay if decays else 0.0, "factor": objective.factor if fast else 1.0}
        own["lr"] = rate.clone() if isinstance(rate, Tensor) else rate
        groups.setdefault((fast, not decays), own | {"params": []})["params"].append(parameter)
    return torch.optim.AdamW([groups[key] for key in sorted(groups)], lr=rate, fused=True, capturable=isinstance(rate, Tensor))


class Engine:
    """Runs the steps of a schedule on a model, in place; `losses` (steps, seeds) fills up as they run.

    With several seeds the model is a `SeedStack`, whose batch holds the rows of one seed after those of the other. A
    batch larger than `device_batch` goes through the model in parts, whose gradients add up to those of the whole; so do
    the parts of several processes.
    """

    name = "eager"

    def __init__(
        self, model: nn.Module, data: Examples, schedule: Schedule, config: TrainingConfig, dtype: str, objective: Objective = TASK
    ) -> None:
        self.model, self.data, self.schedule, self.config, self.dtype = model, data, schedule, config, dtype
        self.objective = objective
        device = data.offsets.device
        self.device_batch = config.device_batch or config.batch_size
        self.seeds = schedule.rows.shape[1]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.shared = Shared(model, device)
        self.rows = torch.from_numpy(schedule.rows[:, :, processes.RANK :: processes.COUNT].copy()).to(device)
        self.counts = torch.from_numpy((schedule.rows >= 0).sum(2) / processes.COUNT).float().to(device)  # as gradients are averaged
        self.rates = torch.from_numpy(schedule.rates.astype(np.float32)).to(device)
        self.losses = torch.zeros(len(schedule.rows), self.seeds, device=device)
        self.counter = torch.zeros(1, dtype=torch.long, device=device)
        self.on_device = device.type == "cuda"  # the learning rates: a graph reads them there
        rate: float | Tensor = torch.zeros((), device=device) if self.on_device else 0.0
        self.optimizer = make_optimizer(model, config, rate, 1 if self.seeds == 1 else 2, objective)
        self.forward: Callable[..., Tensor] = self._forward

    def _forward(self, **inputs: Tensor) -> Tensor:
        with autocast(self.dtype, self.data.offsets.device):
            return self.shared.model(**inputs).logits  # type: ignore[no-any-return]

    def step(self, number: int) -> None:
        """Do the step `number` (from 0); steps must be done in order."""
        if not self.on_device:
            for group in self.optimizer.param_groups:
                group["lr"] = group["factor"] * float(self.schedule.rates[number])
        self._whole_step(self.schedule.lengths[number])

    def _whole_step(self, length: int) -> None:
        """One step on the rows that the counter points to. No value is read back, so that it can be captured."""
        rows = self.rows.index_select(0, self.counter)[0]
        if self.on_device:
            for group in self.optimizer.param_groups:
                group["lr"].copy_(group["factor"] * self.rates.index_select(0, self.counter)[0])
        for parameter in self.parameters:
            parameter.grad = None
        count = self.counts.index_select(0, self.counter)[0]
        loss = torch.zeros(self.seeds, device=rows.device)
        parts = rows.split(self.device_batch, dim=1)
        for part in parts:
            with self.shared.alone(last=part is parts[-1]):
                inputs, labels = self.data.padded(part.clamp(min=0).flatten(), length)
                losses = self.objective.losses(self.forward(**inputs), labels).view(part.shape)
                mean = losses.where(part >= 0, 0).sum(1) / count  # over the batch's real rows: a last, smaller batch is exact
                mean.sum().backward()
            loss += mean.detach()
        clip(self.parameters, self.config.max_grad_norm, self.seeds)
        self.optimizer.step()
        self.losses.index_copy_(0, self.counter, self.shared.mean(loss).unsqueeze(0))
        self.counter += 1


def clip(parameters: Sequence[nn.Parameter], max_norm: float, seeds: int) -> None:
    """Scale the gradients in place so that their common norm, of each seed for itself, is at most `max_norm`."""
    if seeds == 1:
        nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
    scale = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1)  # as clip_grad_norm_ does
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))


class GraphEngine(Engine):
    """The same step as CUDA graphs, one for each padded length, all in one memory pool."""

    name = "graph"

    def __init__(
        self, model: nn.Module, data: Examples, schedule: Schedule, config: TrainingConfig, dtype: str, objective: Objective = TASK
    ) -> None:
        super().__init__(model, data, schedule, config, dtype, objective)
        if self.name == "compile":
            self.forward = torch.compile(self._forward, dynamic=True)
        random_state = torch.cuda.get_rng_state()
        rates = self.rates.clone()
        self.rates.zero_()  # AdamW at a rate of 0 leaves every weight as it is, so that warming up trains nothing
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        for length in sorted(set(schedule.lengths), reverse=True):  # longest first: the shorter ones reuse its memory
            gc.collect()  # the previous run's graphs: to destroy one while another is captured ends the capture
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.counter.zero_()
                self._whole_step(length)
            torch.cuda.current_stream().wait_stream(stream)
            for parameter in self.parameters:
                parameter.grad = None
            self.graphs[length] = torch.cuda.CUDAGraph()
            with uncollected(), torch.cuda.graph(self.graphs[length], pool=pool):
                self._whole_step(length)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.rates.copy_(rates)
        self.counter.zero_()
        self.losses.zero_()
        torch.cuda.set_rng_state(random_state)

    def step(self, number: int) -> None:
        self.graphs[self.schedule.lengths[number]].replay()


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python's garbage collector away."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class CompiledEngine(GraphEngine):
    """CUDA graphs of a forward and backward pass that torch.compile has fused."""

    name = "compile"


def make_engine(
    choice: str, model: nn.Module, data: Examples, schedule: Schedule, config: TrainingConfig, dtype: str,
    objective: Objective = TASK,
) -> tuple[Engine, str | None]:
    """Return the engine, and why it is not the one asked for (None if it is).

    `auto` is `graph` on a GPU and `eager` on a CPU. A capture that fails falls back to eager.
    """
    device = data.offsets.device
    wanted = choice if choice != "auto" else "graph" if device.type == "cuda" else "eager"
    if wanted == "eager" or device.type != "cuda" or processes.COUNT > 1:
        needs = "needs a CUDA device" if device.type != "cuda" else "runs in one process only"
        reason = None if wanted == "eager" else f"training.engine={wanted} {needs}"
        return Engine(model, data, schedule, config, dtype, objective), _told(reason)
    random_state = torch.cuda.get_rng_state()
    try:
        kind = CompiledEngine if wanted == "compile" else GraphEngine
        return kind(model, data, schedule, config, dtype, objective), None
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.synchronize()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())  # one that does not believe itself in a capture any more
        torch.cuda.set_rng_state(random_state)
        reason = f"the step could not be captured ({str(error).splitlines()[0]})"
        return Engine(model, data, schedule, config, dtype, objective), _told(reason)


def _told(reason: str | None) -> str | None:
    if reason:
        log.warning("%s: training goes on with the eager engine", reason)
    return reason


def bucket(length: int, most: int) -> int:
    """Return the length that a batch is padded to for a graph."""
    return min(math.ceil(length / ROUND) * ROUND, most)


def make_schedule(
    batches: Sequence[Sequence[np.ndarray]], rates: Sequence[float], lengths: np.ndarray, batch_size: int, rounded: bool
) -> Schedule:
    """Return the schedule of one run, or of several side by side: `batches` holds each seed's batches.

    With `rounded`, padded lengths are those that graphs exist for.
    """
    rows = np.full((len(rates), len(batches), batch_size), -1, dtype=np.int64)
    for seed, of_seed in enumerate(batches):
        for step, batch in enumerate(of_seed):
            rows[step, seed, : len(batch)] = batch
    longest = [max(int(lengths[batch].max()) for batch in at_once) for at_once in zip(*batches, strict=True)]
    most = int(lengths.max())
    return Schedule(rows, np.array(rates), [bucket(n, most) for n in longest] if rounded else longest)
