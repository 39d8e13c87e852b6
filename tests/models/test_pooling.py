"""The head reads what `model.pooling` names, on every family, and comes back from disk with it."""

import pytest
import torch

from bench.errors import ConfigError
from bench.models import pretrained, storage
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.settings.embeddings import DenseConfig
from bench.settings.schema import ModelConfig, TaskConfig
from tests.models.test_families import FAMILIES, new_model

TASK = TaskConfig(name="pairs", columns=["a"], labels=["x", "y", "z"])
IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def classifier(folder, pooling: str) -> torch.nn.Module:
    config = ModelConfig(name="tiny", source="local", path=str(folder), pooling=pooling)
    torch.manual_seed(0)
    return pretrained.load_classifier(config, TASK)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_of_the_pooled_states(tmp_path, family):
    new_model(family, "none").save_pretrained(tmp_path)
    states = pretrained.load_model(ModelConfig(name="tiny", source="local", path=str(tmp_path)), "none")
    with torch.no_grad():
        hidden = states(input_ids=IDS, attention_mask=MASK).last_hidden_state
        means = torch.stack([hidden[0].mean(0), hidden[1, :3].mean(0)])
        for pooling, pooled in (("mean", means), ("cls", hidden[:, 0])):
            model = classifier(tmp_path, pooling)
            logits = model(input_ids=IDS, attention_mask=MASK).logits
            torch.testing.assert_close(logits, model.classifier(pooled), atol=1e-6, rtol=1e-5)
            assert not [name for name, _ in model.named_parameters() if "pooler" in name]


def test_padding_does_not_count(tmp_path):
    new_model("bert", "none").save_pretrained(tmp_path)
    model = classifier(tmp_path, "mean")
    with torch.no_grad():
        padded = model(input_ids=IDS, attention_mask=MASK).logits[1]
        alone = model(input_ids=IDS[1:, :3]).logits[0]
    torch.testing.assert_close(padded, alone, atol=1e-6, rtol=1e-5)


def test_a_saved_classifier_comes_back_with_its_pooling(tmp_path):
    new_model("bert", "none").save_pretrained(tmp_path / "encoder")
    model = classifier(tmp_path / "encoder", "mean")
    storage.save_compressed(model, tmp_path / "saved", DenseConfig(), codes_stored=False)
    loaded = storage.load_compressed(tmp_path / "saved")
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=MASK).logits
        assert torch.equal(loaded(input_ids=IDS, attention_mask=MASK).logits, expected)


def test_pooling_is_part_of_the_identity_where_it_is_set(tiny):
    plain, mean = (prepare(compose_config([*tiny, *more])) for more in ([], ["model.pooling=mean"]))
    assert "pooling" not in plain.canonical["model"] and mean.canonical["model"]["pooling"] == "mean"
    assert plain.run_id != mean.run_id


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [("pooling", "mena", "mean"), ("weights", "randm", "random"), ("source", "locl", "local")],
)
def test_a_name_that_there_is_not_is_refused_with_the_nearest(tiny, key, wrong, right):
    with pytest.raises(ConfigError, match=rf"model\.{key} '{wrong}'. Did you mean '{right}'"):
        prepare(compose_config([*tiny, f"model.{key}={wrong}"]))
