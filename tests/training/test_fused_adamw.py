"""AdamW in one pass is PyTorch's AdamW, by fp32 gradients and by those of bf16 copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.training.finetune import Trainee
from bench.training.fused_adamw import BETAS, EPS, FusedAdamW, adamw
from bench.training.lane import Objective, total_norm
from tests.training.test_engine import CONFIG, STEPS, examples, lane, model, weights_of


@pytest.mark.parametrize("in_bf16", [False, True])
def test_a_step_equals_that_of_pytorch(in_bf16):
    """Against the optimizer in float64, over steps whose gradients differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 7, generator=generator) for _ in range(2)]
    exact = [nn.Parameter(weight.double()) for weight in weights]
    optimizer = torch.optim.AdamW(exact, lr=3e-3, weight_decay=0.1, betas=BETAS, eps=EPS)
    copies = [weight.bfloat16() if in_bf16 else None for weight in weights]
    means, squares = ([torch.zeros(5, 7) for _ in weights] for _ in range(2))
    for step in range(1, 30):
        gradients = [torch.randn(5, 7, generator=generator) * 10.0 ** (step % 5 - 3) for _ in weights]
        gradients = [gradient.bfloat16() for gradient in gradients] if in_bf16 else gradients
        rate, scale = torch.tensor(3e-3 / step), torch.tensor(1.0 + step)
        optimizer.param_groups[0]["lr"] = 3e-3 / step
        for weight, gradient in zip(exact, gradients, strict=True):
            weight.grad = gradient.double() / (1.0 + step)
        optimizer.step()
        corrections = torch.tensor([1 - beta**step for beta in BETAS])
        adamw(weights, gradients, means, squares, copies, corrections, scale, rate, 1 - rate * 0.1)
    for weight, copy, other in zip(weights, copies, exact, strict=True):
        torch.testing.assert_close(weight, other.detach().float(), atol=1e-6, rtol=1e-5)
        assert copy is None or torch.equal(copy, weight.bfloat16())


def fused(own):
    """Have the lane step its matrices in one pass, without torch.compile."""
    own.fuse_optimizer(adamw)
    return own


def trained(own):
    for step in range(STEPS):
        own.step(int(own.schedule.lengths[step]))
    own.close()
    return own.losses, weights_of(own.model)


@pytest.mark.parametrize("changes", [{"weight_decay": 0.5}, {"device_batch": 3}, {"max_grad_norm": 0.2}])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 2e-5), ("bf16", 2e-3)])
def test_a_lane_trains_as_with_pytorchs_optimizer(dtype, tolerance, changes):
    """The embeddings ten times as fast as the rest."""

    def own():
        fast = model()
        objective = Objective(fast=frozenset(fast.bert.embeddings.parameters()), factor=10.0)
        return Trainee(fast, examples(), replace(CONFIG, **changes), 0, "t", objective).lane(dtype)

    (losses, weights), (found, same) = trained(own()), trained(fused(own()))
    np.testing.assert_allclose(found, losses, atol=tolerance)
    # In bf16 single tokens, which are rare, go apart.
    assert (same - weights).square().mean().sqrt() < tolerance / 2


def test_only_gradients_of_a_whole_batch_stay_in_bf16():
    """Those of parts would be added up in bf16."""
    lanes = [
        lane(model(), examples(), "bf16"),
        lane(model(), examples(), "bf16", device_batch=3),
        lane(model(), examples(), "fp32"),
    ]
    in_bf16 = [sum(matrix.copy is not None for matrix in fused(own).fused.matrices) for own in lanes]
    linear = sum(weight.ndim > 1 for weight in model().parameters()) - 3  # but the three tables
    assert in_bf16 == [linear, 0, 0]


def test_a_lane_trains_as_before_once_it_is_uncompiled():
    losses, weights = trained(lane(model(), examples(), "bf16"))
    own = fused(lane(model(), examples(), "bf16"))
    own.uncompile()
    found, same = trained(own)
    assert torch.equal(found, losses) and torch.equal(same, weights)


def test_a_rehearsal_that_fails_leaves_no_gradients_behind():
    def gradients(own):
        seen = []
        own.fused.update = lambda _, gradients, *rest: seen.extend(
            gradient.clone().flatten() for gradient in gradients
        )
        own.step(40)
        return torch.cat(seen)

    def fail(*_):
        raise RuntimeError("broken")

    clean, broken = fused(lane(model(), examples(), "bf16")), fused(lane(model(), examples(), "bf16"))
    # The last gradient of a backward pass.
    handle = broken.model.get_input_embeddings().weight.register_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        broken.step(40)
    handle.remove()
    broken.reset()
    assert torch.equal(gradients(broken), gradients(clean))


def test_a_rehearsal_leaves_no_averages_behind():
    own = fused(lane(model(), examples(), "bf16"))
    own.step(40)
    assert all(matrix.mean.any() and matrix.square.any() for matrix in own.fused.matrices)
    own.reset()
    assert not any(matrix.mean.any() or matrix.square.any() for matrix in own.fused.matrices)


def test_the_norm_of_gradients_in_bf16_is_not_rounded_to_bf16():
    gradients = [torch.randn(30, 40).bfloat16(), torch.randn(7), torch.randn(50).bfloat16()]
    exact = torch.cat([gradient.double().flatten() for gradient in gradients]).norm()
    assert total_norm(gradients).item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_matrix_without_a_gradient_is_unchanged():
    """Not even decay reaches it, as in PyTorch's optimizer."""
    larger = model()
    larger.spare = nn.Linear(32, 32)
    before = larger.spare.weight.detach().clone()
    trained(fused(lane(larger, examples(), "bf16")))
    assert torch.equal(larger.spare.weight, before)


def test_a_failed_construction_leaves_the_copies_unchanged():
    own = lane(model(), examples(), "bf16")
    before = len(own.bf16.copies)
    with pytest.raises(RuntimeError):
        FusedAdamW(own.bf16, own.optimizer, -1, own.device, adamw)
    assert len(own.bf16.copies) == before
