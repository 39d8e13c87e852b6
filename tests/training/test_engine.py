"""Engines do the same step: eager against a plain loop on the CPU, CUDA graphs against eager on a GPU."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from bench.config import TrainingConfig
from bench.training.batching import Examples, training_batches
from bench.training.engine import bucket, make_engine, make_schedule
from bench.training.finetune import finetune, learning_rate

STEPS = 50
CONFIG = TrainingConfig(max_steps=STEPS, batch_size=8, learning_rate=1e-3)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def examples(device="cpu", n=61):
    """61 rows: the last of eight batches of an epoch is not full."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, n)
    ids = torch.tensor(rng.integers(1, 30, lengths.sum()), dtype=torch.int32, device=device)
    offsets = torch.tensor(np.cumsum(lengths) - lengths, device=device)
    return Examples({"input_ids": ids}, offsets, lengths, torch.tensor(rng.integers(0, 2, n), device=device), {"input_ids": 0})


def model(device="cpu", dropout=0.0):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return BertForSequenceClassification(config).to(device).train()


def run_engine(choice, device, dtype="fp32", dropout=0.0, seed=0, device_batch=None):
    data, trained = examples(device), model(device, dropout)
    stream = training_batches(data.lengths, CONFIG.batch_size, 0)
    batches = [next(stream) for _ in range(STEPS)]
    rates = [learning_rate(step, STEPS, CONFIG) for step in range(STEPS)]
    schedule = make_schedule([batches], rates, data.lengths, CONFIG.batch_size, rounded=device == "cuda")
    torch.manual_seed(seed)
    engine, fallback = make_engine(choice, trained, data, schedule, replace(CONFIG, device_batch=device_batch), dtype)
    for step in range(STEPS):
        engine.step(step)
    return engine, fallback, engine.losses[:, 0].cpu().numpy(), torch.cat([p.detach().flatten().cpu() for p in trained.parameters()])


def test_the_eager_engine_is_a_plain_loop_also_where_a_batch_is_not_full():
    data, plain = examples(), model()
    optimizer = torch.optim.AdamW([{"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 0.01},
                                   {"params": [p for p in plain.parameters() if p.ndim <= 1], "weight_decay": 0.0}], lr=1e-3)
    rates = get_linear_schedule_with_warmup(optimizer, 5, STEPS)
    stream, losses = training_batches(data.lengths, 8, 0), []
    for _ in range(STEPS):
        inputs, labels = data.batch(next(stream))
        loss = nn.functional.cross_entropy(plain(**inputs).logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    engine, fallback, found, weights = run_engine("eager", "cpu")
    assert (engine.name, fallback) == ("eager", None)
    np.testing.assert_allclose(found, losses, atol=2e-5)
    np.testing.assert_allclose(weights, torch.cat([p.detach().flatten() for p in plain.parameters()]), atol=2e-4)


@pytest.mark.parametrize("device_batch", [1, 3, 4])
def test_a_batch_in_parts_trains_as_the_whole_batch_does(device_batch):
    """Batches of 8, the last of an epoch with 5 rows: parts of 3 leave an unequal rest, parts of 4 and 1 also empty ones."""
    _, _, whole, weights = run_engine("eager", "cpu")
    engine, _, parts, same = run_engine("eager", "cpu", device_batch=device_batch)
    assert engine.device_batch == device_batch
    np.testing.assert_allclose(parts, whole, atol=2e-5)
    np.testing.assert_allclose(same, weights, atol=2e-4)


def test_a_graph_without_a_gpu_falls_back_and_says_so():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    outcome = finetune(model(), examples(), TrainingConfig(max_steps=2, batch_size=8, engine="graph"), seed=0, dtype="fp32", name="t")
    assert outcome.engine == "eager" and "CUDA" in (outcome.fallback or "")


def test_graphs_exist_for_rounded_lengths_and_never_exceed_the_longest():
    assert [bucket(n, 39) for n in (1, 8, 9, 33, 39)] == [8, 8, 16, 39, 39]


@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_graph_losses_are_those_of_the_eager_engine(dtype, tolerance):
    _, _, eager, weights = run_engine("eager", "cuda")
    engine, fallback, graph, same = run_engine("graph", "cuda", dtype)
    assert (engine.name, fallback) == ("graph", None)
    np.testing.assert_allclose(graph, eager, atol=tolerance)
    if dtype == "fp32":
        np.testing.assert_allclose(weights, same, atol=1e-3)


@needs_gpu
def test_dropout_differs_from_step_to_step_and_repeats_with_the_seed():
    first, again, other = (run_engine("graph", "cuda", dropout=0.3, seed=seed)[2] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@needs_gpu
def test_a_step_that_cannot_be_captured_falls_back_to_eager_from_the_same_weights():
    class Peeks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model("cuda", dropout=0.1)  # the random numbers must go on too

        def forward(self, **inputs):
            output = self.inner(**inputs)
            output.logits.sum().item()  # a value read back cannot be captured
            return output

    data, peeks = examples("cuda"), Peeks()
    before = copy.deepcopy(peeks.state_dict())
    schedule = make_schedule([[np.arange(8)]], [1e-3], data.lengths, 8, rounded=True)
    engine, fallback = make_engine("graph", peeks, data, schedule, CONFIG, "fp32")
    assert engine.name == "eager" and "could not be captured" in (fallback or "")
    assert all(torch.equal(before[name], value) for name, value in peeks.state_dict().items())
    engine.step(0)
    assert torch.isfinite(engine.losses).all()
