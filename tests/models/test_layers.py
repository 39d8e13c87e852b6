"""Hidden states between an encoder's layers: transformers' own, without its hooks; other encoders are refused."""

import pytest
import torch
import transformers as tf

from bench.errors import ConfigError
from bench.models.layers import hidden_states
from tests.models.test_families import FAMILIES, SMALL, VOCAB_SIZE, new_model


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_hidden_states_are_those_that_transformers_gives_and_leave_no_hook(family):
    encoder = new_model(family, "classification").eval().base_model
    ids = torch.randint(5, VOCAB_SIZE, (3, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(9) < torch.tensor([[9], [4], [7]])).long()}
    found = hidden_states(encoder, **inputs)
    assert not any(module._forward_hooks for module in encoder.modules())
    expected = encoder(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == encoder.config.num_hidden_layers + 1
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "config",
    [
        tf.DebertaV2Config(
            **SMALL, conv_kernel_size=3, type_vocab_size=0
        ),  # changes the states behind its first layer
        tf.XLNetConfig(vocab_size=VOCAB_SIZE, d_model=24, n_layer=2, n_head=2, d_inner=32),  # (L, B, d)
        tf.SqueezeBertConfig(**SMALL, embedding_size=24),  # calls its layers without hooks
        tf.XLMConfig(vocab_size=VOCAB_SIZE, emb_dim=24, n_layers=2, n_heads=2),  # its lists are no layers
    ],
    ids=lambda config: config.model_type,
)
def test_hidden_states_that_layers_do_not_hand_on_are_refused(config):
    encoder = tf.AutoModel.from_config(config).eval()
    with pytest.raises(ConfigError, match=rf"^{type(encoder).__name__}: .* use recovery=masked_lm"):
        hidden_states(encoder, input_ids=torch.full((3, 9), 7))
    assert not any(module._forward_hooks for module in encoder.modules())
