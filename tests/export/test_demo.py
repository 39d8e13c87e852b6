"""`bench demo`: sentences as a dense and a compressed model judge them, with what their records say."""

import re

import pytest
import torch
import yaml

from bench.cli.main import main
from bench.export import demo, source
from bench.models import storage
from bench.models.tokenizers import load_tokenizer
from tests.support.commands import ROOT

SUBSPACES = "?embedding.subspaces=12"  # of the tiny model's width


@pytest.fixture
def shown(tiny, tmp_path, capsys) -> str:
    assert main(["demo", "model=all-minilm-l6-v2", *tiny, SUBSPACES]) == 0
    return capsys.readouterr().out


def test_the_table_says_what_the_models_say(shown, tiny):
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if "│" in line
    ]
    kinds = (
        ["embedding=dense"],
        ["embedding=subspace", "assignment=pq", "embedding.subspaces=12", "embedding.rows=60"],
    )
    runs = [source.described([*kind, *tiny, "training.learning_rate=1e-4"]) for kind in kinds]
    for column, (prepared, record) in enumerate(runs, 2):
        assert record is not None  # the demo has trained and recorded it
        model = storage.load_compressed(source.weights(prepared, record, train=False)[0])
        tokenizer = load_tokenizer(prepared.config.model)
        for text, label, *cells in lines[:10]:
            with torch.inference_mode():
                logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
            said = prepared.config.task.labels[logits.argmax()]
            words = f"{said}, {100 * logits.softmax(-1).max().item():.0f} %"
            assert cells[column - 2] == words + ("" if said == label else ": wrong")
        facts = {fact: cells[column - 1] for fact, *cells in lines[10:]}
        assert facts["embedding"].startswith(f"{record['size']['embedding_bytes'] / 1e6:,.1f} MB")
        assert (
            facts["right, of the 432 English test sentences"] == f"{100 * record['headline']['value']:.1f} %"
        )
        right = sum("wrong" not in line[column] for line in lines[:10])
        assert facts["right, of these"] == f"{right} of 10"


def test_a_second_time_nothing_is_trained(shown, tiny, caplog, capsys):
    assert main(["demo", "model=all-minilm-l6-v2", *tiny, SUBSPACES]) == 0
    changing = re.compile(r"[\d.]+ ms|[ ─━]+")  # times, and the widths that columns have by them
    assert (
        changing.sub(" ", capsys.readouterr().out) == changing.sub(" ", shown) and "step" not in caplog.text
    )


def test_an_encoder_without_a_demonstration_is_refused(capsys):
    assert main(["demo", "model=xlm-r-base"]) == 2
    assert "Unknown model of the demo 'xlm-r-base'." in capsys.readouterr().err


def test_an_encoder_that_is_not_installed_is_named(capsys, tmp_path):
    overrides = ["model.path=gt_of_nobody/model", f"cache_dir={tmp_path}"]
    assert main(["demo", *overrides]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} is not shown: " in shown for name in ("all-minilm-l6-v2", "multilingual-e5-small"))
    assert main(["demo", "model=all-minilm-l6-v2", *overrides]) == 3


def test_the_sentences_are_five_languages_with_a_good_and_a_bad_one_each():
    declared = yaml.safe_load((ROOT / "bench/export/demo.yaml").read_text())
    sentences = declared["shows"][1]["sentences"]
    assert [label for _, label in sentences] == ["negative", "positive"] * 5
    assert len(sentences) == demo.SENTENCES == len({text for text, _ in sentences})
