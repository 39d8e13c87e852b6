"""Roles in several languages and roles with hidden labels: each answered, stored, and scored where it can be."""

import datasets
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from bench import store
from bench.runs.execute import run
from bench.settings.compose import compose_config

SENTENCES = ["a man sleeps", "nobody sleeps", "ein Mann schläft", "a dog runs"]


def write(path, rows, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [SENTENCES[i % 4] + f" {i}" for i in range(rows)]
    columns = {"premise": texts, "hypothesis": texts[::-1], "label": labels}
    datasets.Dataset.from_dict(columns).to_parquet(path)


@pytest.fixture
def nli(tmp_path):
    root = tmp_path / "data"
    write(root / "glue/mnli/train.parquet", 48, [i % 3 for i in range(48)])
    write(root / "glue/mnli/validation_matched.parquet", 9, [i % 3 for i in range(9)])
    write(root / "glue/ax/test.parquet", 7, [-1] * 7)
    for number, language in enumerate(("en", "de", "sw")):
        write(root / f"xnli/{language}/test.parquet", 12, [(i + number) % 3 for i in range(12)])
    return root


def test_one_model_is_scored_in_every_language(tiny, tiny_model, nli, tmp_path):
    overrides = [o for o in tiny if not o.startswith("task=")]
    record = run(
        compose_config(
            [*overrides, "task=xnli", "task.languages=[en,de,sw]", "embedding=dense", f"data.root={nli}"]
        )
    )
    assert record["status"] == "ok", record["error"]
    metrics = record["metrics"]
    assert set(metrics) == {"test", "test/en", "test/de", "test/sw"}
    folder = tmp_path / "results" / "predictions" / f"{record['name']}-{record['run_id']}"
    right = {}
    for number, language in enumerate(("en", "de", "sw")):
        stored = store.read_predictions(folder, f"test/{language}")
        right[language] = np.mean(stored == [(i + number) % 3 for i in range(12)])
        assert metrics[f"test/{language}"]["accuracy"] == pytest.approx(right[language])
    assert record["headline"]["value"] == pytest.approx(np.mean(list(right.values())))
    assert metrics["test"]["gap"] == pytest.approx(right["en"] - (right["de"] + right["sw"]) / 2)

    # The tokens, counted by the tokenizer itself.
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [SENTENCES[i % 4] + f" {i}" for i in range(12)]
    ids = [id for text in texts for id in tokenizer(text, add_special_tokens=False)["input_ids"]]
    used = {"rows": 12, "tokens": 2 * len(ids), "distinct_tokens": len(set(ids))}
    splits = record["task"]["splits"]
    assert splits["test"]["languages"] == dict.fromkeys(("en", "de", "sw"), used)
    assert "languages" not in splits["train"]


def test_a_language_that_cannot_be_scored_stops_the_run_before_it_trains(tiny, nli, tmp_path):
    write(nli / "xnli/sw/test.parquet", 12, [7] * 12)
    overrides = [o for o in tiny if not o.startswith("task=")]
    record = run(
        compose_config(
            [*overrides, "task=xnli", "task.languages=[en,de,sw]", "embedding=dense", f"data.root={nli}"]
        )
    )
    assert record["status"] == "failed" and "labels from 7 to 7" in record["error"]["message"]
    assert record["training"] is None and not list((tmp_path / "results/predictions").rglob("*.safetensors"))


def test_hidden_labels_are_predicted_and_not_scored(tiny, nli, tmp_path):
    overrides = [o for o in tiny if not o.startswith("task=")]
    record = run(compose_config([*overrides, "task=ax", "embedding=dense", f"data.root={nli}"]))
    assert record["status"] == "ok", record["error"]
    assert set(record["metrics"]) == {"mnli:validation_matched"}
    assert record["task"]["splits"]["test"]["rows"] == 7
    folder = tmp_path / "results" / "predictions" / f"{record['name']}-{record['run_id']}"
    assert len(load_file(folder / "test.safetensors")["predictions"]) == 7
