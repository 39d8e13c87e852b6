"""Other architectures are either trained properly or refused in a sentence before training."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf

from bench.errors import ConfigError, EnvironmentBroken
from bench.models import location, pretrained
from bench.runs.execute import run
from bench.runs.identity import prepare
from bench.runs.reading import check_reading
from bench.settings.compose import compose_config
from bench.settings.schema import ModelConfig
from bench.tasks.tokenise import Reader
from bench.training.recoveries import unlabelled
from tests.models.test_families import FAMILIES, new_model

WIDTH = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
GPT2 = {"n_embd": 24, "n_layer": 1, "n_head": 2}
XLNET = {"d_model": 24, "n_layer": 1, "n_head": 2, "d_inner": 24}
FUNNEL = {
    "architectures": ["FunnelBaseModel"],
    "block_sizes": [1, 1],
    "d_model": 24,
    "n_head": 2,
    "d_head": 12,
    "d_inner": 24,
}


def described(folder: Path, model_type: str, **keys: object) -> ModelConfig:
    """Return a model of this architecture that has a config.json and no weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **keys}))
    return ModelConfig(name=model_type, source="local", path=str(folder), weights="random")


@pytest.mark.parametrize(
    ("model_type", "keys", "positions"),
    [
        ("bert", {"max_position_embeddings": 40}, 40),
        *(
            (kind, {"max_position_embeddings": 42, "pad_token_id": 1}, 40)
            for kind in ("roberta", "camembert", "xlm-roberta", "mpnet", "longformer", "data2vec-text")
        ),
        ("roberta", {"max_position_embeddings": 42, "pad_token_id": 3}, 38),
        ("gpt2", GPT2 | {"n_positions": 40}, 40),
        ("xlnet", XLNET, None),  # relative positions: -1
        ("funnel", FUNNEL, None),  # relative positions: no such key
    ],
)
def test_positions_are_those_that_the_architecture_has_for_tokens(model_type, keys, positions, tmp_path):
    folder = tmp_path / "model"
    config = described(folder, model_type, vocab_size=50, **(WIDTH if "d_model" not in keys else {}), **keys)
    tf.AutoTokenizer.from_pretrained(_minilm()).save_pretrained(folder)  # GPT-2 and Funnel name no padding
    assert pretrained.positions(config) == positions
    if positions is not None and model_type != "longformer":  # Longformer pads to its window
        model = pretrained.load_model(config, "none")
        assert model(torch.full((1, positions), 7)).last_hidden_state.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, positions + 1), 7))


@pytest.mark.parametrize(
    ("model_type", "keys", "shape"),
    [
        ("rembert", WIDTH | {"input_embedding_size": 16}, (50, 16)),
        ("mobilebert", WIDTH | {"embedding_size": 16}, (50, 16)),
        ("gpt2", GPT2 | {"pad_token_id": 0}, (50, 24)),
        ("xlnet", XLNET, (50, 24)),
        ("xlm", {"emb_dim": 24, "n_layers": 1, "n_heads": 2, "n_words": 50}, (50, 24)),
    ],
)
def test_the_tables_shape_is_the_architectures_whatever_its_keys_are_called(
    model_type, keys, shape, tmp_path
):
    config = described(tmp_path / "model", model_type, **{"vocab_size": 50} | keys)
    assert pretrained.shape(config) == shape
    assert tuple(pretrained.table(pretrained.load_model(config, "classification")).shape) == shape


@pytest.mark.parametrize(
    ("model_type", "keys", "error", "message"),
    [
        ("t5", {"d_model": 24}, ConfigError, r"t5 is an encoder-decoder, and bench trains encoders"),
        ("vit", WIDTH, EnvironmentBroken, r"ViTConfig.*AutoModelForSequenceClassification"),
        (
            "bert",
            WIDTH | {"max_position_embeddings": None},
            EnvironmentBroken,
            r"model\.path .* cannot be loaded",
        ),
        ("bert", WIDTH | {"num_attention_heads": 5}, EnvironmentBroken, r"model\.path .* cannot be loaded"),
        ("no-such-type", {}, EnvironmentBroken, r"model\.path .* cannot be loaded \(.*no-such-type"),
    ],
)
def test_an_architecture_that_bench_cannot_train_is_refused_when_it_is_planned(
    model_type, keys, error, message, tmp_path
):
    model = described(tmp_path / "model", model_type, **keys)
    with pytest.raises(error, match=message):
        prepare(
            compose_config(
                [
                    "model.source=local",
                    f"model.path={model.path}",
                    "model.weights=random",
                    *(
                        f"model.{key}=null"
                        for key in ("sha256", "vocab_size", "width", "positions", "pooling")
                    ),
                    "task=lexical_sentiment",
                ]
            )
        )


def test_a_model_that_reads_no_tokens_has_no_table(tmp_path):
    with pytest.raises(ConfigError, match="ViTModel has no embedding table of tokens"):
        pretrained.shape(described(tmp_path / "model", "vit", **WIDTH))


def _minilm() -> str:
    return location.locate(compose_config(["model=all-minilm-l6-v2"]).model)[0]


@pytest.mark.parametrize(
    ("model_type", "keys", "message"),
    [
        ("gpt2", GPT2 | {"pad_token_id": 0}, None),
        ("gpt2", GPT2, None),  # the tokenizer's padding token is taken
        ("roberta", WIDTH | {"pad_token_id": None}, None),
        ("mpnet", WIDTH | {"pad_token_id": 0}, None),
        ("funnel", FUNNEL, None),
        ("xlm", {"emb_dim": 24, "n_layers": 1, "n_heads": 2, "n_words": 30522, "pad_index": 0}, None),
        ("gpt2", GPT2 | {"pad_token_id": 5}, r"changes when padding \(token 0; 5 in config\.json\) follows"),
        ("xlnet", XLNET, r"XLNetForSequenceClassification to a row changes when padding"),
        ("fnet", WIDTH, r"FNetForSequenceClassification to a row changes when padding"),
        ("bert", WIDTH | {"is_decoder": True}, r"does not depend on its words.*is_decoder"),
    ],
)
def test_a_model_of_another_kind_is_trained_properly_or_refused_in_a_sentence_before(
    model_type, keys, message, tiny, tmp_path
):
    model = described(tmp_path / "model", model_type, **{"vocab_size": 30522} | keys)
    tf.AutoTokenizer.from_pretrained(_minilm()).save_pretrained(model.path)
    record = run(
        compose_config(
            [
                *tiny,
                "training.max_steps=1",
                *(f"model.{key}=null" for key in ("vocab_size", "width", "positions")),
                f"model.path={model.path}",
                "model.weights=random",
                "embedding=dense",
            ]
        )
    )
    if message is None:
        assert record["status"] == "ok", record["error"]
    else:
        assert record["status"] == "failed" and record["error"]["type"] == "ConfigError"
        assert record["training"] is None
        with pytest.raises(ConfigError, match=message):
            raise ConfigError(record["error"]["message"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_architectures_read_rows_as_bench_gives_them(family, tmp_path):
    tokenizer = tf.AutoTokenizer.from_pretrained(_minilm())
    rows = unlabelled(Reader(tokenizer, 16), ["a joy", "they sing all day"], torch.device("cpu"), tmp_path)
    rows.tokens["input_ids"] %= 1000  # the families' vocabulary is small
    assert check_reading(new_model(family, "classification"), rows, 16, family) is None, "it raises otherwise"
