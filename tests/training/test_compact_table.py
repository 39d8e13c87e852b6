"""A large table of which only the rows that occur are trained: every row ends as in the whole table."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from bench.settings.schema import TrainingConfig
from bench.training.batching import Examples, training_batches
from bench.training.finetune import Diverged, Trainee, finetune_together, learning_rate, predict
from bench.training.lane import TASK, Objective
from bench.training.recoveries.distil import HiddenStates
from tests.support.training import finetune
from tests.training.test_compile import needs_compiler

VOCABULARY, PAD, STEPS = 500, 3, 50
CONFIG = TrainingConfig(
    max_steps=STEPS, batch_size=8, learning_rate=1e-2, weight_decay=0.3, max_grad_norm=0.2
)


def examples(n=61, used=60, device="cpu"):
    """Rows of `used` ids, scattered over the vocabulary; PAD is not among them."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 20, n)
    ids = rng.choice(np.arange(PAD + 1, VOCABULARY), used, replace=False)
    return Examples(
        {"input_ids": torch.tensor(rng.choice(ids, lengths.sum()), dtype=torch.int32, device=device)},
        torch.tensor(np.cumsum(lengths) - lengths, device=device),
        lengths,
        torch.tensor(rng.integers(0, 2, n), device=device),
        {"input_ids": PAD},
    )


def model(kind=BertForSequenceClassification, seed=0, **changes):
    torch.manual_seed(seed)
    config = dict(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=PAD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return kind(BertConfig(**config | changes))


def lane(trained, data=None, objective=TASK):
    data = examples() if data is None else data
    return Trainee(trained, data, CONFIG, 0, "t", objective).lane("fp32")


def steps(own, count=STEPS):
    for step in range(count):
        own.step(int(own.schedule.lengths[step]))


def plain_loop(trained, data, config=CONFIG, count=STEPS, fast=(), factor=1.0):
    """Train every row of the table by PyTorch's optimizer, as the textbook says; return the norms before clipping."""
    groups = [
        {"params": [p for p in trained.parameters() if p.ndim > 1 and not any(p is q for q in fast)]},
        {"params": [p for p in trained.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        {"params": list(fast), "factor": factor},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], weight_decay=config.weight_decay
    )
    stream, norms = training_batches(data.lengths, config.batch_size, 0), []
    for step in range(count):
        for group in optimizer.param_groups:
            group["lr"] = group.get("factor", 1.0) * learning_rate(step, STEPS, config)
        inputs, labels = data.batch(next(stream))
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(**inputs).logits.float(), labels).backward()
        norms.append(nn.utils.clip_grad_norm_(trained.parameters(), config.max_grad_norm).item())
        optimizer.step()
    return norms


def assert_same(trained, plain, rtol=1e-6, atol=1e-6):
    """Compare the parameters, which have the same names and shapes.

    Most weights are near 0.02, which decay by 1e-5 in all; the loss, in fp32, leaves differences up to 1e-7.
    """
    state, other = trained.state_dict(), plain.state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in other.items()
    }
    for name, value in state.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=atol, msg=name)


@pytest.fixture
def float64(monkeypatch):
    """Have lanes take the norm of float64 gradients, so that rounding hides nothing; their own is in fp32."""
    monkeypatch.setattr(
        "bench.training.lane.total_norm", lambda gradients: nn.utils.get_total_norm(gradients).float()
    )


def test_every_row_ends_as_in_the_whole_table(float64):
    data, plain = examples(), model().double().train()
    trained, before = copy.deepcopy(plain), copy.deepcopy(plain)
    norms = plain_loop(plain, data)
    assert sum(norm > CONFIG.max_grad_norm for norm in norms) > STEPS // 2  # most steps are clipped

    table = trained.get_input_embeddings()
    own = lane(trained, data)
    assert own.table.weight.shape == (61, 16)  # the rows of 60 ids and of padding
    steps(own)
    own.close()
    assert trained.get_input_embeddings() is table  # the same layer, and the same weight, as before
    assert_same(trained, plain)

    # The rows that do not occur have moved, too, by the decay.
    rest = np.setdiff1d(np.arange(VOCABULARY), data.tokens["input_ids"].numpy())
    old, new, expected = (each.get_input_embeddings().weight[rest] for each in (before, trained, plain))
    torch.testing.assert_close(new, expected, rtol=1e-6, atol=0)
    assert (new.norm() / old.norm()).item() < 0.95


def test_padding_within_a_text_has_no_gradient_either():
    data, trained = examples(), model()
    data.tokens["input_ids"][::5] = PAD
    finetune(trained, data, CONFIG, seed=0, dtype="fp32", name="t")
    assert not trained.get_input_embeddings().weight[PAD].any()  # zero, as it began


def test_training_that_ends_early_has_decayed_for_the_steps_that_were_taken(float64):
    plain = model().double().train()
    trained = copy.deepcopy(plain)
    plain_loop(plain, examples(), count=7)
    own = lane(trained)
    steps(own, 7)
    own.close()
    own.close()  # changes nothing more
    assert_same(trained, plain)


def test_a_table_that_learns_faster_than_the_rest_does_so_compact(float64):
    plain = model().double().train()
    trained = copy.deepcopy(plain)
    plain_loop(plain, examples(), fast=[plain.get_input_embeddings().weight], factor=10.0)
    table = frozenset(trained.get_input_embeddings().parameters())
    own = lane(trained, objective=Objective(fast=table, factor=10.0))
    steps(own)
    own.close()
    assert_same(trained, plain, atol=1e-6)


def test_predictions_are_those_of_the_whole_table():
    """Also on rows that training never saw."""
    unseen = examples(used=300)
    plain, trained = model().train(), model()
    plain_loop(plain, examples())
    finetune(trained, examples(), CONFIG, seed=0, dtype="fp32", name="t")
    found, expected = (predict(each, unseen, 8, "fp32") for each in (trained, plain))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_seeds_side_by_side_are_each_alone_to_the_last_bit(dtype):
    def trainees():
        return [Trainee(model(seed=seed), examples(), CONFIG, seed, "t") for seed in (0, 7)]

    alone, together = trainees(), trainees()
    for trainee in alone:
        finetune_together([trainee], dtype)
    finetune_together(together, dtype)
    for one, other in zip(alone, together, strict=True):
        assert_same(one.model, other.model, rtol=0, atol=0)


def test_a_run_that_diverges_leaves_the_model_whole():
    trained = model()
    shapes = {name: value.shape for name, value in trained.state_dict().items()}
    with pytest.raises(Diverged):
        finetune(trained, examples(), replace(CONFIG, learning_rate=1e30), seed=0, dtype="fp32", name="t")
    assert {name: value.shape for name, value in trained.state_dict().items()} == shapes


def test_the_dense_control_of_a_distillation_is_compact():
    student, data = model(BertModel), examples()
    own = lane(HiddenStates(student, model(BertModel, seed=1)), data, Objective(lambda rows, _: rows))
    assert own.table is student.embeddings.word_embeddings  # not the teacher's, which is not trained
    steps(own)
    own.close()
    assert own.losses[-1] < own.losses[0]
    assert type(student.embeddings.word_embeddings) is nn.Embedding


class Twice(nn.Module):
    """A classifier whose table also has another use."""

    def __init__(self):
        super().__init__()
        self.inner = model()
        self.decoder = nn.Linear(16, VOCABULARY, bias=False)
        self.decoder.weight = self.inner.get_input_embeddings().weight


def frozen():
    trained = model()
    trained.get_input_embeddings().requires_grad_(False)
    return trained


def limited():
    trained = model()
    trained.get_input_embeddings().max_norm = 1.0
    return trained


@pytest.mark.parametrize(
    "make",
    [
        lambda: model(BertForMaskedLM),
        lambda: model(BertForMaskedLM, tie_word_embeddings=False),
        Twice,
        frozen,
        limited,
        lambda: nn.Sequential(nn.Embedding(VOCABULARY, 16)),
    ],
    ids=["masked LM", "untied masked LM", "a tied layer", "frozen", "an option that lookup lacks", "unknown"],
)
def test_a_table_whose_unused_rows_could_differ_is_left_alone(make):
    trained = make()
    before = list(trained.modules())
    own = lane(trained)
    assert list(trained.modules()) == before and own.table is None
    own.close()


def test_a_table_of_which_most_rows_occur_is_left_alone():
    own = lane(model(), examples(n=500, used=400))
    assert own.table is None


@pytest.mark.parametrize("beyond", ["an id that does not occur", -1, VOCABULARY])
def test_an_id_that_training_does_not_know_is_refused(beyond):
    data = examples()
    if beyond == "an id that does not occur":
        beyond = int(np.setdiff1d(np.arange(PAD + 1, VOCABULARY), data.tokens["input_ids"])[0])
    own = lane(model(), data)
    with pytest.raises(IndexError):
        own.model(input_ids=torch.tensor([[beyond]]))


@needs_compiler
def test_compiled_code_serves_other_examples():
    def trained(used):
        plain, compiled = (lane(model(), examples(used=used)) for _ in range(2))
        compiled.compile()
        assert compiled.model.bert.embeddings in compiled.compiled
        for own in (plain, compiled):
            steps(own, 10)
            own.close()
        assert_same(compiled.model, plain.model, atol=2e-5)
        assert type(compiled.model.get_input_embeddings()) is nn.Embedding

    trained(60)
    with torch.compiler.set_stance("fail_on_recompile"):
        trained(90)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["eager", "graph", "compile"])
def test_every_row_ends_as_in_the_whole_table_on_a_gpu(engine):
    """The rehearsals before a capture leave nothing behind."""
    data, config = examples(device="cuda"), replace(CONFIG, learning_rate=1e-3, engine=engine)
    plain, trained = (model().cuda().train() for _ in range(2))
    before = trained.get_input_embeddings().weight.detach().clone()
    plain_loop(plain, data, config)
    outcome = finetune(trained, data, config, seed=0, dtype="fp32", name="t")
    assert (outcome.engine, outcome.fallback) == (engine, None)
    assert_same(trained, plain, atol=1e-3)

    rest = np.setdiff1d(np.arange(VOCABULARY), data.tokens["input_ids"].cpu().numpy())
    new, expected = (each.get_input_embeddings().weight[rest] for each in (trained, plain))
    torch.testing.assert_close(new, expected, rtol=1e-5, atol=0)
    assert (new.norm() / before[rest].norm()).item() < 0.995
