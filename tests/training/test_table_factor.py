"""training.table_factor: every parameter of the token embedding learns at its own rate, as with PyTorch's AdamW of two groups."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.models.pooling import PooledClassifier
from bench.settings.schema import TrainingConfig
from bench.training.batching import training_batches
from bench.training.finetune import Trainee, learning_rate
from bench.training.fused_adamw import adamw
from bench.training.precision import autocast
from tests.support import reference
from tests.support.training import finetune
from tests.training.test_compact_table import VOCABULARY, examples, float64, model  # noqa: F401
from tests.training.test_compile import needs_compiler

STEPS, FACTOR = 30, 10.0
CONFIG = TrainingConfig(
    max_steps=STEPS, batch_size=8, learning_rate=1e-3, weight_decay=0.3, table_factor=FACTOR
)
EMBEDDINGS = {
    "kept rows": ("subspace", {"subspaces": 4, "rows": 9, "keep_dense": 20}),
    "trimmed": ("trimmed", {"rows": 40}),
    "low rank": ("low_rank", {"rank": 3}),
    "gains": ("codebook", {"rows": 30}),
}


def classifier(embedding=None, pooled=False):
    """Return a tiny BERT without dropout, with an embedding of EMBEDDINGS."""
    trained = model().train()
    if embedding:
        name, keys = EMBEDDINGS[embedding]
        table = 0.02 * torch.randn(VOCABULARY, 16)
        trained.set_input_embeddings(reference.built(name, keys, VOCABULARY, 16, True, table)[1])
    return PooledClassifier(trained.bert, "mean").train() if pooled else trained


def plain_loop(trained, data, dtype="fp32"):
    """Train by PyTorch's optimizer: the embedding's parameters in a group of their own."""
    table = list(trained.get_input_embeddings().parameters())
    rest = [p for p in trained.parameters() if not any(p is q for q in table)]
    groups = [
        {"params": [p for p in part if (p.ndim > 1) == decays], "factor": factor, "weight_decay": decay}
        for part, factor in ((table, FACTOR), (rest, 1.0))
        for decays, decay in ((True, CONFIG.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    stream = training_batches(data.lengths, CONFIG.batch_size, 0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, STEPS, CONFIG)
        inputs, labels = data.batch(next(stream))
        optimizer.zero_grad()
        with autocast(dtype, data.offsets.device):
            logits = trained(**inputs).logits
        nn.functional.cross_entropy(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(trained.parameters(), CONFIG.max_grad_norm)
        optimizer.step()


def moved(trained, before):
    """Return how far the embedding and the rest have moved."""
    table = {id(p) for p in trained.get_input_embeddings().parameters()}
    pairs = list(zip(trained.parameters(), before.parameters(), strict=True))
    return [
        torch.cat([(new - old).detach().float().flatten() for new, old in pairs if (id(new) in table) == own])
        for own in (True, False)
    ]


@pytest.mark.parametrize("used", [60, 400], ids=["compact", "whole"])
def test_a_dense_table_learns_at_its_own_rate(float64, used):  # noqa: F811
    """Where few rows occur, training holds these alone; the others decay at the table's rate."""
    data, plain = examples(n=61 if used == 60 else 500, used=used), classifier().double()
    trained, before = copy.deepcopy(plain), copy.deepcopy(plain)
    plain_loop(plain, data)
    own = Trainee(trained, data, CONFIG, 0, "t").lane("fp32")
    assert (own.table is not None) == (used == 60)
    own.close()
    finetune(trained, data, CONFIG, seed=0, dtype="fp32", name="t")
    for found, expected in zip(moved(trained, before), moved(plain, before), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_every_parameter_of_a_compressed_embedding_learns_at_the_tables_rate(float64, embedding):  # noqa: F811
    data, plain = examples(), classifier(embedding).double()
    trained, before = copy.deepcopy(plain), copy.deepcopy(plain)
    plain_loop(plain, data)
    finetune(trained, data, CONFIG, seed=0, dtype="fp32", name="t")
    for found, expected in zip(moved(trained, before), moved(plain, before), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def assert_near(trained, plain, before):
    """Compare where rounding of gradients to bf16 lets single numbers go apart."""
    for found, expected in zip(moved(trained, before), moved(plain, before), strict=True):
        assert ((found - expected).norm() / expected.norm()).item() < 0.1


@pytest.mark.parametrize("embedding", [None, "kept rows"])
@pytest.mark.parametrize(("fused", "pooled"), [(False, True), (True, False)])
def test_so_it_does_in_bf16(embedding, fused, pooled):
    """Also where the matrices are updated in one pass, as compiled code does."""
    data, plain = examples(), classifier(embedding, pooled)
    trained, before = copy.deepcopy(plain), copy.deepcopy(plain)
    plain_loop(plain, data, "bf16")
    own = Trainee(trained, data, CONFIG, 0, "t").lane("bf16")
    if fused:
        own.fuse_optimizer(adamw)
    for step in range(STEPS):
        own.step(int(own.schedule.lengths[step]))
    own.close()
    assert_near(trained, plain, before)


@pytest.mark.gpu
@pytest.mark.parametrize("embedding", [None, "kept rows"])
@pytest.mark.parametrize("engine", ["eager", "graph", pytest.param("compile", marks=needs_compiler)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_so_it_does_with_each_engine_on_a_gpu(engine, embedding, dtype):
    data, plain = examples(device="cuda"), classifier(embedding).cuda()
    trained, before = copy.deepcopy(plain), copy.deepcopy(plain)
    plain_loop(plain, data, dtype)
    outcome = finetune(trained, data, replace(CONFIG, engine=engine), seed=0, dtype=dtype, name="t")
    assert (outcome.engine, outcome.fallback) == (engine, None)
    assert_near(trained, plain, before)
