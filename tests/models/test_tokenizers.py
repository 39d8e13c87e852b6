"""The real tokenizers of BERT, mBERT, RoBERTa and XLM-R, and a model of XLM-R's real vocabulary."""

import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from bench.assignment.digits import sequential
from bench.embeddings import method
from bench.embeddings.base import Source
from bench.models import pretrained, storage
from bench.models.tokenizers import load_tokenizer
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.settings.schema import ModelConfig
from tests.support.reference import stored_shapes

FOLDER = Path(
    os.environ.get("BENCH_TOKENIZERS", Path(__file__).resolve().parents[3] / "shared" / "tokenizers")
)
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="no tokenizers: set BENCH_TOKENIZERS to their folder"
)


@cache  # XLM-R's takes seconds
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(ModelConfig(name=folder.name, source="local", path=str(folder)))


# tokens, and what a pair looks like, as the models' papers and their own implementations have it
@pytest.mark.parametrize(
    ("name", "model", "pad", "text", "expected"),
    [
        ("bert-base-uncased", "bert-base-uncased", 0, ("A dog", "sleeps"), "[CLS] a dog [SEP] sleeps [SEP]"),
        ("bert-base-multilingual-cased", "mbert", 0, ("Ein Hund", "Ja"), "[CLS] Ein Hund [SEP] Ja [SEP]"),
        ("roberta-base", "roberta-base", 1, ("A dog", " sleeps"), "<s> A Ġdog </s> </s> Ġsleeps </s>"),
        ("xlm-roberta-base", "xlm-r-base", 1, ("Ein Hund", "Ja"), "<s> ▁Ein ▁Hund </s> </s> ▁Ja </s>"),
    ],
)
def test_a_real_tokenizer_loads_and_writes_pairs_as_its_model_expects(
    name, model, pad, text, expected, tmp_path
):
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no {name} in the tokenizers' folder")
    folder, vocab_size = FOLDER / name, compose_config([f"model={model}"]).model.vocab_size
    if not (folder / "config.json").is_file():  # a model's folder has one
        for path in folder.iterdir():
            (tmp_path / path.name).symlink_to(path)
        made = {"model_type": "roberta" if "roberta" in name else "bert", "vocab_size": vocab_size}
        (tmp_path / "config.json").write_text(json.dumps(made))
        folder = tmp_path
    loaded = tokenizer(folder)
    assert loaded.is_fast
    assert len(loaded) == vocab_size
    assert loaded.pad_token_id == pad
    assert " ".join(loaded.convert_ids_to_tokens(loaded(*text)["input_ids"])) == expected


@pytest.fixture
def xlm_r(tmp_path: Path) -> list[str]:
    """Return the overrides of a one-layer model with XLM-R's tokenizer, vocabulary and 24 columns."""
    source = FOLDER / "xlm-roberta-base"
    if not source.is_dir():
        pytest.skip("no xlm-roberta-base in the tokenizers' folder")
    for path in source.iterdir():
        if path.name != "config.json":
            (tmp_path / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 24}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return [
        "model=xlm-r-base",
        "model.name=xlm-r-tiny",
        "model.source=local",
        f"model.path={tmp_path}",
        "model.revision=null",
        "model.weights=random",
        "model.vocab_size=null",
        "model.width=null",
    ]


def test_a_model_of_xlm_rs_vocabulary_plans_and_swaps(xlm_r, tmp_path):
    prepared = prepare(
        compose_config([*xlm_r, "task=lexical_sentiment", "assignment=sequential", "embedding.subspaces=3"])
    )
    assert (prepared.vocab_size, prepared.width) == (250_002, 24)
    embedding = prepared.config.embedding
    assert (embedding.rows, embedding.sub_dim) == (63, 8)

    model = pretrained.load_model(prepared.config.model, "masked_lm")
    codes = sequential(250_002, 3, 63)
    source = Source(pretrained.table(model), 1, codes, codes_stored=False)
    module = method("subspace").build(embedding, source)
    pretrained.swap_embedding(model, module)
    tokens = tokenizer(FOLDER / "xlm-roberta-base")(
        ["Ein Hund schläft.", "一只狗"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        assert model(**tokens).logits.shape == (2, tokens["input_ids"].shape[1], 250_002)
    path = storage.save_compressed(model, tmp_path / "saved", embedding, codes_stored=False)
    # The largest tensor is the head's bias.
    assert max(torch.Size(shape).numel() for shape in stored_shapes(path).values()) == 250_002
