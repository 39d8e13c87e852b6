"""Weights against the architecture that is to take them: what stops before training, and what is no fault."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from bench.errors import ConfigError, EnvironmentBroken
from bench.models import location, pretrained, storage
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.settings.embeddings import DenseConfig
from bench.settings.schema import ModelConfig
from tests.models.test_families import FAMILIES, new_model

State = dict[str, Tensor]
SMALL = BertConfig(
    vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=8
)
BODY = 2 * 16 + 5  # tensors: of each layer, and of the embeddings


def local(folder: Path, **keys: object) -> ModelConfig:
    return ModelConfig(name="tiny", source="local", path=str(folder), **keys)


def saved(folder: Path, kind: type = BertModel, change: Callable[[State], State] | None = None) -> Path:
    """Return the folder with the weights of a tiny BERT of this class, changed."""
    torch.manual_seed(0)
    kind(SMALL).save_pretrained(folder)
    if change is not None:
        state = load_file(folder / "model.safetensors")
        save_file(change(state), folder / "model.safetensors", {"format": "pt"})
    return folder


def edited(folder: Path, **keys: object) -> Path:
    """Return the folder with these keys in its config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


def with_value(name: str, value: float) -> Callable[[State], State]:
    return lambda state: state | {name: torch.full_like(state[name], value)}


LAYER_1 = r"missing \((bert\.)?encoder\.layer\.1\.attention\.output\.LayerNorm\.bias, .*, \.\.\.\)"


@pytest.mark.parametrize("head", ["none", "classification", "masked_lm"])
@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (BertModel, prefixed("module."), rf"{BODY} tensors .*: all names begin with 'module\.'"),
        (BertForMaskedLM, prefixed("module."), rf"{BODY} tensors .*: all names begin with 'module\.'"),
        (BertModel, prefixed("0.auto_model."), r"left over \(0\.auto_model\..* begin with '0\.auto_model\.'"),
        (BertForSequenceClassification, prefixed("_orig_mod."), r"all names begin with '_orig_mod\.'"),
        (BertModel, without("layer.1."), rf"16 tensors of the body are {LAYER_1}: use the config\.json"),
        (BertForMaskedLM, without("layer.1."), rf"16 tensors of the body are {LAYER_1}"),
        (
            BertModel,
            lambda state: {
                name.replace("self.query", "self.query.base_layer"): t for name, t in state.items()
            },
            r"4 tensors of the body are missing .*, 4 are left over .*base_layer",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_body_that_is_not_in_the_file_stops_with_the_count_and_first_names(
    kind, change, message, head, tmp_path
):
    folder = saved(tmp_path, kind, change)
    with pytest.raises(
        ConfigError, match=rf"^model\.path \({folder}\): the weights do not fit Bert.*{message}"
    ):
        pretrained.load_model(local(folder), head)


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_hidden_layers": 1}, r"16 are left over \((bert\.)?encoder\.layer\.1\."),
        (
            {"max_position_embeddings": 40},
            r"1 have another shape .*position_embeddings\.weight \(512, 8\) for \(40, 8\)",
        ),
        ({"vocab_size": 51}, r"1 have another shape .*word_embeddings\.weight \(50, 8\) for \(51, 8\)"),
    ],
)
def test_a_config_json_of_another_model_stops(kind, keys, message, tmp_path):
    folder = edited(saved(tmp_path, kind), **keys)
    for head in ("none", "classification"):
        with pytest.raises(ConfigError, match=message):
            pretrained.load_model(local(folder), head)


def test_weights_that_do_not_fit_stop_before_any_data_is_read(tiny, tmp_path):
    folder = saved(tmp_path / "ddp", BertModel, prefixed("module."))
    overrides = [*tiny, "model.width=8", "model.vocab_size=50", f"model.path={folder}", "data.root=/no/data"]
    with pytest.raises(ConfigError, match="all names begin with 'module"):
        prepare(compose_config(overrides))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.bias"])
def test_values_that_are_not_finite_stop_whatever_tensor_holds_them(name, value, tmp_path):
    folder = saved(tmp_path, BertModel, with_value(name, value))
    with pytest.raises(ConfigError, match=rf"1 of \d+ tensors hold NaN or infinite values \(bert\.{name}\)"):
        pretrained.load_model(local(folder), "classification")


BUFFERS = {
    "embeddings.position_ids": torch.arange(512)[None],
    "embeddings.token_type_ids": torch.zeros(1, 512),
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (BertModel, without("pooler")),
        (BertModel, lambda state: state | BUFFERS),
        (BertForSequenceClassification, lambda state: state | {f"bert.{k}": v for k, v in BUFFERS.items()}),
        (BertForSequenceClassification, lambda state: {k: v.half() for k, v in state.items()}),
        (BertForMaskedLM, lambda state: {k: v.bfloat16() for k, v in state.items()}),
    ],
)
@pytest.mark.parametrize("head", ["none", "classification", "masked_lm"])
def test_new_heads_an_absent_pooler_known_buffers_and_half_precision_are_no_fault(
    kind, change, head, tmp_path
):
    folder = saved(tmp_path, kind, change)
    model = pretrained.load_model(local(folder), head, num_labels=5)  # the file's classifier has 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stored = load_file(folder / "model.safetensors")
    for name, tensor in model.base_model.state_dict().items():
        for kept in (name, f"bert.{name}"):
            assert kept not in stored or torch.equal(tensor, stored[kept].float())


@pytest.mark.parametrize("stored", pretrained.HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_checkpoint_of_the_shipped_architectures_loads_into_every_kind(
    family, stored, tmp_path
):
    saved_model = new_model(family, stored).half()
    saved_model.save_pretrained(tmp_path)
    wanted = saved_model.base_model.state_dict()
    for head in pretrained.HEADS:
        model = pretrained.load_model(local(tmp_path), head, num_labels=5)
        for name, tensor in model.base_model.state_dict().items():
            assert name.startswith("pooler.") or torch.equal(tensor, wanted[name].to(tensor.dtype))
    check = partial(pretrained.check_masked_lm_head, local(tmp_path))
    if stored == "masked_lm":
        check()
    else:
        with pytest.raises(ConfigError, match="has no masked-LM head"):
            check()


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Return a folder with a masked-LM BERT in several shards."""
    torch.manual_seed(0)
    BertForMaskedLM(SMALL).save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    return tmp_path


def shards_digest(folder: Path) -> str:
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(folder.glob("model-*.safetensors")))
    ).hexdigest()


def test_shards_count_as_the_one_file_that_they_stand_for(sharded, tmp_path_factory):
    whole = saved(tmp_path_factory.mktemp("whole"), BertForMaskedLM)
    config = local(sharded, sha256=shards_digest(sharded))
    for head in ("none", "masked_lm"):
        one, other = (pretrained.load_model(model, head).state_dict() for model in (config, local(whole)))
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items() if "pooler" not in name)
    pretrained.check_masked_lm_head(config)
    assert location.identity(config)["sha256"] == config.sha256


def test_a_shard_that_was_changed_or_lost_is_named(sharded):
    config, shard = local(sharded, sha256=shards_digest(sharded)), min(sharded.glob("model-*.safetensors"))
    other = local(sharded)
    before = location.identity(other)
    kept = shard.with_name("kept")
    shutil.move(shard, kept)
    with pytest.raises(EnvironmentBroken, match=rf"index\.json names {shard.name}, which is not a file in"):
        location.locate(config)
    with pytest.raises(EnvironmentBroken, match=rf"cannot be loaded \(.*{shard.name}"):
        pretrained.load_model(other, "none")
    shutil.copy(kept, shard)
    save_file({name: tensor + 1 for name, tensor in load_file(shard).items()}, shard, {"format": "pt"})
    location.digest.cache_clear()  # which trusts that files do not change while a process lives
    with pytest.raises(EnvironmentBroken, match=r"is not the SHA-256 of the \d+ shards of .*index\.json"):
        location.locate(config)
    assert location.identity(other) != before


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname"])
def test_an_index_that_names_files_elsewhere_is_refused(sharded, name):
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"bert.embeddings.word_embeddings.weight": name}}))
    with pytest.raises(EnvironmentBroken, match=r"index\.json names .*, which is not a file in"):
        location.locate(local(sharded, sha256="0" * 64))


@pytest.mark.parametrize(
    ("kind", "change", "lacking"),
    [
        (BertModel, None, r"cls\.predictions\.bias"),
        (BertForSequenceClassification, None, r"cls\.predictions\.bias"),
        (BertForMaskedLM, without("transform.dense"), r"cls\.predictions\.transform\.dense\.bias"),
    ],
)
def test_a_masked_lm_head_that_would_be_new_is_refused(kind, change, lacking, tmp_path):
    folder = saved(tmp_path, kind, change)
    with pytest.raises(
        ConfigError, match=rf"no masked-LM head \(its file lacks {lacking}\).*recovery=distil"
    ):
        pretrained.check_masked_lm_head(local(folder))


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", None])
def test_a_model_is_fp32_whatever_its_config_json_says(dtype, weights, key, tmp_path):
    folder = saved(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype")
    (folder / "config.json").write_text(json.dumps(config | {key: dtype}))
    model = pretrained.load_model(local(folder, weights=weights), "classification")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    storage.save_compressed(model, tmp_path / "kept", DenseConfig(), codes_stored=False)
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["dtype"] == "float32"
    again = storage.load_compressed(edited(tmp_path / "kept", dtype=dtype))
    assert {p.dtype for p in again.parameters()} == {torch.float32}
