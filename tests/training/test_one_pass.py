"""AdamW in one pass is PyTorch's AdamW, by fp32 gradients and by those of bf16 copies."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.training.lane import total_norm
from bench.training.one_pass import BETAS, EPS, OnePass, adamw
from tests.training.test_engine import STEPS, examples, lane, model, weights_of


@pytest.mark.parametrize("halved", [False, True])
def test_a_step_is_pytorchs(halved):
    """Against the optimizer in float64, over steps whose gradients differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 7, generator=generator) for _ in range(2)]
    exact = [nn.Parameter(weight.double()) for weight in weights]
    optimizer = torch.optim.AdamW(exact, lr=3e-3, weight_decay=0.1, betas=BETAS, eps=EPS)
    copies = [weight.bfloat16() if halved else None for weight in weights]
    means, squares = ([torch.zeros(5, 7) for _ in weights] for _ in range(2))
    for step in range(1, 30):
        gradients = [torch.randn(5, 7, generator=generator) * 10.0 ** (step % 5 - 3) for _ in weights]
        gradients = [gradient.bfloat16() for gradient in gradients] if halved else gradients
        rate, scale = torch.tensor(3e-3 / step), torch.tensor(1.0 + step)
        optimizer.param_groups[0]["lr"] = 3e-3 / step
        for weight, gradient in zip(exact, gradients, strict=True):
            weight.grad = gradient.double() / (1.0 + step)
        optimizer.step()
        corrections = torch.tensor([1 - beta**step for beta in BETAS])
        adamw(weights, gradients, means, squares, copies, corrections, scale, rate, 1 - rate * 0.1)
    for weight, half, other in zip(weights, copies, exact, strict=True):
        torch.testing.assert_close(weight, other.detach().float(), atol=1e-6, rtol=1e-5)
        assert half is None or torch.equal(half, weight.bfloat16())


def one_pass(own):
    """Have the lane step its matrices in one pass, without torch.compile."""
    half = own.half if own.device_batch == own.config.batch_size else None
    own.one_pass = OnePass(half, own.optimizer, STEPS, own.device, adamw)
    return own


def trained(own):
    for step in range(STEPS):
        own.step(int(own.schedule.lengths[step]))
    own.close()
    return own.losses, weights_of(own.model)


@pytest.mark.parametrize("changes", [{"weight_decay": 0.5}, {"device_batch": 3}, {"max_grad_norm": 0.2}])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 2e-5), ("bf16", 2e-3)])
def test_a_lane_trains_as_with_pytorchs_optimizer(dtype, tolerance, changes):
    losses, weights = trained(lane(model(), examples(), dtype, **changes))
    own, same = trained(one_pass(lane(model(), examples(), dtype, **changes)))
    np.testing.assert_allclose(own, losses, atol=tolerance)
    np.testing.assert_allclose(same, weights, atol=10 * tolerance)


def test_a_lane_that_gives_it_up_trains_as_if_it_had_never_had_it():
    losses, weights = trained(lane(model(), examples(), "bf16"))
    own = one_pass(lane(model(), examples(), "bf16"))
    own.uncompile()
    found, same = trained(own)
    assert torch.equal(found, losses) and torch.equal(same, weights)


def test_a_rehearsal_leaves_nothing_behind():
    own = one_pass(lane(model(), examples(), "bf16"))
    own.step(40)
    assert all(matrix.mean.any() and matrix.square.any() for matrix in own.one_pass.matrices)
    own.reset(own.rates.clone())
    assert not any(matrix.mean.any() or matrix.square.any() for matrix in own.one_pass.matrices)


def test_the_norm_of_gradients_in_bf16_is_not_rounded_to_bf16():
    gradients = [torch.randn(30, 40).bfloat16(), torch.randn(7), torch.randn(50).bfloat16()]
    exact = torch.cat([gradient.double().flatten() for gradient in gradients]).norm()
    assert total_norm(gradients).item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_matrix_that_no_gradient_reaches_stays_as_it_is():
    """Not even decay reaches it, as in PyTorch's optimizer."""
    larger = model()
    larger.spare = nn.Linear(32, 32)
    before = larger.spare.weight.detach().clone()
    trained(one_pass(lane(larger, examples(), "bf16")))
    assert torch.equal(larger.spare.weight, before)
