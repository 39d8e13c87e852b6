"""The training loop: schedule, learning and NaN losses; predictions in the order of the data."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from bench.settings.schema import TrainingConfig
from bench.training.batching import Examples
from bench.training.finetune import Diverged, learning_rate, predict
from bench.training.lane import make_optimizer
from tests.support.training import finetune

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def examples(n=64, seed=0, regression=False, device="cpu"):
    """Rows whose label is decided by the first token."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, n)
    ids = [np.r_[rng.integers(1, 3), rng.integers(3, 30, m - 1)] for m in lengths]
    labels = torch.tensor([int(row[0]) - 1 for row in ids])
    return Examples(
        {"input_ids": torch.tensor(np.concatenate(ids), dtype=torch.int32, device=device)},
        torch.tensor(np.cumsum(lengths) - lengths, device=device),
        lengths,
        (labels.float() if regression else labels).to(device),
        {"input_ids": 0},
    )


def model(labels=2):
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=labels,
        )
    )


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.1), (345, 0.1), (7, 0.0), (20, 0.5)])
def test_the_schedule_is_the_linear_one_of_transformers(steps, warmup):
    config = TrainingConfig(learning_rate=3e-4, warmup_fraction=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    reference = get_linear_schedule_with_warmup(optimizer, int(warmup * steps), steps)
    for step in range(steps):
        assert learning_rate(step, steps, config) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_vectors_do_not_decay_and_every_parameter_is_trained():
    trained = model()
    decayed, others = make_optimizer(
        list(trained.parameters()), TrainingConfig(weight_decay=0.5), 1e-3
    ).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    names = {id(p): name for name, p in trained.named_parameters()}
    assert all("bias" in names[id(p)] or "LayerNorm" in names[id(p)] for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)


@pytest.mark.parametrize("regression", [False, True])
def test_training_learns_the_task_and_reports_its_steps(regression):
    trained, data = model(1 if regression else 2), examples(regression=regression)
    outcome = finetune(
        trained,
        data,
        TrainingConfig(epochs=30, batch_size=16, learning_rate=5e-3),
        seed=0,
        dtype="fp32",
        name="t",
    )
    logits = predict(trained, data, 256, "fp32")
    answers = logits[:, 0] > 0.5 if regression else logits.argmax(1)
    assert (answers == data.labels.numpy()).mean() > 0.95
    assert (outcome.steps, outcome.epochs, outcome.examples) == (120, 30, 120 * 16)
    assert outcome.curve[-1][0] == 120 and outcome.curve[-1][1] < outcome.curve[0][1]


def test_the_same_seed_gives_the_same_weights_and_seed_0_is_a_seed():
    def train(seed):
        trained = model()
        torch.manual_seed(seed)
        finetune(
            trained, examples(), TrainingConfig(max_steps=5, batch_size=8), seed=seed, dtype="fp32", name="t"
        )
        return torch.cat([p.detach().flatten() for p in trained.parameters()])

    assert torch.equal(train(0), train(0))
    assert not torch.equal(train(0), train(1))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
@pytest.mark.parametrize("device", DEVICES)
def test_predictions_come_in_the_order_of_the_examples(device, dtype, tolerance):
    trained, data = model().eval(), examples(37)
    with torch.no_grad():
        alone = [trained(**data.batch(np.array([i]))[0]).logits[0].numpy() for i in range(len(data))]
    together = predict(trained.to(device), examples(37, device=device), 100, dtype)
    np.testing.assert_allclose(together, np.stack(alone), atol=tolerance)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_cure():
    with pytest.raises(
        Diverged, match=r"no longer a finite number after \d+ of 40 steps: lower training.learning_rate"
    ):
        finetune(
            model(),
            examples(),
            TrainingConfig(max_steps=40, learning_rate=1e30, max_grad_norm=1e30, warmup_fraction=0),
            seed=0,
            dtype="fp32",
            name="t",
        )
