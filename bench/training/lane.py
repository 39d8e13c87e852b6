"""A lane: the training step of one run, from the batch over forward, backward and clipping to AdamW.

All its data lie on the device: the tokenised examples, the schedule, and a counter of the steps that points into it.
Nothing is read back, so that a CUDA graph can capture the whole step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import Lookup
from bench.models.layers import blocks_of
from bench.settings.schema import TrainingConfig
from bench.training import processes
from bench.training.batching import Examples, Schedule, gather_padded
from bench.training.bf16_weights import Bf16Weights
from bench.training.compact_table import CompactTable, compacted
from bench.training.compilation import as_static, eager_class, embeddings_of, with_own_code
from bench.training.fused_adamw import BETAS, EPS, FusedAdamW, adamw
from bench.training.precision import autocast
from bench.training.random_stream import RandomStream


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each row's loss (B,) in fp32: the squared error for float labels, else the cross-entropy."""
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels, reduction="none")
    return F.cross_entropy(logits.float(), labels, reduction="none")


def mean_loss(
    losses: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor, rows: Tensor, count: Tensor
) -> Tensor:
    """Return the sum of the rows' losses over `count`, without rows of -1, which only fill the batch."""
    return losses(logits, labels).where(rows >= 0, 0).sum() / count


@dataclass(frozen=True)
class Objective:
    """What training minimises: the loss (B,) of each row, a function of the model's logits and the labels."""

    losses: Callable[[Tensor, Tensor], Tensor] = losses_of
    fast: frozenset[nn.Parameter] = frozenset()  # parameters that learn at `factor` times the schedule's rate
    factor: float = 1.0
    # whether the forward pass also takes the `rows` (B,) by number and the `step` (1,), by which it draws its own random numbers
    by_step: bool = False


TASK = Objective()


def make_optimizer(
    parameters: Sequence[nn.Parameter],
    config: TrainingConfig,
    rate: float | Tensor,
    objective: Objective = TASK,
) -> torch.optim.AdamW:
    """Return AdamW whose groups have a `factor`: the ratio of the group's learning rate to the schedule's.

    Biases and normalisation weights (all vectors) do not decay, as in BERT's own recipe.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in parameters:
        decays, fast = parameter.ndim > 1, parameter in objective.fast
        group = groups.setdefault(
            (fast, not decays),
            {
                "params": [],
                "weight_decay": config.weight_decay if decays else 0.0,
                "factor": objective.factor if fast else 1.0,
                "lr": rate.clone() if isinstance(rate, Tensor) else rate,
            },
        )
        group["params"].append(parameter)
    in_order = [groups[key] for key in sorted(groups)]
    return torch.optim.AdamW(
        in_order, lr=rate, betas=BETAS, eps=EPS, fused=True, capturable=isinstance(rate, Tensor)
    )


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm () of all gradients together, in fp32: PyTorch rounds the norm of bf16 tensors to bf16."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        by_dtype.setdefault(gradient.dtype, []).append(gradient)
    norms = [norm for same in by_dtype.values() for norm in torch._foreach_norm(same, 2, torch.float32)]
    return cast(Tensor, torch.linalg.vector_norm(torch.stack(norms)))


def refuse_forward(**_: Tensor) -> Tensor:
    """Raise: the lane is closed and can no longer train."""
    raise RuntimeError("This lane is closed.")


class Lane:
    """Trains a model in place, one step of its schedule at a time; `losses` (steps,) fills up.

    A batch larger than `device_batch` goes through the model in parts, whose gradients add up to those of the whole batch.
    Several processes split each batch in the same way.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Examples,
        schedule: Schedule,
        config: TrainingConfig,
        dtype: str,
        random: RandomStream,
        objective: Objective = TASK,
    ) -> None:
        self.model, self.schedule, self.config, self.dtype = model, schedule, config, dtype
        self.random = random
        self.objective = objective
        self.data = replace(data)  # a copy with its own device lengths, which a rehearsal changes
        self.device = device = data.offsets.device
        self.device_batch = min(config.device_batch or config.batch_size, config.batch_size)

        # Of a large table train only the rows that occur, at the rate of the table.
        self.table = compacted(model, data)
        if self.table and self.table.original.weight in objective.fast:
            self.objective = replace(objective, fast=objective.fast | {self.table.weight})
        self.parameters = [p for p in model.parameters() if p.requires_grad]

        # Put bf16 copies in the place of fp32 weights. Several processes do without: they exchange fp32 gradients.
        with_copies = dtype == "bf16" and processes.COUNT == 1
        self.bf16 = Bf16Weights(model) if with_copies else None
        self.shared = processes.SharedModel(model, device)

        # Give the remaining nn.Embedding layers the faster gradient.
        self.original_classes: list[tuple[nn.Module, type[Any]]] = []
        for layer in model.modules():
            if type(layer) is nn.Embedding and Lookup.can_replace(layer):
                self._replace_class(layer, Lookup)

        # Move this process's share of the schedule to the device. Counts are divided because gradients are averaged.
        self.rows = torch.from_numpy(schedule.rows[:, processes.RANK :: processes.COUNT].copy()).to(device)
        self.counts = torch.from_numpy((schedule.rows >= 0).sum(1) / processes.COUNT).float().to(device)
        self.rates = torch.zeros(len(schedule.rates), device=device)
        self.losses = torch.zeros(len(schedule.rows), device=device)
        self.counter = torch.zeros(1, dtype=torch.long, device=device)

        # A CUDA graph reads the learning rate from the device.
        rate: float | Tensor = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        self.optimizer = make_optimizer(self.parameters, config, rate, self.objective)
        self.fused: FusedAdamW | None = None

        self.forward: Callable[..., Tensor] = self._forward
        self.gather, self.mean_loss = gather_padded, mean_loss
        self.compiled: list[nn.Module] = []
        self.reset()

    def _forward(self, **inputs: Tensor) -> Tensor:
        with autocast(self.dtype, self.device):
            return self.shared.model(**inputs).logits  # type: ignore[no-any-return]

    def compile(self) -> None:
        """Let torch.compile fuse the model's blocks and the code around them; it compiles at the first step.

        Blocks share their code, also between lanes of the same architecture. The module that adds up the embeddings is
        compiled once for each method; the method's own layer stays eager.
        """
        # One function is compiled for each method, with the body frozen or not, in training or not.
        torch._dynamo.config.recompile_limit = 64
        # Independent kernels are combined: MiniLM trains 3 % faster by it, XLM-R with f=3 tables 5 % (H100). Reductions are not:
        # the compiler chooses the form of a combined one by its time, and so its roundings, even where it is `deterministic`.
        combined: dict[str, Any] = {
            "combo_kernels": True,
            "combo_kernels_pointwise_only": True,
            "deterministic": True,
        }
        per_subkernel = combined | {"combo_kernel_per_subkernel_blocks": True}
        sizes = {self.device_batch, self.config.batch_size % self.device_batch} - {0}

        def fused(function: Callable[..., Any]) -> Callable[..., Any]:
            return with_own_code(torch.compile(function, dynamic=True, options=per_subkernel), sizes)

        # Compile the batch, the loss, the blocks and the modules that hold the embeddings.
        self.gather, self.mean_loss = fused(gather_padded), fused(mean_loss)
        blocks = list(blocks_of(self.model))
        for module in blocks + embeddings_of(self.model, blocks):
            if "forward" not in vars(module):  # another lane shares the module and has compiled it
                module.forward = fused(module.forward)
                self.compiled.append(module)
        for module in self.model.modules():
            if isinstance(module, CompressedEmbedding | CompactTable):
                self._replace_class(module, eager_class(cast(Any, type(module))))

        # AdamW is 31 % slower with blocks per subkernel.
        self.fuse_optimizer(torch.compile(adamw, dynamic=True, options=combined))

    def fuse_optimizer(self, update: Callable[..., None]) -> None:
        """Update the matrices by `update`, which computes what `adamw` does, instead of PyTorch's optimizer."""
        # The gradients of parts are added up in fp32, so that only those of whole batches can stay in bf16.
        bf16 = self.bf16 if self.device_batch == self.config.batch_size else None
        self.fused = FusedAdamW(bf16, self.optimizer, len(self.losses), self.device, update)

    def _replace_class(self, module: nn.Module, kind: type[Any]) -> None:
        """Replace the module's class.

        torch.compile caches by class, so that the next lane reuses the compiled code; patching `forward` on the instance
        would recompile.
        """
        self.original_classes.append((module, type(module)))
        module.__class__ = kind

    def uncompile(self) -> None:
        """Undo `compile`, except for the classes of embeddings, which `close` restores."""
        self.gather, self.mean_loss = gather_padded, mean_loss
        while self.compiled:
            del self.compiled.pop().forward  # uncovers the method of the module's class
        if self.fused:
            self.fused.close()
            self.fused = None

    def step(self, length: int) -> None:
        """Train on the rows that the counter points to, padded to `length` tokens, and advance the counter."""
        # Set the learning rates.
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                torch.mul(self.rates.index_select(0, self.counter)[0], group["factor"], out=group["lr"])
            else:
                group["lr"] = group["factor"] * float(self.schedule.rates[int(self.counter)])

        self._compute_gradients(length)

        # Clip: AdamW divides the gradients by its `grad_scale`, which saves a pass over them.
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        gradients += self.fused.bf16_gradients() if self.fused else []
        scale = ((total_norm(gradients) + 1e-6) / self.config.max_grad_norm).clamp(min=1)
        self.optimizer.grad_scale = scale  # type: ignore[attr-defined]

        # Update the weights and their copies.
        if self.fused:
            self.fused.step(self.counter, scale)
        self.optimizer.step()
        if self.bf16:
            self.bf16.refresh()
        self.counter += 1

    def _compute_gradients(self, length: int) -> None:
        """Compute the gradients of the mean loss over the batch's real rows, exact for a smaller last batch, and store the loss."""
        rows = self.rows.index_select(0, self.counter)[0]
        count = self.counts.index_select(0, self.counter)[0]

        # Drop the last step's gradients; Bf16Weights reuses the memory of those that it collects.
        collected = {id(weight) for weight in self.bf16.copies} if self.bf16 else set[int]()
        for parameter in self.parameters:
            if id(parameter) not in collected:
                parameter.grad = None

        # Go forward and backward, part by part.
        loss = torch.zeros((), device=self.device)
        parts = rows.split(self.device_batch)
        for part in parts:
            with self.shared.backward_pass(last=part is parts[-1]):
                inputs, labels = self.data.padded(part.clamp(min=0), length, self.gather)
                if self.objective.by_step:
                    inputs |= {"rows": part, "step": self.counter}
                logits = self.forward(**inputs)
                logits = as_static(logits, logits.ndim - 1)  # another number of classes
                mean = self.mean_loss(self.objective.losses, logits, labels, part, count)
                mean.backward()
            loss += mean.detach()
            if self.bf16:
                self.bf16.collect(first=part is parts[0])
        self.losses.index_copy_(0, self.counter, self.shared.mean(loss).unsqueeze(0))

    def rehearse(self) -> None:
        """Begin a rehearsal before a capture: until `reset`, steps run with learning rate 0.

        Rows are cut to one token so that padding, and hence an attention mask, is always present. Without padding
        transformers would skip the mask in the rehearsal but not in the capture, and the captured code path would differ.
        """
        self.rates.zero_()
        self.data.device_lengths.clamp_(max=1)
        self.counter.zero_()

    def reset(self) -> None:
        """Prepare for the first step and drop everything that a rehearsal left behind."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        if self.fused:
            self.fused.reset()
        if self.bf16:  # a rehearsal can break off within a backward pass
            self.bf16.forget()
        self.random.reset()
        self.rates.copy_(torch.from_numpy(self.schedule.rates))
        self.data.device_lengths.copy_(torch.from_numpy(self.data.lengths))
        self.counter.zero_()
        self.losses.zero_()

    def close(self) -> None:
        """Leave the model with its trained fp32 weights. The lane can no longer train and holds none of its memory."""
        self.uncompile()
        if self.bf16:
            self.bf16.restore()
            self.bf16 = None
        while self.original_classes:
            module, kind = self.original_classes.pop()
            module.__class__ = kind
        if self.table:
            self.table.restore(self.model, self.rates[: int(self.counter)], self.optimizer)
            self.table = None
        # The bound method is a reference cycle, which would keep the lane until the garbage collector runs.
        self.forward = refuse_forward
