"""Each architecture that conf/model/ names, tiny and random: the swap, the tied head, training, saving and loading."""

import copy
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from bench.assignment.digits import sequential
from bench.embeddings import method
from bench.embeddings.base import Source
from bench.errors import BenchError
from bench.models import body, pretrained, storage
from bench.models.sizes import sizes
from bench.settings.compose import choices
from bench.settings.embeddings import DenseConfig, SubspaceConfig
from bench.settings.schema import ModelConfig
from tests.support.reference import LargestTensor, dense_table, stored_shapes, tensor_bytes

VOCAB_SIZE = 1009
SMALL = {
    "vocab_size": VOCAB_SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 24,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
FAMILIES = {
    "bert": tf.BertConfig(**SMALL),
    "distilbert": tf.DistilBertConfig(
        vocab_size=VOCAB_SIZE, n_layers=2, n_heads=2, dim=24, hidden_dim=32, max_position_embeddings=40
    ),
    "roberta": tf.RobertaConfig(**SMALL),
    "xlm-r": tf.XLMRobertaConfig(**SMALL),
    "mpnet": tf.MPNetConfig(**SMALL),
    "deberta-v3": tf.DebertaV2Config(
        **SMALL,
        type_vocab_size=0,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_buckets=8,
    ),
    "electra": tf.ElectraConfig(**SMALL, embedding_size=24),
    "electra-small": tf.ElectraConfig(**SMALL, embedding_size=12),
    "albert": tf.AlbertConfig(**SMALL, embedding_size=12),
    "modernbert": tf.ModernBertConfig(**SMALL, **SPECIAL, pad_token_id=3),
    "mmbert": tf.ModernBertConfig(**SMALL, **SPECIAL, pad_token_id=0),
}
FAMILY_OF = {
    "all-minilm-l6-v2": "bert",
    "bert-small-6x384": "bert",
    "roberta-small": "roberta",
    "xlm-r-small": "xlm-r",
    "bert-base-uncased": "bert",
    "bert-base-cased": "bert",
    "bert-large-uncased": "bert",
    "bert-large-cased": "bert",
    "mbert": "bert",
    "multilingual-minilm": "bert",
    "multilingual-e5-small": "bert",
    "multilingual-e5-small-fp32": "bert",
    "distilbert-base-uncased": "distilbert",
    "roberta-base": "roberta",
    "roberta-large": "roberta",
    "xlm-r-base": "xlm-r",
    "xlm-r-large": "xlm-r",
    "deberta-v3-base": "deberta-v3",
    "electra-base": "electra",
    "albert-base-v2": "albert",
    "modernbert-base": "modernbert",
    "mmbert-base": "mmbert",
}


def new_model(family: str, head: str, **changes: object) -> tf.PreTrainedModel:
    torch.manual_seed(0)
    config = copy.deepcopy(FAMILIES[family])
    config.update({"num_labels": 3, "initializer_range": 0.2} | changes)
    model = getattr(tf, pretrained.HEADS[head]).from_config(config).eval()
    if head == "masked_lm":  # a new head's bias is zero: a lost one would not show
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    return model


def swapped(model: tf.PreTrainedModel, codes_stored: bool) -> tuple[np.ndarray, SubspaceConfig]:
    """Swap the model's embedding in place; return its codes and its resolved configuration."""
    table, chosen = pretrained.table(model), method("subspace")
    config = chosen.resolve(SubspaceConfig(), *table.shape)
    codes = sequential(len(table), config.subspaces, config.rows)
    if codes_stored:
        codes = np.random.default_rng(0).permutation(codes)
    source = Source(table, model.get_input_embeddings().padding_idx, codes, codes_stored)
    embedding = chosen.build(config, source)
    pretrained.swap_embedding(model, embedding)
    return codes, config


def batch(model: tf.PreTrainedModel) -> dict[str, torch.Tensor]:
    ids = torch.randint(10, VOCAB_SIZE, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[0, 6:], mask[0, 6:] = model.config.pad_token_id, 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def logits(model: tf.PreTrainedModel) -> torch.Tensor:
    return model.eval()(**batch(model)).logits


def second_names_of_biases(model: tf.PreTrainedModel) -> list[list[str]]:
    names = defaultdict(list)
    for name, tensor in model.state_dict().items():
        if name.endswith("bias"):
            names[tensor.data_ptr()].append(name)
    return sorted(group for group in names.values() if len(group) > 1)


def test_every_shipped_model_belongs_to_a_tested_family():
    assert set(FAMILY_OF) == set(choices("model"))
    assert set(FAMILY_OF.values()) <= set(FAMILIES)


@pytest.mark.parametrize("head", ["classification", "masked_lm"])
@pytest.mark.parametrize("family", FAMILIES)
class TestFamily:
    def test_swapped_model_is_the_dense_model_with_the_materialised_table(self, family, head):
        model = new_model(family, head)
        dense, pretrained = copy.deepcopy(model), logits(model)
        codes, _ = swapped(model, codes_stored=False)
        layer = model.get_input_embeddings()
        assert dense.get_input_embeddings().weight.shape == (VOCAB_SIZE, layer.embedding_dim)
        dense.get_input_embeddings().weight.data = dense_table(
            layer.weight.detach(), codes, layer.compose, None, layer.padding_idx
        )
        found = logits(model)
        torch.testing.assert_close(found, logits(dense), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, pretrained, atol=1e-3)
        model.tie_weights()
        assert torch.equal(found, logits(model))
        assert not any(p.numel() >= VOCAB_SIZE * layer.embedding_dim for p in model.parameters())

    def test_a_training_step_moves_tables_and_head_and_keeps_what_is_shared(self, family, head):
        model = new_model(family, head)
        shared = second_names_of_biases(model)
        swapped(model, codes_stored=False)
        before = copy.deepcopy(model.state_dict())
        inputs = batch(model)
        labels = inputs["input_ids"] if head == "masked_lm" else torch.tensor([0, 1, 2])
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
        model(**inputs, labels=labels).loss.backward()
        optimiser.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert {
            name for name, p in model.named_parameters() if p is model.get_input_embeddings().weight
        } <= moved
        assert second_names_of_biases(model) == shared
        if head == "masked_lm":
            assert model.get_output_embeddings().bias is not None
            assert any(
                p is model.get_output_embeddings().bias for n, p in model.named_parameters() if n in moved
            )

    @pytest.mark.parametrize("codes_stored", [False, True])
    def test_saved_and_loaded_again_bit_for_bit_without_a_dense_table(
        self, family, head, codes_stored, tmp_path
    ):
        model = new_model(family, head)
        dense = sum(p.numel() for p in model.parameters())
        width = pretrained.table(model).shape[1]
        _, config = swapped(model, codes_stored)
        path = storage.save_compressed(model, tmp_path, config, codes_stored)
        with LargestTensor() as largest:
            loaded = storage.load_compressed(tmp_path)
        assert type(loaded) is type(model)
        assert torch.equal(logits(loaded), logits(model))
        assert second_names_of_biases(loaded) == second_names_of_biases(model)
        assert loaded.config.vocab_size == VOCAB_SIZE and loaded.config.id2label == model.config.id2label
        assert largest.numel < VOCAB_SIZE * width
        assert all(np.prod(shape) < VOCAB_SIZE * width for shape in stored_shapes(path).values())
        size = method("subspace").size(config, VOCAB_SIZE, width, codes_stored)
        counted = sizes(
            model, model.get_input_embeddings(), size, method("dense").size(config, VOCAB_SIZE, width, False)
        )
        assert tensor_bytes(path) == counted["total_bytes"] == 4 * (dense - VOCAB_SIZE * width) + size.bytes
        again = storage.save_compressed(loaded, tmp_path / "again", config, codes_stored)
        assert again.read_bytes() == path.read_bytes()

    @pytest.mark.parametrize("form", ["bf16", "int8"])
    @pytest.mark.parametrize("name", ["dense", "subspace"])
    def test_a_body_in_fewer_bits_is_loaded_bit_for_bit_and_its_file_is_as_large_as_counted(
        self, family, head, name, form, tmp_path
    ):
        model = new_model(family, head)
        config, shape = DenseConfig(), pretrained.table(model).shape
        if name == "subspace":
            _, config = swapped(model, codes_stored=True)
        size, dense = (
            method(one.name).size(one, *shape, codes_stored=True) for one in (config, DenseConfig())
        )
        before = logits(model)
        body.round_off(model, form)
        path = storage.save_compressed(model, tmp_path, config, True, body=form)
        loaded = storage.load_compressed(tmp_path)
        assert torch.equal(logits(loaded), logits(model)) and not torch.equal(logits(model), before)
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        assert (
            tensor_bytes(path) == sizes(model, model.get_input_embeddings(), size, dense, form)["total_bytes"]
        )
        assert (
            storage.save_compressed(loaded, tmp_path / "again", config, True, body=form).read_bytes()
            == path.read_bytes()
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_vocabulary_and_width_are_read_from_config_json(family, tmp_path):
    model = new_model(family, "classification")
    model.save_pretrained(tmp_path)
    config = ModelConfig(name=family, source="local", path=str(tmp_path))
    assert pretrained.shape(config) == tuple(pretrained.table(model).shape)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-r", "mpnet", "electra", "albert"])
def test_the_longest_sequence_is_the_one_that_the_model_can_still_read(family, tmp_path):
    model = new_model(family, "classification").eval()
    model.save_pretrained(tmp_path)
    longest = pretrained.positions(ModelConfig(name=family, source="local", path=str(tmp_path)))
    ids = torch.full((1, longest + 1), 7)
    assert model(ids[:, 1:]).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_classification_head_is_the_architectures_own_with_the_labels_in_order(family, tmp_path):
    masked_lm = new_model(family, "masked_lm")
    masked_lm.save_pretrained(tmp_path)
    labels = ["entailment", "neutral", "contradiction"]
    model = pretrained.load_model(
        ModelConfig(name=family, source="local", path=str(tmp_path)),
        "classification",
        num_labels=3,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    assert type(model) is tf.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(FAMILIES[family])]
    assert list(model.config.id2label.items()) == [(0, "entailment"), (1, "neutral"), (2, "contradiction")]
    assert model.config.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert logits(model).shape == (3, 3)
    assert not model.training and next(model.parameters()).dtype == torch.float32
    assert torch.equal(pretrained.table(model), pretrained.table(masked_lm))


def test_a_dense_model_is_saved_and_loaded_with_its_head_tied(tmp_path):
    model = new_model("bert", "masked_lm")
    table = pretrained.table(model)
    config = DenseConfig()
    pretrained.swap_embedding(model, method("dense").build(config, Source(table, 0)))
    path = storage.save_compressed(model, tmp_path, config, codes_stored=False)
    loaded = storage.load_compressed(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tensor_bytes(path) == 4 * sum(p.numel() for p in model.parameters())


def test_an_untied_head_keeps_its_own_matrix(tmp_path):
    model = new_model("roberta", "masked_lm", tie_word_embeddings=False)
    matrix = model.get_output_embeddings().weight.detach().clone()
    _, config = swapped(model, codes_stored=True)
    assert torch.equal(model.get_output_embeddings().weight, matrix)
    storage.save_compressed(model, tmp_path, config, codes_stored=True)
    assert torch.equal(logits(storage.load_compressed(tmp_path)), logits(model))


def test_a_head_that_multiplies_by_the_table_itself_is_refused():
    model = tf.DebertaV2ForMaskedLM(tf.DebertaV2Config(**SMALL, legacy=False))
    with pytest.raises(BenchError, match="DebertaV2ForMaskedLM: its head multiplies by the table itself"):
        swapped(model, codes_stored=False)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a folder with a compressed BERT whose codes are stored."""
    model = new_model("bert", "classification")
    _, config = swapped(model, codes_stored=True)
    storage.save_compressed(model, tmp_path, config, codes_stored=True)
    return tmp_path


def test_a_file_cut_short_is_refused(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match=r"model\.safetensors does not hold the model"):
        storage.load_compressed(saved)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("codes", lambda t: None, "Missing key.*codes"),
        ("codes", lambda t: t[:-1], "bytes of packed codes"),
        ("codes", lambda t: t | 255, "go up to"),
        ("weight", lambda t: t[:-1].clone(), "size mismatch"),
        ("weight", lambda t: None, "Missing key.*weight"),
    ],
)
def test_tensors_that_are_missing_or_damaged_are_refused(saved, name, change, reason):
    path = saved / "model.safetensors"
    state = load_file(path)
    key = f"bert.embeddings.word_embeddings.{name}"
    changed = change(state.pop(key))
    save_file(state if changed is None else state | {key: changed}, path)
    with pytest.raises(BenchError, match=rf"(?s)model\.safetensors does not hold the model.*{reason}"):
        storage.load_compressed(saved)


def test_a_description_of_something_else_is_refused(saved):
    description = saved / storage.DESCRIPTION
    description.write_text(description.read_text().replace("BertForSequenceClassification", "pipeline"))
    with pytest.raises(BenchError, match=r"bench\.json names no transformers model: pipeline"):
        storage.load_compressed(saved)
