"""AdamW in one pass over the matrices of a model, for torch.compile to fuse."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.training.bf16_weights import Bf16Weights

BETAS, EPS = (0.9, 0.999), 1e-8  # PyTorch's defaults
AT_ONCE = 6  # matrices of one shape in a call: BERT-base's update takes 0.85 ms in all, in single calls 1.5 ms (H100)


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
    """Update the weights in place by a step of AdamW (Loshchilov & Hutter 2019, algorithm 2), and set their copies.

    Tensors at the same index of the lists have the same shape. Gradients, which are divided by `scale`, and copies may have
    another dtype. `corrections` (2,) are 1 - beta ** step: the moving averages of the gradient and its square are too small
    by this factor, since they begin at 0. `shrink` is 1 - rate * decay.
    """
    for weight, gradient, mean, square, copy in zip(weights, gradients, means, squares, copies, strict=True):
        scaled = gradient.float() / scale
        mean.lerp_(scaled, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(scaled, scaled, value=1 - BETAS[1])
        weight.mul_(shrink).sub_(rate / corrections[0] * mean / ((square / corrections[1]).sqrt() + EPS))
        if copy is not None:
            copy.copy_(weight)


class Matrix:
    """A weight with AdamW's two moving averages and, if it has a bf16 copy, these rows of `copy`."""

    def __init__(
        self, weight: nn.Parameter, copy: nn.Parameter | None = None, rows: slice = slice(None)
    ) -> None:
        self.parameter, self.weight, self.rows = weight, weight.detach(), rows
        self.source = weight if copy is None else copy  # the parameter that gets the gradient
        self.copy = None if copy is None else copy.detach()[rows]
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)

    @property
    def gradient(self) -> Tensor | None:
        """Return the gradient of the copy or, without a copy, of the weight; None if it was not used."""
        return None if self.source.grad is None else self.source.grad[self.rows]


def batched(matrices: Sequence[Matrix]) -> Iterator[list[Matrix]]:
    """Yield groups of AT_ONCE, then single matrices: torch.compile compiles the step for each length of list."""
    whole = len(matrices) - len(matrices) % AT_ONCE
    yield from (list(matrices[at : at + AT_ONCE]) for at in range(0, whole, AT_ONCE))
    yield from ([matrix] for matrix in matrices[whole:])


class FusedAdamW:
    """Updates the matrices among the optimizer's parameters and leaves the vectors to the optimizer.

    Reads and writes each weight once. Separately, casting the gradient, the AdamW update and refreshing the bf16 copy would
    take three passes over memory. Until `close`, the matrices' copies are not among those of `bf16`. The corrections assume
    that a matrix has a gradient in every step.
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
        copies = bf16.copies if bf16 else {}
        self.copies = {weight: copy for weight, copy in copies.items() if weight.ndim > 1}

        # Batch the matrices of each group that have the same shape and dtypes.
        self.batches: list[tuple[dict[str, Any], list[list[Matrix]]]] = []
        for group in optimizer.param_groups:
            alike: dict[tuple[torch.Size, bool], list[Matrix]] = {}
            for weight in group["params"]:
                if weight.ndim > 1:
                    matrix = Matrix(weight, *self.copies.get(weight, ()))
                    alike.setdefault((weight.shape, weight in self.copies), []).append(matrix)
            self.batches.append((group, [batch for same in alike.values() for batch in batched(same)]))

        # Compute the corrections of all steps in fp64.
        count = torch.arange(1, steps + 1, dtype=torch.float64)
        self.corrections = torch.stack([1 - beta**count for beta in BETAS], dim=1).float().to(device)

        # Take the copies over last, so that an error above leaves `bf16` unchanged.
        if bf16:
            bf16.copies = {weight: copy for weight, copy in copies.items() if weight not in self.copies}

    @property
    def matrices(self) -> list[Matrix]:
        """Return the matrices of all groups."""
        return [matrix for _, batches in self.batches for batch in batches for matrix in batch]

    def bf16_gradients(self) -> list[Tensor]:
        """Return the gradients of the bf16 copies."""
        gradients = [matrix.gradient for matrix in self.matrices if matrix.copy is not None]
        return [gradient for gradient in gradients if gradient is not None]

    @torch.no_grad()
    def step(self, number: Tensor, scale: Tensor) -> None:
        """Take step `number` (1,), from 0, by the gradients divided by `scale`, and drop the gradients."""
        corrections = self.corrections.index_select(0, number)[0]
        for group, batches in self.batches:
            rate = torch.as_tensor(group["lr"])
            shrink = 1 - rate * group["weight_decay"]
            for batch in batches:
                if used := [matrix for matrix in batch if matrix.gradient is not None]:
                    self.update(
                        [matrix.weight for matrix in used],
                        [matrix.gradient for matrix in used],
                        [matrix.mean for matrix in used],
                        [matrix.square for matrix in used],
                        [matrix.copy for matrix in used],
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

    def refresh(self) -> None:
        """Update the matrices' copies from the fp32 weights."""
        for matrix in self.matrices:
            if matrix.copy is not None:
                matrix.copy.copy_(matrix.weight)

    def reset(self) -> None:
        """Drop the gradients and set the moving averages back to 0."""
        self.forget()
        for matrix in self.matrices:
            matrix.mean.zero_()
            matrix.square.zero_()

    def close(self) -> None:
        """Return the copies to `bf16`."""
        if self.bf16:
            self.bf16.copies |= self.copies
