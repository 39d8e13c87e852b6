"""A tokenizer that does not fit its model is refused before training; what it cannot read is recorded."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from bench.errors import BenchError
from bench.models.architectures import placeholder_tokenizer
from bench.models.tokenizers import load_tokenizer, unknown_share
from bench.runs.execute import run
from bench.settings.compose import compose_config
from bench.settings.schema import ModelConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_vocabulary(folder: Path, words: list[str], rows: int = 30522) -> None:
    """Replace the folder's tokenizer by a tokenizer of these words, padded to as many tokens as the table has rows."""
    for path in folder.glob("*token*"):
        path.unlink()
    filled = [*SPECIAL, *words, *(f"unused{i}" for i in range(rows))][:rows]
    (folder / "vocab.txt").write_text("\n".join(filled) + "\n")


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model, 30,522 rows, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def no_files(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def no_vocabulary(folder: Path) -> None:
    no_files(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}')


def cut_short(folder: Path) -> None:
    write_vocabulary(folder, [], rows=13_000)


def damaged(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def longer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["covidlike"])
    tokenizer.save_pretrained(folder)


def another_models(folder: Path) -> None:
    write_vocabulary(folder, [], rows=50_265)


def plain(folder: Path, **special: str) -> None:
    """Replace the folder's tokenizer by a tokenizer with the same tokens and only these special tokens."""
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.no_padding()  # or transformers takes the padding token from there
    no_files(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_files, "has 5 tokens for a table of 30,522 rows"),
        (no_vocabulary, "has 5 tokens for a table of 30,522 rows"),
        (cut_short, "has 13,000 tokens for a table of 30,522 rows"),
        (damaged, r"cannot be loaded \(AutoTokenizer: "),
        (longer, "ids up to 30,522, but the table has 30,522 rows"),
        (another_models, "ids up to 50,264, but the table has 30,522 rows"),
        (plain, "no padding token"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_tokenizer_that_does_not_fit_the_table_is_refused(
    folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(folder)
    with pytest.raises(BenchError, match=said) as refused:
        load_tokenizer(ModelConfig(name="m", source="local", path=str(folder)))
    assert str(folder) in str(refused.value)


def test_a_table_may_have_more_rows_than_the_tokenizer_has_tokens(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 30_592}))  # a multiple of 64
    assert len(load_tokenizer(ModelConfig(name="m", source="local", path=str(folder)))) == 30_522


@pytest.mark.parametrize(
    ("damage", "overrides", "said"),
    [
        (longer, [], "ids up to 30,522"),
        (lambda _: None, ["training.max_length=2"], "training.max_length (2) leaves no room for text"),
        (
            lambda _: None,
            ["task=lexical_entailment", "training.max_length=4"],
            "training.max_length (4) leaves no room for text",
        ),
        (
            lambda _: None,
            ["recovery=distil", "recovery.max_length=2"],
            "recovery.max_length (2) leaves no room for text",
        ),
    ],
)
def test_a_run_ends_before_it_trains_what_its_tokenizer_cannot_serve(
    tiny: list[str], folder: Path, damage: Callable[[Path], None], overrides: list[str], said: str
) -> None:
    damage(folder)
    record = run(compose_config([*tiny, "embedding=dense", f"model.path={folder}", *overrides]))
    assert record["status"] == "failed" and said in record["error"]["message"]
    assert record["training"] is None


def test_a_masked_lm_needs_a_mask(tiny: list[str], folder: Path) -> None:
    BertForMaskedLM(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    plain(folder, pad_token="[PAD]")
    record = run(compose_config([*tiny, "embedding=dense", f"model.path={folder}", "recovery=masked_lm"]))
    assert record["status"] == "failed" and "mask token" in record["error"]["message"]


def test_the_unknown_share_counts_text_and_not_special_tokens(folder: Path) -> None:
    write_vocabulary(folder, ["a", "dog", "sleeps"])
    tokenizer = load_tokenizer(ModelConfig(name="m", source="local", path=str(folder)))
    ids = torch.tensor(tokenizer("a dog sleeps deeply")["input_ids"])
    assert unknown_share(tokenizer, ids) == 1 / 4


def test_a_text_that_the_tokenizer_cannot_read_is_recorded_and_logged(
    tiny: list[str], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_vocabulary(folder, [])
    with caplog.at_level(logging.WARNING, "bench"):
        record = run(compose_config([*tiny, "embedding=dense", f"model.path={folder}"]))
    assert record["status"] == "ok", record["error"]
    assert record["task"]["splits"]["train"]["unknown"] == 1
    assert "100 % of the training tokens are unknown" in caplog.text


def test_the_false_alarm_about_a_regex_of_mistral_is_not_shown(tmp_path: Path, caplog) -> None:
    placeholder_tokenizer(0, 100_001).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 100_001}))  # without a model type
    transformers.logging.set_verbosity_warning()
    AutoTokenizer.from_pretrained(tmp_path)
    assert "incorrect regex pattern" in caplog.text  # transformers still says it
    caplog.clear()
    load_tokenizer(ModelConfig(source="local", path=str(tmp_path), vocab_size=100_001, width=8))
    assert caplog.text == ""
