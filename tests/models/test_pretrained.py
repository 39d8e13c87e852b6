"""Where a model comes from, what must be true of it, and MiniLM's real weights before and after the swap."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import BertConfig, BertModel

from bench.assignment.digits import sequential
from bench.embeddings import method
from bench.embeddings.base import Source
from bench.embeddings.table_error import relative_error, squared_errors
from bench.errors import ConfigError, EnvironmentBroken
from bench.models import location, pretrained, storage
from bench.models.tokenizers import load_tokenizer
from bench.runs.identity import prepare
from bench.settings.compose import CONF, choices, compose_config
from bench.settings.embeddings import SubspaceConfig
from bench.settings.schema import ModelConfig
from tests.support.reference import dense_table, stored_shapes, tensor_bytes

MINILM = compose_config(["model=all-minilm-l6-v2"]).model


@pytest.mark.parametrize("name", choices("model"))
def test_every_shipped_model_composes_pinned_and_plans_without_being_loaded(name):
    config = compose_config(
        [f"model={name}", "task=lexical_sentiment", "assignment=sequential", "embedding.subspaces=4"]
    )
    model, text = config.model, (CONF / "model" / f"{name}.yaml").read_text()
    assert set(yaml.safe_load(text)) >= {
        "name",
        "source",
        "path",
        "revision",
        "vocab_size",
        "width",
        "license",
    }
    assert model.name == name and model.license in ("apache-2.0", "mit")
    assert model.overlaps.keys() <= {*choices("task")}
    if model.source == "hub":
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.path)
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision or "") or "revision: null  # not pinned: " in text
    else:
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    prepared = prepare(config)
    assert (prepared.vocab_size, prepared.width) == (model.vocab_size, model.width)
    assert prepared.canonical["model"]["name"] == name


def test_minilm_has_the_weights_that_its_file_names():
    folder, _ = location.locate(MINILM)
    assert hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest() == MINILM.sha256
    assert location.identity(MINILM) == {
        "name": "all-minilm-l6-v2",
        "weights": "pretrained",
        "pooling": "mean",
        "sha256": MINILM.sha256,
    }


def test_weights_with_another_checksum_break_the_environment_and_the_file_is_named():
    wrong = "0" * 64
    with pytest.raises(
        EnvironmentBroken, match=rf"model\.sha256 \({wrong}\) .*model\.safetensors \({MINILM.sha256}\)"
    ):
        pretrained.load_model(replace(MINILM, sha256=wrong), "classification")


def test_minilm_with_real_weights_takes_the_swap_and_its_file_shrinks_by_the_right_number_of_bytes(tmp_path):
    model = pretrained.load_model(MINILM, "classification", num_labels=2)
    table = pretrained.table(model).clone()
    assert table.shape == (30_522, 384)
    model.save_pretrained(tmp_path / "dense")
    chosen = method("subspace")
    config = chosen.resolve(SubspaceConfig(subspaces=3), *table.shape)
    codes = sequential(30_522, 3, 32)
    module = chosen.build(config, Source(table, 0, codes, codes_stored=False))
    assert 0 < relative_error(*squared_errors(module, table, 0)) < 1
    pretrained.swap_embedding(model, module)
    path = storage.save_compressed(model, tmp_path / "small", config, codes_stored=False)
    saved = 4 * (30_522 * 384 - 3 * 32 * 128)
    assert tensor_bytes(tmp_path / "dense" / "model.safetensors") - tensor_bytes(path) == saved
    assert stored_shapes(path)["bert.embeddings.word_embeddings.weight"] == [96, 128]

    tokens = load_tokenizer(MINILM)(
        ["a dog sleeps", "an animal sleeps now"], padding=True, return_tensors="pt"
    )
    loaded = storage.load_compressed(tmp_path / "small")
    with torch.no_grad():
        expected = model(**tokens).logits
        assert torch.equal(loaded(**tokens).logits, expected)
        embeddings = dense_table(module.weight, codes, "concat", None, 0)[tokens["input_ids"]]
        rest = {key: value for key, value in tokens.items() if key != "input_ids"}
        torch.testing.assert_close(model(inputs_embeds=embeddings, **rest).logits, expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tiny BERT, 50 x 8."""
    BertModel(
        BertConfig(
            vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    ).save_pretrained(tmp_path)
    return tmp_path


def local(folder: Path, **keys: object) -> ModelConfig:
    return ModelConfig(name="tiny", source="local", path=str(folder), **keys)


def test_random_weights_need_only_the_configuration_file(folder):
    (folder / "model.safetensors").unlink()
    model = pretrained.load_model(local(folder, weights="random"), "classification", num_labels=5)
    assert pretrained.table(model).shape == (50, 8) and model.config.num_labels == 5
    with pytest.raises(EnvironmentBroken, match=r"model\.path \(.*\) cannot be loaded"):
        pretrained.load_model(local(folder), "classification")


def test_a_shape_other_than_the_yaml_files_is_a_wrong_configuration(folder):
    with pytest.raises(
        ConfigError, match=r"model\.vocab_size and model\.width say \(51, 8\), but .*\(50, 8\)"
    ):
        pretrained.load_model(local(folder, vocab_size=51, width=8), "none")
    with pytest.raises(ConfigError, match=r"model\.positions says 511, but .* takes 512 tokens"):
        pretrained.load_model(local(folder, positions=511), "none")


def test_a_local_folder_counts_by_its_content_not_by_its_path(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert location.identity(local(folder)) == location.identity(local(other))
    changed = tmp_path_factory.mktemp("changed")
    for path in folder.iterdir():
        (changed / path.name).write_bytes(path.read_bytes() + b" " * (path.name == "config.json"))
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    for known in ({}, {"sha256": weights}):
        assert location.identity(local(folder, **known)) != location.identity(local(changed, **known))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            ModelConfig(source="hubb", path="a/b"),
            ConfigError,
            r"Unknown model\.source 'hubb'\. Did you mean 'hub'\?",
        ),
        (ModelConfig(source="local"), ConfigError, r"model\.path is empty"),
        (
            ModelConfig(source="local", path="no/such/folder"),
            ConfigError,
            r"model\.path \(no/such/folder\): no config\.json",
        ),
        (
            ModelConfig(source="package", path="no_such_package/model"),
            EnvironmentBroken,
            "'no_such_package' is not installed",
        ),
        (
            ModelConfig(source="hub", path="no-owner/no-repo"),
            EnvironmentBroken,
            r"model\.path \(no-owner/no-repo\) cannot be loaded .*make fetch",
        ),
    ],
)
def test_a_model_that_is_not_there_says_what_to_do(config, error, message):
    with pytest.raises(error, match=message):
        pretrained.load_model(config, "none")
    with pytest.raises(error, match=message):
        load_tokenizer(config)


def test_weights_that_are_gone_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(EnvironmentBroken, match=r"no model\.safetensors in "):
        location.locate(local(folder, sha256="0" * 64))
