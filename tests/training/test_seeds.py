"""Several seeds as one batched model train as each of them does alone."""

import numpy as np
import pytest
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification

from bench.backbones import swap_embedding
from bench.config import TrainingConfig
from bench.embeddings.subspace import SubspaceEmbedding
from bench.errors import BenchError
from bench.training.batching import Examples
from bench.training.finetune import Diverged, Outcome, finetune, finetune_together
from bench.training.seeds import SeedStack

SIZES = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIG = TrainingConfig(max_steps=12, batch_size=8, learning_rate=1e-3)
SEEDS = [3, 0, 7]


def examples(n=61):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, n)
    ids = torch.tensor(rng.integers(2, 30, lengths.sum()), dtype=torch.int32)
    return Examples({"input_ids": ids}, torch.tensor(np.cumsum(lengths) - lengths), lengths,
                    torch.tensor(rng.integers(0, 2, n)), {"input_ids": 1})


def bert(seed, dropout=NO_DROPOUT, compose=None):
    torch.manual_seed(seed)
    made = BertForSequenceClassification(BertConfig(**SIZES, **dropout, pad_token_id=1))
    if compose:
        codes = np.stack([np.arange(30) % 6, np.arange(30) // 6], axis=1)
        module = SubspaceEmbedding(codes, 6, 32, sub_dim=8, compose=compose, padding_idx=1)
        torch.nn.init.normal_(module.weight, std=0.02)
        swap_embedding(made, module)
    return made


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("compose", [None, "concat", "sum"])
def test_each_seed_trains_as_it_does_alone(compose):
    alone = [bert(seed, compose=compose) for seed in SEEDS]
    expected = [finetune(model, examples(), CONFIG, seed=seed, dtype="fp32", name="t") for model, seed in zip(alone, SEEDS, strict=True)]
    together = [bert(seed, compose=compose) for seed in SEEDS]
    found = finetune_together(together, examples(), CONFIG, seeds=SEEDS, dtype="fp32", name="t")
    for one, other, model, reference in zip(found, expected, together, alone, strict=True):
        assert isinstance(one, Outcome) and one.seeds_at_once == 3
        np.testing.assert_allclose(one.curve, other.curve, atol=2e-5)
        np.testing.assert_allclose(weights(model), weights(reference), atol=5e-4)
    assert found[0].curve != found[1].curve, "each seed has its own order and weights"


def test_a_seed_that_diverges_stops_no_other():
    broken, sound = bert(0), bert(3)
    with torch.no_grad():
        broken.classifier.weight.fill_(float("inf"))
    first, second = finetune_together([broken, sound], examples(), CONFIG, seeds=[0, 3], dtype="fp32", name="t")
    assert isinstance(first, Diverged) and "after 0 of 12 steps" in str(first)
    alone = finetune(bert(3), examples(), CONFIG, seed=3, dtype="fp32", name="t")
    assert isinstance(second, Outcome)
    np.testing.assert_allclose(second.curve, alone.curve, atol=2e-5)


def test_dropout_is_independent_between_seeds():
    stack = SeedStack([bert(0, dropout={"hidden_dropout_prob": 0.5})] * 2).train()
    inputs, _ = examples().batch(np.array([0, 1, 2, 0, 1, 2]))
    first, second = stack(**inputs).logits.view(2, 3, -1)
    assert (first - second).abs().min() > 1e-6
    first, second = stack.eval()(**inputs).logits.view(2, 3, -1)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("family", ["Roberta", "XLMRoberta", "Electra", "Albert", "DistilBert"])
def test_other_families_give_the_logits_of_their_single_models(family):
    config = {"DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 30}}.get(family, SIZES)
    models = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        architecture = getattr(transformers, f"{family}Config")(**config, pad_token_id=1)
        models.append(getattr(transformers, f"{family}ForSequenceClassification")(architecture).eval())
    inputs, _ = examples().batch(np.arange(6))
    found = SeedStack(models).eval()(**inputs).logits.view(3, 2, -1)
    for place, model in enumerate(models):
        part = {name: value[2 * place : 2 * place + 2] for name, value in inputs.items()}
        torch.testing.assert_close(found[place], model(**part).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("extra", [{"gain": True}, {"kept": np.array([3, 4])}, {"table_dtype": "int8"}, {"rotation": 0}])
def test_a_table_with_more_than_codes_is_refused_rather_than_trained_wrongly(extra):
    models = [bert(seed) for seed in SEEDS]
    for made in models:
        swap_embedding(made, SubspaceEmbedding(np.stack([np.arange(30) % 6, np.arange(30) // 6], axis=1), 6, 32, sub_dim=16, **extra))
    with pytest.raises(BenchError, match="cannot train several seeds at once"):
        SeedStack(models)


def test_a_layer_that_cannot_be_stacked_is_named():
    with pytest.raises(BenchError, match=r"Conv1d \(1\).*seeds_at_once=1"):
        SeedStack([torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Conv1d(1, 1, 1))])
