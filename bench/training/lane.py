"""One run's training step: batch, forward, backward, clipping, AdamW.

Everything it needs lies on the device: the tokenised examples, which rows each step takes, the learning rates, and a
counter of the steps by which it finds them. It reads nothing back, so that a CUDA graph can hold the whole of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import Lookup
from bench.settings.schema import TrainingConfig
from bench.training import processes
from bench.training.batching import Examples, gathered
from bench.training.bf16_weights import Bf16Weights
from bench.training.fused_adamw import BETAS, EPS, FusedAdamW, adamw
from bench.training.precision import autocast
from bench.training.processes import Shared


@dataclass(frozen=True)
class Schedule:
    """What every step does: `rows` (steps, batch), -1 where a batch is not full; `rates` (steps,)."""

    rows: np.ndarray
    rates: np.ndarray
    lengths: np.ndarray  # (steps,): of each batch's longest row, in tokens


def make_schedule(
    batches: Sequence[np.ndarray], rates: Sequence[float], lengths: np.ndarray, batch_size: int
) -> Schedule:
    """Return the schedule of these batches; `lengths` are the examples'."""
    rows = np.full((len(rates), batch_size), -1, dtype=np.int64)
    for step, batch in enumerate(batches):
        rows[step, : len(batch)] = batch
    return Schedule(rows, np.array(rates), np.array([lengths[batch].max() for batch in batches]))


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each row's loss (B,): squared error for float labels, else cross-entropy, computed in fp32."""
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels, reduction="none")
    return F.cross_entropy(logits.float(), labels, reduction="none")


def mean_loss(
    losses: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor, rows: Tensor, count: Tensor
) -> Tensor:
    """Return the sum of the losses of what is a row, and not -1 to fill the batch, over `count`."""
    return losses(logits, labels).where(rows >= 0, 0).sum() / count


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
    parameters: Sequence[nn.Parameter],
    config: TrainingConfig,
    rate: float | Tensor,
    objective: Objective = TASK,
) -> torch.optim.AdamW:
    """Return AdamW; biases and normalisation weights (all vectors) do not decay, as in BERT's own recipe.

    A group's `factor` says by how much its rate differs from the schedule's.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in parameters:
        decays, fast = parameter.ndim > 1, parameter in objective.fast
        own: dict[str, Any] = {
            "weight_decay": config.weight_decay if decays else 0.0,
            "factor": objective.factor if fast else 1.0,
        }
        own["lr"] = rate.clone() if isinstance(rate, Tensor) else rate
        groups.setdefault((fast, not decays), own | {"params": []})["params"].append(parameter)
    in_order = [groups[key] for key in sorted(groups)]
    return torch.optim.AdamW(
        in_order, lr=rate, betas=BETAS, eps=EPS, fused=True, capturable=isinstance(rate, Tensor)
    )


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm () of all gradients together, in fp32 also of those in bf16, where PyTorch's rounds to bf16."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        by_dtype.setdefault(gradient.dtype, []).append(gradient)
    norms = [norm for some in by_dtype.values() for norm in torch._foreach_norm(some, 2, torch.float32)]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def repeated(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the model's stacks: an encoder's layers."""
    for child in model.children():
        if isinstance(child, nn.ModuleList) and len(child) > 1 and len({type(block) for block in child}) == 1:
            yield from child
        else:
            yield from repeated(child)


@cache
def eager_class(kind: type[Any]) -> type[Any]:
    """Return a class of the same modules whose forward pass torch.compile leaves as it is."""
    return type(kind.__name__, (kind,), {"forward": torch.compiler.disable(kind.forward)})


def closed(**_: Tensor) -> Tensor:
    """Stand for the forward pass of a lane that is closed."""
    raise RuntimeError("This lane is closed.")


class Lane:
    """Trains one model in place, a step of its schedule at a time; `losses` (steps,) fills up.

    A batch larger than `device_batch` goes through the model in parts, whose gradients add up to those of the whole; so do
    the parts of several processes.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Examples,
        schedule: Schedule,
        config: TrainingConfig,
        dtype: str,
        objective: Objective = TASK,
    ) -> None:
        self.model, self.schedule, self.config, self.dtype = model, schedule, config, dtype
        self.data = replace(data)  # with lengths on the device of its own, for a rehearsal to change
        self.objective = objective
        self.device = device = data.offsets.device
        self.device_batch = min(config.device_batch or config.batch_size, config.batch_size)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.bf16 = (
            Bf16Weights(model) if dtype == "bf16" and processes.COUNT == 1 else None
        )  # processes exchange fp32 gradients
        self.shared = Shared(model, device)
        self.classes: list[
            tuple[nn.Module, type[Any]]
        ] = []  # of modules that have another one while the lane trains
        for layer in model.modules():
            if type(layer) is nn.Embedding and Lookup.stands_for(layer):
                self._disguise(layer, Lookup)
        self.rows = torch.from_numpy(schedule.rows[:, processes.RANK :: processes.COUNT].copy()).to(device)
        self.counts = (
            torch.from_numpy((schedule.rows >= 0).sum(1) / processes.COUNT).float().to(device)
        )  # as gradients are averaged
        self.rates = torch.zeros(len(schedule.rates), device=device)
        self.losses = torch.zeros(len(schedule.rows), device=device)
        self.counter = torch.zeros(1, dtype=torch.long, device=device)
        rate: float | Tensor = (
            torch.zeros((), device=device) if device.type == "cuda" else 0.0
        )  # a graph reads it on the device
        self.optimizer = make_optimizer(self.parameters, config, rate, objective)
        self.forward: Callable[..., Tensor] = self._forward
        self.gather, self.mean_loss = gathered, mean_loss
        self.compiled: list[nn.Module] = []
        self.fused: FusedAdamW | None = None
        self.reset()

    def _forward(self, **inputs: Tensor) -> Tensor:
        with autocast(self.dtype, self.device):
            return self.shared.model(**inputs).logits  # type: ignore[no-any-return]

    def compile(self) -> None:
        """Have torch.compile fuse the model's blocks and what is around them, at the first step.

        The code of one block serves all, and all lanes' of this architecture. What adds up the embeddings is compiled once for
        each method, whose own layer is left as it is.
        """
        torch._dynamo.config.recompile_limit = (
            64  # of a function: methods, with the body frozen or not, in training or not
        )
        # Kernels that do not depend on one another are joined: MiniLM trains 3 % faster by it, XLM-R with f=3 tables 5 % (H100).
        joined: dict[str, Any] = {"combo_kernels": True}
        fused = partial(
            torch.compile, dynamic=True, options=joined | {"combo_kernel_per_subkernel_blocks": True}
        )
        self.gather, self.mean_loss = fused(gathered), fused(mean_loss)
        blocks = list(repeated(self.model))
        if not blocks:
            self.forward = fused(self._forward)
        within = {module for block in blocks for module in block.modules()}
        embeddings = [
            module
            for module in self.model.modules()
            if any(isinstance(child, nn.Embedding) for child in module.children())
            and within.isdisjoint(module.modules())
        ]
        for module in blocks + embeddings:
            module.forward = fused(module.forward)
            self.compiled.append(module)
        for module in self.model.modules():
            if isinstance(module, CompressedEmbedding):
                self._disguise(module, eager_class(cast(Any, type(module))))
        self.fuse_optimizer(
            torch.compile(adamw, dynamic=True, options=joined)
        )  # 31 % slower with blocks of each matrix's own

    def fuse_optimizer(self, update: Callable[..., None]) -> None:
        """Have `update`, which does what `adamw` does, step the matrices."""
        bf16 = (
            self.bf16 if self.device_batch == self.config.batch_size else None
        )  # the gradients of parts are added up in fp32
        self.fused = FusedAdamW(bf16, self.optimizer, len(self.losses), self.device, update)

    def _disguise(self, module: nn.Module, kind: type[Any]) -> None:
        """Exchange the module's class: torch.compile knows it again in the next lane, where it would not know a method's stand-in."""
        self.classes.append((module, type(module)))
        module.__class__ = kind

    def uncompile(self) -> None:
        """Undo `compile`, but for the classes of embeddings, which `close` gives back."""
        self.forward, self.gather, self.mean_loss = self._forward, gathered, mean_loss
        while self.compiled:
            del self.compiled.pop().forward  # the module's own, behind which its class's comes to light
        if self.fused:
            self.fused.close()
            self.fused = None

    def step(self, length: int) -> None:
        """Train on the rows that the counter points to, padded to `length` tokens, and count."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                torch.mul(self.rates.index_select(0, self.counter)[0], group["factor"], out=group["lr"])
            else:
                group["lr"] = group["factor"] * float(self.schedule.rates[int(self.counter)])
        self._gradients(length)
        # AdamW divides the gradients by its `grad_scale`, so that to clip them takes no pass over them of its own.
        gradients = [p.grad for p in self.parameters if p.grad is not None] + (
            self.fused.bf16_gradients() if self.fused else []
        )
        scale = ((total_norm(gradients) + 1e-6) / self.config.max_grad_norm).clamp(min=1)
        self.optimizer.grad_scale = scale  # type: ignore[attr-defined]
        if self.fused:
            self.fused.step(self.counter, scale)
        self.optimizer.step()
        if self.bf16:
            self.bf16.refresh()
        self.counter += 1

    def _gradients(self, length: int) -> None:
        """Set the gradients of the mean loss over the batch's real rows (a last, smaller batch is exact), and note the loss."""
        rows = self.rows.index_select(0, self.counter)[0]
        count = self.counts.index_select(0, self.counter)[0]
        kept = {id(weight) for weight in self.bf16.copies} if self.bf16 else set[int]()
        for parameter in self.parameters:
            if id(parameter) not in kept:
                parameter.grad = None
        loss = torch.zeros((), device=self.device)
        parts = rows.split(self.device_batch)
        for part in parts:
            with self.shared.alone(last=part is parts[-1]):
                inputs, labels = self.data.padded(part.clamp(min=0), length, self.gather)
                mean = self.mean_loss(self.objective.losses, self.forward(**inputs), labels, part, count)
                mean.backward()
            loss += mean.detach()
            if self.bf16:
                self.bf16.collect(first=part is parts[0])
        self.losses.index_copy_(0, self.counter, self.shared.mean(loss).unsqueeze(0))

    def rehearse(self) -> None:
        """Have steps train nothing until `reset`: AdamW at a rate of 0 leaves every weight as it is.

        Of each row they see one token at most: without padding to hide, transformers would leave out the mask, which it makes in a
        capture, where it cannot look, so that something else would run than what was rehearsed.
        """
        self.rates.zero_()
        self.data.lengths_there.clamp_(max=1)
        self.counter.zero_()

    def reset(self) -> None:
        """Be ready for the first step, without what a rehearsal left behind."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        if self.fused:
            self.fused.reset()
        if self.bf16:  # a rehearsal can end within a backward pass
            self.bf16.forget()
        self.rates.copy_(torch.from_numpy(self.schedule.rates))
        self.data.lengths_there.copy_(torch.from_numpy(self.data.lengths))
        self.counter.zero_()
        self.losses.zero_()

    def close(self) -> None:
        """Leave the model with its trained fp32 weights; the lane trains no more, and holds none of its memory."""
        self.uncompile()
        if self.bf16:
            self.bf16.restore()
            self.bf16 = None
        while self.classes:
            module, kind = self.classes.pop()
            module.__class__ = kind
        self.forward = (
            closed  # its own method is a cycle, which would keep the lane until the garbage collector comes
        )
