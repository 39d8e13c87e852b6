"""Engines do the same step: eager against a plain loop, CUDA graphs against eager on a GPU."""

import copy
from collections import Counter
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

from bench.settings.schema import TrainingConfig
from bench.training import engine as engines
from bench.training.batching import Examples, training_batches
from bench.training.engine import buckets, make_engine
from bench.training.finetune import Diverged, Outcome, Trainee, finetune_together
from bench.training.lane import Objective
from bench.training.recoveries.distil import HiddenStates
from tests.support.training import finetune

STEPS = 24  # three epochs
CONFIG = TrainingConfig(max_steps=STEPS, batch_size=8, learning_rate=1e-3)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def examples(device="cpu", n=61):
    """61 rows: the last of eight batches of an epoch is not full."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, n)
    ids = torch.tensor(rng.integers(1, 30, lengths.sum()), dtype=torch.int32, device=device)
    offsets = torch.tensor(np.cumsum(lengths) - lengths, device=device)
    return Examples(
        {"input_ids": ids},
        offsets,
        lengths,
        torch.tensor(rng.integers(0, 2, n), device=device),
        {"input_ids": 0},
    )


def model(device="cpu", dropout=0.0):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config).to(device).train()


def lane(trained, data, dtype="fp32", seed=0, **changes):
    config = replace(CONFIG, **changes)
    return Trainee(trained, data, config, seed, "t").lane(dtype)


def run_engine(choice, device, dtype="fp32", dropout=0.0, seed=0, **changes):
    own = lane(model(device, dropout), examples(device), dtype, seed, **changes)
    engine, fallback = make_engine(choice, [own])
    for step in range(STEPS):
        engine.step(step)
    engine.join()
    own.close()
    return engine, fallback, own.losses.cpu().numpy(), weights_of(own.model)


def weights_of(trained):
    return torch.cat([p.detach().flatten().cpu() for p in trained.parameters()])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_eager_engine_is_a_plain_loop_also_where_a_batch_is_not_full(dtype, device):
    data, plain = examples(device), model(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in plain.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=1e-3,
    )
    rates = get_linear_schedule_with_warmup(optimizer, int(0.1 * STEPS), STEPS)
    stream, losses = training_batches(data.lengths, 8, 0), []
    for _ in range(STEPS):
        inputs, labels = data.batch(next(stream))
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
            logits = plain(**inputs).logits
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.2)  # less than most steps' norm
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    engine, fallback, found, weights = run_engine("eager", device, dtype, max_grad_norm=0.2)
    assert (engine.name, fallback) == ("eager", None)
    tolerance = 1 if dtype == "fp32" else 50  # products in bf16 round on differences in the last bit
    np.testing.assert_allclose(found, losses, atol=2e-5 * tolerance)
    np.testing.assert_allclose(weights, weights_of(plain), atol=2e-4 * tolerance)


@cache
def trained_by_whole_batches(dtype):
    return run_engine("eager", "cpu", dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1), ("bf16", 100)])
@pytest.mark.parametrize("device_batch", [1, 3, 4])
def test_a_batch_in_parts_trains_as_the_whole_batch_does(device_batch, dtype, tolerance):
    """Batches of 8, the last of an epoch with 5 rows: parts of 3 leave an unequal rest, parts of 4 and 1 also empty ones."""
    _, _, whole, weights = trained_by_whole_batches(dtype)
    engine, _, parts, same = run_engine("eager", "cpu", dtype, device_batch=device_batch)
    assert engine.lanes[0].device_batch == device_batch
    np.testing.assert_allclose(parts, whole, atol=2e-5 * tolerance)
    np.testing.assert_allclose(same, weights, atol=2e-4 * tolerance)


def test_only_the_embedding_trains_in_bf16_where_the_body_is_frozen():
    trained = model().requires_grad_(False)
    trained.get_input_embeddings().requires_grad_(True)
    before = copy.deepcopy(trained.state_dict())
    finetune(trained, examples(), replace(CONFIG, max_steps=3), seed=0, dtype="bf16", name="t")
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"bert.embeddings.word_embeddings.weight"}


def test_the_first_step_ignores_gradients_that_a_rehearsal_left_in_bf16_copies():
    def first_step(own):
        own.step(40)
        return torch.cat([p.grad.flatten() for p in own.parameters if p.grad is not None])

    class Breaks(Exception):
        pass

    clean, broken = lane(model(), examples(), "bf16"), lane(model(), examples(), "bf16")

    def fail(*_):
        raise Breaks

    embedding = broken.model.get_input_embeddings()
    handle = embedding.weight.register_hook(fail)  # the last gradient of a backward pass
    with pytest.raises(Breaks):
        broken.step(40)
    handle.remove()
    broken.reset()
    torch.testing.assert_close(first_step(broken), first_step(clean))


def test_a_graph_without_a_gpu_falls_back_and_says_so():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    outcome = finetune(
        model(),
        examples(),
        TrainingConfig(max_steps=2, batch_size=8, engine="graph"),
        seed=0,
        dtype="fp32",
        name="t",
    )
    assert outcome.engine == "eager" and "CUDA" in (outcome.fallback or "")


def test_graphs_exist_for_rounded_lengths_and_never_exceed_the_longest():
    assert buckets([1, 8, 9, 33, 39], 39, flops=1e13) == [8, 8, 16, 39, 39]


@given(st.lists(st.integers(1, 200), min_size=1), st.floats(1e6, 1e13))
def test_a_graph_pads_shorter_steps_by_no_more_than_another_graph_costs(lengths, flops):
    padded = buckets(lengths, max(lengths), flops)
    waste = Counter[int]()
    for length, top in zip(lengths, padded, strict=True):
        assert length <= top <= max(lengths)
        waste[top] += flops * (top - min(-(-length // 8) * 8, max(lengths)))
    assert max(waste.values()) <= engines.PADDING
    for top in set(padded) - {max(padded)}:  # the next graph up had no room for this one's longest steps
        above = min(other for other in padded if other > top)
        assert waste[above] + flops * (above - top) * padded.count(top) > engines.PADDING


@pytest.fixture(params=[engines.PADDING, 0.0], ids=["few graphs", "a graph for each length"])
def graphs(request, monkeypatch):
    monkeypatch.setattr(engines, "PADDING", request.param)


@pytest.mark.gpu
@pytest.mark.parametrize("choice", ["graph", "compile"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_graph_losses_are_those_of_the_eager_engine(dtype, tolerance, choice, graphs):
    _, _, eager, weights = run_engine("eager", "cuda")
    engine, fallback, graph, same = run_engine(choice, "cuda", dtype)
    assert (engine.name, fallback) == (choice, None)
    np.testing.assert_allclose(graph, eager, atol=tolerance)
    if dtype == "fp32":
        np.testing.assert_allclose(weights, same, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_only_a_rehearsal_sees_padding_in_every_row(device):
    data = examples(device)
    own, other = lane(model(device), data), lane(model(device), data)
    rows = torch.arange(8, device=device)
    expected, _ = data.padded(rows, 40)
    own.rehearse()
    seen, _ = own.data.padded(rows, 40)
    assert seen["attention_mask"].sum(1).tolist() == [1] * 8
    untouched = [other.data.padded(rows, 40), data.padded(rows, 40)]  # of the same examples
    own.reset()
    for again, _ in [own.data.padded(rows, 40), *untouched]:
        assert all(torch.equal(again[name], column) for name, column in expected.items())


@pytest.mark.gpu
def test_examples_that_need_no_padding_can_be_compiled_too():
    torch.compiler.reset()  # what other tests had compiled would do
    ids = torch.randint(
        1, 30, (64 * 16,), generator=torch.Generator().manual_seed(0), dtype=torch.int32
    ).cuda()
    data = Examples(
        {"input_ids": ids},
        torch.arange(0, 64 * 16, 16).cuda(),
        np.full(64, 16),
        torch.arange(64).cuda() % 2,
        {"input_ids": 0},
    )
    losses = {}
    for kind in ("eager", "compile"):
        own = lane(model("cuda"), data)
        engine, fallback = make_engine(kind, [own])
        assert (engine.name, fallback) == (kind, None)
        for step in range(STEPS):
            engine.step(step)
        engine.join()
        losses[kind] = own.losses.cpu().numpy()
        own.close()
    np.testing.assert_allclose(losses["compile"], losses["eager"], atol=1e-5)


def trained_at_a_real_size(choice, tokens=48, batch_size=32, recovery=False):
    """Return the weights after 20 steps on rows of so many tokens; of a recovery they learn another model's states."""
    generator = torch.Generator().manual_seed(0)
    ids, labels = (
        torch.randint(0, top, (n,), generator=generator).cuda() for top, n in ((30522, 64 * tokens), (2, 64))
    )
    starts = torch.arange(0, 64 * tokens, tokens).cuda()
    data = Examples({"input_ids": ids}, starts, np.full(64, tokens), labels, {"input_ids": 0})
    torch.manual_seed(0)
    shape = BertConfig(hidden_size=384, num_hidden_layers=4, intermediate_size=1536)
    large, other = (BertForSequenceClassification(shape).cuda() for _ in range(2))
    learner = HiddenStates(large.bert, other.bert) if recovery else large
    objective = Objective(lambda losses, _: losses) if recovery else Objective()
    config = replace(CONFIG, batch_size=batch_size)
    own = Trainee(learner, data, config, 0, "t", objective).lane("bf16")
    engine, _ = make_engine(choice, [own])
    for step in range(20):
        engine.step(step)
    engine.join()
    own.close()
    return weights_of(large)


@pytest.mark.gpu
def test_training_by_graphs_is_reproducible_to_the_bit_at_the_size_of_a_real_model():
    assert torch.equal(trained_at_a_real_size("graph"), trained_at_a_real_size("graph"))


@pytest.mark.gpu
@pytest.mark.parametrize("recovery", [False, True])
def test_a_compiled_run_is_the_same_to_the_bit_whichever_runs_came_before_it(tmp_path, monkeypatch, recovery):
    """Their code serves it in this process, and from the cache on disk."""

    def after(*earlier):
        torch.compiler.reset()
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / str(earlier)))
        for tokens, batch_size in earlier:
            trained_at_a_real_size("compile", tokens, batch_size, recovery)
        in_process = trained_at_a_real_size("compile", recovery=recovery)
        torch.compiler.reset()
        return in_process, trained_at_a_real_size("compile", recovery=recovery)

    alone, *others = (weights for earlier in ([], [(120, 8), (16, 32)]) for weights in after(*earlier))
    assert all(torch.equal(alone, other) for other in others)


@pytest.mark.gpu
@pytest.mark.parametrize("choice", ["graph", "compile"])
def test_dropout_differs_from_step_to_step_and_repeats_with_the_seed(choice):
    runs = [run_engine(choice, "cuda", dropout=0.3, seed=seed) for seed in (0, 0, 1)]
    assert {(engine.name, fallback) for engine, fallback, _, _ in runs} == {(choice, None)}
    first, again, other = (losses for _, _, losses, _ in runs)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.gpu
def test_a_step_that_cannot_be_captured_falls_back_to_eager_from_the_same_weights():
    class Peeks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model("cuda", dropout=0.1)  # the random numbers must go on too

        def forward(self, **inputs):
            output = self.inner(**inputs)
            output.logits.sum().item()  # a value read back cannot be captured
            return output

    peeks = Peeks()
    before = copy.deepcopy(peeks.state_dict())
    own = lane(peeks, examples("cuda"))
    engine, fallback = make_engine("graph", [own])
    assert engine.name == "eager" and "graph engine could not take the step" in (fallback or "")
    assert all(torch.equal(before[name], value) for name, value in peeks.state_dict().items())
    engine.step(0)
    assert torch.isfinite(own.losses).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_step_that_cannot_be_compiled_is_captured_uncompiled(dtype, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    engine, fallback, losses, _ = run_engine("compile", "cuda", dtype)
    assert engine.name == "graph" and "compile engine could not take the step" in (fallback or "")
    np.testing.assert_array_equal(losses, run_engine("graph", "cuda", dtype)[2])


@pytest.mark.parametrize(
    ("device", "choice"),
    [("cpu", "auto"), *(pytest.param("cuda", kind, marks=pytest.mark.gpu) for kind in ("graph", "compile"))],
)
def test_lanes_side_by_side_train_as_each_does_alone(device, choice, graphs):
    """Different seeds, so different batches, and different rates."""
    own = [{"seed": 3}, {"seed": 0}, {"seed": 7, "learning_rate": 3e-4}]
    alone = [lane(model(device), examples(device), **one) for one in own]
    for one in alone:
        engine, _ = make_engine(choice, [one])
        for step in range(STEPS):
            engine.step(step)
        engine.join()
    together = [lane(model(device), examples(device), **one) for one in own]
    engine, fallback = make_engine(choice, together)
    for step in range(STEPS):
        engine.step(step)
    engine.join()
    assert fallback is None
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.losses.cpu(), other.losses.cpu(), atol=2e-5)
        np.testing.assert_allclose(weights_of(one.model), weights_of(other.model), atol=5e-4)
    assert len({float(one.losses.sum()) for one in together}) == 3


@pytest.mark.parametrize(
    ("device", "choice"),
    [
        ("cpu", "eager"),
        *(pytest.param("cuda", kind, marks=pytest.mark.gpu) for kind in ("eager", "graph", "compile")),
    ],
)
def test_lanes_side_by_side_are_each_alone_to_the_last_bit(device, choice):
    """With dropout, and with rows of other lengths in the lane beside."""
    changes = [{"seed": 3, "data": examples(device)}, {"seed": 0, "data": examples(device, n=57)}]
    alone = [lane(model(device, dropout=0.1), **one) for one in changes]
    together = [lane(model(device, dropout=0.1), **one) for one in changes]
    engines = [make_engine(choice, lanes) for lanes in (*([one] for one in alone), together)]
    assert {(engine.name, fallback) for engine, fallback in engines} == {(choice, None)}
    for step in range(STEPS):
        for engine, _ in engines:
            engine.step(step)
    for engine, _ in engines:
        engine.join()
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.losses, other.losses)
        assert torch.equal(weights_of(one.model), weights_of(other.model))


def test_a_divergent_lane_stops_no_other():
    broken, sound = model(), model()
    with torch.no_grad():
        broken.classifier.weight.fill_(float("inf"))
    first, second = finetune_together(
        [Trainee(broken, examples(), CONFIG, 0, "t"), Trainee(sound, examples(), CONFIG, 3, "t")], "fp32"
    )
    assert isinstance(first, Diverged) and f"after 0 of {STEPS} steps" in str(first)
    alone = finetune(model(), examples(), CONFIG, seed=3, dtype="fp32", name="t")
    assert isinstance(second, Outcome) and second.runs_at_once == 2
    np.testing.assert_allclose(second.curve, alone.curve, atol=2e-5)
