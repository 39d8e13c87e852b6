"""Runs with a trimmed vocabulary: every text they read, and every one their export reads, consists of tokens that have rows."""

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
from bench.probes.coverage import cover
from bench.probes.drift import Comparison
from bench.probes.fit import fits
from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.runs.side_by_side import execute_together
from bench.settings.compose import compose_config
from bench.tasks.data import load_split

TRIMMED = ["embedding=trimmed", "embedding.rows=80"]
QUICK = ["recovery=distil", "recovery.steps=60", "recovery.batch_size=16", "recovery.learning_rate=1e-3"]


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
    made = prepare(
        compose_config([*tiny, *TRIMMED, "training.max_train_examples=null", "keep_weights=true", *QUICK])
    )
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
    frequent = {piece for piece in whole.convert_ids_to_tokens(most) if len(piece) == 1}
    assert 40 <= sum(len(piece) == 1 for piece in pieces) <= 40 + len(frequent) and {*most} <= {*ids}


def test_all_texts_but_a_dense_teachers_are_tokenised_with_the_tokens_that_have_rows(tiny, tmp_path):
    made = prepare(compose_config([*tiny, *TRIMMED, "training.teacher=dense", "keep_weights=true"]))
    record = execute(made)
    folder = store.weights_folder(Path(made.config.results_dir), made.name, made.run_id)
    rows = {*storage.load_compressed(folder).get_input_embeddings().ids.tolist(), 0}
    # The training rows with all tokens and with these, and the test.
    assert sorted(ids_in(path) <= rows for path in (tmp_path / "cache" / "tokenised").iterdir()) == [
        False,
        True,
        True,
    ]
    assert record["status"] == "ok" and record["task"]["splits"]["test"]["unknown"] < 0.02
    assert record["fit"]["relative_error"] is None


def test_a_trimmed_model_reads_as_much_of_each_text_as_the_dense_one(tiny):
    short = [*tiny, "training.max_length=6"]
    dense = execute(prepare(compose_config([*short, "embedding=dense"])))
    trimmed = execute(prepare(compose_config([*short, *TRIMMED])))
    for role in ("train", "test"):
        share = dense["task"]["splits"][role]["truncated"]
        assert trimmed["task"]["splits"][role]["truncated"] == share > 0.3


def test_a_recovery_by_removed_tokens_is_refused(tiny):
    with pytest.raises(ConfigError, match="recovery=masked_lm predicts all tokens .* use recovery=distil"):
        prepare(compose_config([*tiny, *TRIMMED, "recovery=masked_lm"]))


def test_a_recovery_brings_texts_nearer_to_the_dense_models(tiny, tmp_path):
    made = [
        prepare(compose_config([*tiny, "embedding=trimmed", f"embedding.rows={rows}", *QUICK]))
        for rows in (60, 80)
    ]
    made.append(prepare(compose_config([*tiny, *TRIMMED, *QUICK, "recovery.seed=1"])))
    together = execute_together([*made, prepare(compose_config([*tiny, "embedding=subspace", *QUICK]))])
    for record in together:
        losses = [loss for _, loss in record["recovery"]["curve"]]
        assert record["status"] == "ok" and losses[-1] < 0.8 * losses[0]
    assert [record["recovery"]["runs_at_once"] for record in together] == [1, 2, 2, 1], (
        "other tokens, other steps"
    )

    elsewhere = [f"results_dir={tmp_path}/alone", f"cache_dir={tmp_path}/elsewhere"]
    words = [word for word in tiny if "_dir=" not in word]
    alone = execute(prepare(compose_config([*words, *elsewhere, *TRIMMED, *QUICK])))
    assert alone["recovery"]["curve"] == together[1]["recovery"]["curve"]
    assert alone["training"]["curve"] == together[1]["training"]["curve"]


def test_a_recovery_reads_as_much_of_each_passage_as_the_dense_model(tiny, tmp_path):
    made = prepare(compose_config([*tiny, *TRIMMED, *QUICK, "recovery.max_length=6", "recovery.steps=2"]))
    execute(made)
    own = load_tokenizer(made.config.model)
    read = []
    for path in (tmp_path / "cache" / "tokenised").iterdir():
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if "label" not in table.column_names:  # a text without labels
            rows = [own.convert_ids_to_tokens(ids[1:-1]) for ids in table["input_ids"].to_pylist()]
            read.append(["".join(row).replace("##", "") for row in rows])
    known = [pair for pair in zip(*read, strict=True) if "[UNK]" not in "".join(pair)]
    assert len(known) > 40 and all(one == other for one, other in known)


def test_a_run_beside_others_is_the_run_alone(tiny, tmp_path):
    def made(*keys):
        return prepare(compose_config([*tiny, *keys]))

    together = execute_together([made(*TRIMMED), made("embedding=dense")])
    alone = execute(made(*TRIMMED, f"results_dir={tmp_path}/alone"))
    assert together[0]["metrics"] == alone["metrics"] and together[0]["task"] == alone["task"]
    assert (
        together[0]["size"] == alone["size"]
        and together[1]["size"]["tokenizer_bytes"] != alone["size"]["tokenizer_bytes"]
    )


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


def test_fit_coverage_and_drift_weigh_the_tokens_that_texts_consist_of(tiny, tmp_path):
    """These have the dense model's vectors, which none of the removed tokens has."""
    made = prepare(compose_config([*tiny, *TRIMMED]))
    (fit,) = fits([made])
    assert fit["weighted_error"] < 1e-6 < 0.1 < fit["relative_error"]
    coverage, _ = cover(made, "task")
    assert coverage.facts["relative_error"] < 1e-6 and coverage.facts["unknown_rate"] < 0.05
    assert coverage.facts["tokens_per_word"] > 1.5
    comparison = Comparison(made.config, "task", "task")
    facts = comparison.facts(comparison.made_for(comparison.reference)[0], comparison.current)
    assert facts["weighted_error"] < 1e-6 and facts["tokens"] > comparison.current.counts.sum()


def test_a_pretraining_is_refused(tmp_path):
    words = ["model=bert-small-6x384", "pretraining=masked_lm", "pretraining.corpus=text", *TRIMMED]
    with pytest.raises(ConfigError, match="embedding=trimmed removes tokens"):
        prepare(compose_config(words))
