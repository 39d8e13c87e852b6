"""AdamW as one pass over the matrices of a model, for torch.compile to fuse."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.training.bf16_weights import Bf16Weights

BETAS, EPS = (0.9, 0.999), 1e-8  # PyTorch's
AT_ONCE = 6  # matrices of one shape that a call steps: BERT-base's take 0.85 ms in all, one by one 1.5 (H100)


def adamw(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    copies: Sequence[Tensor | None],
    corrections: Tensor,
    scale: Tensor,
    rate: Tensor,
    shrink: Tensor,
) -> None:
    """Move the weights by a step of AdamW (Loshchilov & Hutter 2019, algorithm 2), in place, and set their copies to the result.

    Tensors at the same place of the lists have the same shape; gradients, which are divided by `scale`, and copies may have
    another dtype. `corrections` (2,) are 1 - beta ** step, by which the moving averages of the gradient and its square, which
    began at 0, are too small; `shrink` is 1 - rate * decay.
    """
    for weight, gradient, mean, square, copy in zip(weights, gradients, means, squares, copies, strict=True):
        scaled = gradient.float() / scale
        mean.lerp_(scaled, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(scaled, scaled, value=1 - BETAS[1])
        weight.mul_(shrink).sub_(rate / corrections[0] * mean / ((square / corrections[1]).sqrt() + EPS))
        if copy is not None:
            copy.copy_(weight)


class Matrix:
    """A weight with AdamW's two moving averages and, where it has one, its bf16 copy: these rows of `copy`."""

    def __init__(
        self, weight: nn.Parameter, copy: nn.Parameter | None = None, rows: slice = slice(None)
    ) -> None:
        self.weight, self.source, self.rows = weight.detach(), weight if copy is None else copy, rows
        self.copy = None if copy is None else copy.detach()[rows]
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)

    @property
    def gradient(self) -> Tensor | None:
        """Return the copy's gradient, or without a copy the weight's; None if it was not used."""
        return None if self.source.grad is None else self.source.grad[self.rows]


def batched(matrices: Sequence[Matrix]) -> Iterator[list[Matrix]]:
    """Yield AT_ONCE of them as long as there are as many, then one by one: for each length of list the step is compiled anew."""
    whole = len(matrices) - len(matrices) % AT_ONCE
    yield from (list(matrices[at : at + AT_ONCE]) for at in range(0, whole, AT_ONCE))
    yield from ([matrix] for matrix in matrices[whole:])


class FusedAdamW:
    """Takes the step of the matrices among the optimizer's parameters, to which it leaves the vectors.

    The weight of a linear layer goes through memory once, where to make its gradient fp32, AdamW, which writes back the
    gradient that it scaled, and to make the copy anew are a pass each. Until `close` the matrices' copies are not among those
    of `bf16`. A matrix is taken to have had a gradient in every step.
    """

    def __init__(
        self,
        bf16: Bf16Weights | None,
        optimizer: torch.optim.AdamW,
        steps: int,
        device: torch.device,
        update: Callable[..., None],
    ) -> None:
        self.bf16, self.update = bf16, update
        self.copies = (
            {weight: copy for weight, copy in bf16.copies.items() if weight.ndim > 1} if bf16 else {}
        )
        self.batches: list[tuple[dict[str, Any], list[list[Matrix]]]] = []  # of each group
        for group in optimizer.param_groups:
            alike: dict[tuple[torch.Size, bool], list[Matrix]] = {}
            for weight in group["params"]:
                if weight.ndim > 1:
                    alike.setdefault((weight.shape, weight in self.copies), []).append(
                        Matrix(weight, *self.copies.get(weight, ()))
                    )
            self.batches.append((group, [batch for some in alike.values() for batch in batched(some)]))
        count = torch.arange(1, steps + 1, dtype=torch.float64)
        self.corrections = torch.stack([1 - beta**count for beta in BETAS], dim=1).float().to(device)
        if bf16:  # last, so that what fails before leaves `bf16` as it is
            bf16.copies = {weight: copy for weight, copy in bf16.copies.items() if weight not in self.copies}

    @property
    def matrices(self) -> list[Matrix]:
        """Return all of them."""
        return [matrix for _, batches in self.batches for batch in batches for matrix in batch]

    def bf16_gradients(self) -> list[Tensor]:
        """Return the copies' gradients."""
        return [
            matrix.gradient
            for matrix in self.matrices
            if matrix.copy is not None and matrix.gradient is not None
        ]

    @torch.no_grad()
    def step(self, number: Tensor, scale: Tensor) -> None:
        """Take the step `number` (1,), from 0, by the gradients divided by `scale`, and drop them."""
        corrections = self.corrections.index_select(0, number)[0]
        for group, batches in self.batches:
            rate = torch.as_tensor(group["lr"])
            shrink = 1 - rate * group["weight_decay"]
            for batch in batches:
                if used := [matrix for matrix in batch if matrix.gradient is not None]:
                    self.update(
                        [m.weight for m in used],
                        [m.gradient for m in used],
                        [m.mean for m in used],
                        [m.square for m in used],
                        [m.copy for m in used],
                        corrections,
                        scale,
                        rate,
                        shrink,
                    )
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        for matrix in self.matrices:
            matrix.source.grad = None

    def reset(self) -> None:
        """Begin anew."""
        self.forget()
        for matrix in self.matrices:
            matrix.mean.zero_()
            matrix.square.zero_()

    def close(self) -> None:
        """Give the copies back."""
        if self.bf16:
            self.bf16.copies |= self.copies
