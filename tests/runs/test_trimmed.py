"""Runs with a trimmed vocabulary: every text they read, and every one their export reads, is spelled with the tokens that are left."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

import bench
from bench import store
from bench.cli.main import main
from bench.errors import ConfigError
from bench.models import storage
from bench.models.tokenizers import load_tokenizer
from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.tasks.data import load_split

TRIMMED = ["embedding=trimmed", "embedding.rows=80"]


def ids_in(path):
    return set(
        pa.ipc.open_file(pa.memory_map(str(path)))
        .read_all()["input_ids"]
        .combine_chunks()
        .flatten()
        .to_pylist()
    )


@pytest.fixture
def run(tiny):
    made = prepare(compose_config([*tiny, *TRIMMED, "training.max_train_examples=null", "keep_weights=true"]))
    record = execute(made)
    folder = store.weights_folder(Path(made.config.results_dir), made.name, made.run_id)
    return made, record, storage.load_compressed(folder).get_input_embeddings().ids.tolist()


def test_characters_take_up_to_half_of_the_rows_and_frequent_tokens_the_others(run):
    made, _, ids = run
    whole = load_tokenizer(made.config.model)
    special = [token for token in ids if token in whole.all_special_ids]
    assert len(ids) == len(set(ids)) == 80
    assert {*special} == {*whole.all_special_ids} - {whole.pad_token_id}

    texts = load_split(made.config.task, made.config.data, "train")[made.config.task.columns[0]]
    tokens = [token for text in texts for token in whole(text, add_special_tokens=False)["input_ids"]]
    most = sorted(set(tokens), key=tokens.count)[-10:]  # the next are as frequent as one another
    pieces = [piece.removeprefix("##") for piece in whole.convert_ids_to_tokens(ids)]
    assert sum(len(piece) == 1 for piece in pieces) >= 40 and {*most} <= {*ids}


def test_all_texts_but_the_dense_models_are_spelled_with_the_tokens_that_have_rows(tiny, tmp_path):
    overrides = [
        *tiny,
        *TRIMMED,
        "recovery=distil",
        "recovery.steps=2",
        "recovery.batch_size=4",
        "keep_weights=true",
    ]
    made = prepare(compose_config(overrides))
    record = execute(made)
    folder = store.weights_folder(Path(made.config.results_dir), made.name, made.run_id)
    rows = {*storage.load_compressed(folder).get_input_embeddings().ids.tolist(), 0}
    found = [ids_in(path) <= rows for path in (tmp_path / "cache" / "tokenised").iterdir()]
    # The training rows with all tokens and with these, the recovery's text and the test.
    assert sorted(found) == [False, True, True, True]
    assert record["status"] == "ok" and record["recovery"]["reused"] is False
    assert record["task"]["splits"]["test"]["unknown"] < 0.02


def test_the_export_reads_texts_as_the_run_did(run, tiny, tmp_path):
    made, record, ids = run
    where = [word for word in tiny if "_dir=" in word or "path=" in word]
    assert main(["export", record["run_id"], *where, "--to", str(tmp_path / "out")]) == 0
    tokenizer, model = (
        AutoTokenizer.from_pretrained(tmp_path / "out"),
        bench.load_compressed(tmp_path / "out"),
    )
    shipped = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert record["size"]["tokenizer_bytes"] == (tmp_path / "out" / "tokenizer.json").stat().st_size
    assert len(shipped["model"]["vocab"]) == made.vocab_size

    rows, right = load_split(made.config.task, made.config.data, "test"), 0
    for text, label in zip(rows[made.config.task.columns[0]], rows["label"], strict=True):
        tokens = tokenizer(text, return_tensors="pt")
        assert {*tokens["input_ids"].flatten().tolist()} <= {*ids}
        with torch.no_grad():
            right += int(model(**tokens).logits.argmax()) == label
    assert right / len(rows["label"]) == pytest.approx(
        record["headline"]["value"], abs=2 / len(rows["label"])
    )


def test_a_teacher_reads_the_texts_with_all_tokens(tiny, tmp_path):
    taught = ["training.teacher=dense", f"cache_dir={tmp_path}/other"]
    execute(prepare(compose_config([*tiny, *TRIMMED, *taught])))
    (path,) = (tmp_path / "other" / "teachers").glob("*.safetensors")
    execute(prepare(compose_config([*tiny, "embedding=dense", "training.teacher=dense"])))
    (expected,) = (tmp_path / "cache" / "teachers").glob("*.safetensors")
    assert path.name == expected.name and (store.load_array(path) == store.load_array(expected)).all()


def test_a_pretraining_is_refused(tmp_path):
    words = ["model=bert-small-6x384", "pretraining=masked_lm", "pretraining.corpus=text", *TRIMMED]
    with pytest.raises(ConfigError, match="embedding=trimmed removes tokens"):
        prepare(compose_config(words))
