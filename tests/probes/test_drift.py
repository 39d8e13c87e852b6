"""Drift of live text: measures by hand, the limits with both values; new codes fit the text better, and come back from their file."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.torch import load_file

from bench.cli.main import main
from bench.models import pretrained
from bench.models.tokenizers import load_tokenizer
from bench.probes.drift import divergence, unseen_rate
from bench.probes.fit import errors
from bench.settings.compose import compose_config
from bench.tasks.text import token_counts
from tests.support.reference import configured, empty

NEWS = [
    "the minister spoke about the budget",
    "the market fell again today",
    "voters went to the polls",
    "a storm reached the coast",
]
CLINIC = [
    "the patient was given heparin",
    "platelets fell below the range",
    "no fracture was seen in the femur",
    "dialysis was begun at night",
]


@pytest.fixture
def text(tmp_path):
    def write(name, sentences, count=300, seed=0):
        path = tmp_path / name
        words = [word for sentence in sentences for word in sentence.split()]
        rng = np.random.default_rng(seed)
        path.write_text("\n".join(" ".join(rng.choice(words, 8)) for _ in range(count)))
        return str(path)

    return write


@pytest.fixture
def pq(tiny):
    return [
        *tiny,
        "assignment=pq",
        "embedding.subspaces=4",
        "embedding.rows=16",
        "assignment.frequency_power=1",
    ]


def test_measures_are_those_of_the_definitions():
    p, q = np.array([8, 2, 0]), np.array([0, 1, 3])
    m = (p / 10 + q / 4) / 2
    expected = sum(
        0.5 * a * np.log2(a / b) for side in (p / 10, q / 4) for a, b in zip(side, m, strict=True) if a
    )
    assert (
        divergence(p, q) == pytest.approx(expected)
        and divergence(p, 7 * p) == 0
        and divergence(p, np.array([0, 0, 5])) == 1
    )
    assert unseen_rate(p, q) == 0.75


def test_the_same_kind_of_text_passes_and_another_names_each_limit_with_both_values(
    text, pq, tmp_path, capsys
):
    reference = text("news.txt", NEWS)
    assert (
        main(["drift", "--reference", reference, "--current", text("later.txt", NEWS, 40, seed=1), *pq]) == 0
    )
    assert "is exceeded" not in capsys.readouterr().out
    assert main(["drift", "--reference", reference, "--current", text("clinic.txt", CLINIC), *pq]) == 1
    said = capsys.readouterr().out
    for key, limit in (("divergence", "0.1"), ("unseen", "0.05"), ("error", "0.1")):
        (line,) = [
            line for line in said.splitlines() if line.startswith(f"drift.{key} ({limit}) is exceeded: ")
        ]
        assert float(line.split(": ")[1].split()[0]) > float(limit)
    [page] = (path.read_text() for path in (tmp_path / "results/drift").glob("tiny--clinic.txt-*.md"))
    assert "drift.unseen (0.05) is exceeded" in page and str(tmp_path) not in page
    high = ["drift.divergence=1", "drift.unseen=1", "drift.error=99"]
    assert (
        main(["drift", "--reference", reference, "--current", str(tmp_path / "clinic.txt"), *pq, *high]) == 0
    )


@pytest.mark.parametrize("more", [[], ["embedding.code_rows=100", "embedding.keep_dense=5"]])
def test_new_codes_fit_the_current_text_better_and_come_back_from_their_file(
    text, pq, tmp_path, capsys, more
):
    files = ["--reference", text("news.txt", NEWS), "--current", text("clinic.txt", CLINIC)]
    assert main(["reassign", *files, *pq, *more]) == 0
    assert f"assignment.corpus={tmp_path}/clinic.txt" in capsys.readouterr().out
    [stem] = (tmp_path / "results/reassigned").glob("tiny--clinic.txt-*--news.txt-*.md")
    facts = json.loads(stem.with_suffix(".json").read_text())
    assert facts["after"]["weighted_error"] < 0.8 * facts["before"]["weighted_error"]
    assert {key: facts["after"][key] for key in ("tokens", "split_rate")} == {
        key: facts["before"][key] for key in ("tokens", "split_rate")
    }
    content = stem.with_suffix(".safetensors")
    assert hashlib.sha256(content.read_bytes()).hexdigest() == facts["sha256"]
    config = compose_config(pq)
    model, tokenizer = pretrained.load_model(config.model, "none"), load_tokenizer(config.model)
    settings = configured(
        **{
            key: value
            for key, value in facts["config"]["embedding"].items()
            if key not in ("version", "corpus")
        }
    )
    module = empty(settings, 30522, 24, tokenizer.pad_token_id)
    module.load_state_dict(load_file(content))
    counts = token_counts(tokenizer, (tmp_path / "clinic.txt").read_text().splitlines(), 30522)
    again = errors(module, pretrained.table(model), counts, tokenizer.pad_token_id)
    assert again["weighted_error"] == pytest.approx(facts["after"]["weighted_error"], rel=1e-6)


def test_new_codes_that_fit_no_better_are_not_recommended(text, pq, capsys):
    same = text("news.txt", NEWS)
    assert main(["reassign", "--reference", same, "--current", same, *pq]) == 0
    said = capsys.readouterr().out
    assert "it fits the current text no better (weighted_error" in said and "to train with it" not in said


def test_an_embedding_that_reads_no_text_cannot_be_reassigned(text, tiny, capsys):
    files = ["--reference", text("news.txt", NEWS), "--current", text("clinic.txt", CLINIC)]
    assert main(["reassign", *files, *tiny, "assignment=pq"]) == 2
    assert "assignment=pq is made without any text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("\n \n", "is empty"),
        ("the market fell\n" * 19, "has 19 of the 20 passages that it takes"),
        ("\U00013000\U00013001 \U00013002\n", "are unknown to the model's tokenizer"),
    ],
)
def test_a_text_that_the_model_cannot_read_is_refused(content, words, text, pq, tmp_path, capsys):
    current = tmp_path / "current.txt"
    if content is not None:
        current.write_text(content)
    assert main(["drift", "--reference", text("news.txt", NEWS), "--current", str(current), *pq]) == 2
    error = capsys.readouterr().err
    assert f"--current ({current})" in error and words in error
    assert (
        main(["drift", "--reference", text("news.txt", NEWS), *pq]) == 2
        and "--current is not set" in capsys.readouterr().err
    )
