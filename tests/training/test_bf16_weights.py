"""bf16 copies of linear layers compute what autocast computes, also where three layers are one product."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertModel, DistilBertConfig, DistilBertModel

from bench.training.bf16_weights import Bf16Weights, Projections
from bench.training.engine import flops_per_token, make_engine
from bench.training.finetune import Trainee
from bench.training.precision import autocast
from tests.training.test_engine import CONFIG, DEVICES, examples

CPU = torch.device("cpu")


class Attention(nn.Module):
    """One head, whose keys and values may come from elsewhere."""

    def __init__(self, bias):
        super().__init__()
        self.query, self.key = (nn.Linear(16, 8, bias=bias) for _ in range(2))
        self.value, self.out = (nn.Linear(16, 16, bias=bias) for _ in range(2))

    def forward(self, states, others):
        weights = (self.query(states) @ self.key(others).transpose(1, 2)).softmax(-1)
        return self.out(weights @ self.value(others))


class Attentions(nn.Module):
    """Attention to itself, to other states, and to itself by a weight and by a layer that another attention has, too."""

    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.own, self.cross, self.tied, self.twin, self.other = (Attention(bias) for _ in range(5))
        self.twin.key.weight = self.tied.key.weight
        self.other.value = self.twin.value

    def forward(self, states, others):
        states = states + self.own(states, states)
        states = states + self.cross(states, others)
        return states + self.tied(states, states) + self.twin(states, states) + self.other(states, states)


def outcome(model, bf16=None):
    """Return the outputs, and each weight's gradient by name, of a batch in two parts."""
    weights = dict(model.named_parameters())
    bf16 = bf16 and bf16(model)
    generator, outputs = torch.Generator().manual_seed(1), []
    for part in range(2):
        with autocast("bf16", CPU):
            outputs.append(model(*torch.randn(2, 3, 5, 16, generator=generator)))
        outputs[-1].float().square().sum().backward()
        if bf16:
            bf16.collect(first=part == 0)
    return torch.stack(outputs).detach().float(), {name: weight.grad for name, weight in weights.items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [[], ["own.value.weight", "out"]], ids=["all", "some frozen"])
def test_the_copies_compute_what_autocast_does(bias, frozen):
    plain, copied = Attentions(bias), Attentions(bias)
    for model in (plain, copied):
        for name, weight in model.named_parameters():
            weight.requires_grad_(not any(part in name for part in frozen))
    (expected, gradients), (found, own) = outcome(plain), outcome(copied, Bf16Weights)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    # Products of `cross` were not all taken.
    assert not any(module.products for module in copied.modules() if isinstance(module, Projections))
    assert {name for name, gradient in own.items() if gradient is None} == {
        name for name in own if any(part in name for part in frozen)
    }
    for name in [name for name, gradient in own.items() if gradient is not None]:
        assert own[name].dtype == torch.float32
        error = (own[name] - gradients[name]).norm()
        # The gradient of a key's bias is 0.
        assert error <= 0.02 * gradients[name].norm() + 1e-3 or name.endswith("key.bias"), name


def test_a_frozen_model_is_cast_once_and_answers_to_the_bit_as_autocast_does():
    plain, copied = Attentions().requires_grad_(False), Attentions().requires_grad_(False)
    bf16, again = Bf16Weights(copied), Bf16Weights(copied)  # of two lanes that share it
    layers = [m for m in copied.modules() if isinstance(m, nn.Linear | Projections)]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    assert not bf16.copies and not any(p.requires_grad for p in copied.parameters())
    inputs = torch.randn(2, 3, 5, 16)
    with autocast("bf16", CPU):
        assert torch.equal(copied(*inputs), plain(*inputs))
    for one in (bf16, again):
        one.restore()
    assert {p.dtype for p in copied.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "model",
    [
        BertModel(
            BertConfig(
                vocab_size=30,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
            )
        ),
        DistilBertModel(DistilBertConfig(vocab_size=30, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    ],
    ids=["bert", "distilbert"],
)
def test_each_attention_is_one_product_and_the_layers_come_back(model):
    before, flops = {name: id(weight) for name, weight in model.named_parameters()}, flops_per_token(model)
    bf16 = Bf16Weights(model)
    assert sum(isinstance(module, Projections) for module in model.modules()) == 2
    assert flops_per_token(model) == flops
    bf16.restore()
    frozen = Bf16Weights(model.requires_grad_(False))
    assert 3 * flops_per_token(model) == flops  # no backward pass
    frozen.restore()
    model.requires_grad_(True)
    assert {name: id(weight) for name, weight in model.named_parameters()} == before
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_refresh_updates_the_copies():
    plain, copied = Attentions(), Attentions()
    bf16 = Bf16Weights(copied)
    with torch.no_grad():
        for weight in chain(plain.parameters(), bf16.copies):
            weight.mul_(1.5)
    bf16.refresh()
    torch.testing.assert_close(outcome(copied)[0], outcome(plain)[0], rtol=2e-2, atol=2e-2)


def test_an_unused_layer_has_no_gradient_of_an_earlier_step():
    """Two layers; the second serves the first step, and the second part only of the next but one."""
    layers = nn.ModuleDict({"first": nn.Linear(4, 4), "second": nn.Linear(4, 4)})
    first, second = layers["first"].weight, layers["second"].weight
    bf16 = Bf16Weights(layers)

    def part(states, *names, begins):
        with autocast("bf16", CPU):
            for name in names:
                states = layers[name](states)
        states.float().sum().backward()
        bf16.collect(first=begins)

    one, other = torch.randn(3, 4), torch.randn(3, 4)
    part(one, "first", "second", begins=True)
    assert second.grad.abs().sum() > 0
    part(one, "first", begins=True)
    assert first.grad is not None and second.grad is None
    part(other, "second", begins=True)
    alone = second.grad.clone()
    part(one, "first", begins=True)
    part(other, "second", begins=False)
    torch.testing.assert_close(second.grad, alone)


@pytest.mark.parametrize("device", DEVICES)
def test_close_restores_the_fp32_weights_and_keeps_tied_weights_tied(device):
    trained = BertForMaskedLM(
        BertConfig(
            vocab_size=30, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
    )
    before = {name: (id(p), p.dtype) for name, p in trained.named_parameters()}
    kinds = [type(module) for module in trained.modules()]
    own = Trainee(Guesses(trained.to(device)), examples(device), replace(CONFIG, max_steps=2), 0, "t").lane(
        "bf16"
    )
    decoder, output = trained.cls.predictions.decoder, trained.bert.encoder.layer[0].output.dense
    assert decoder.weight is trained.get_input_embeddings().weight and output.weight.dtype == torch.bfloat16
    engine, _ = make_engine("auto", [own])
    engine.step(0)
    engine.step(1)
    own.close()
    assert {name: (id(p), p.dtype) for name, p in trained.named_parameters()} == before
    assert [type(module) for module in trained.modules()] == kinds
    assert decoder.weight is trained.get_input_embeddings().weight


class Guesses(nn.Module):
    """A masked language model whose logits of the first token decide between two classes."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **inputs):
        output = self.inner(**inputs)
        output.logits = output.logits[:, 0, :2]
        return output
