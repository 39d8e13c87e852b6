"""Coverage of a domain's text: rates counted by hand, the term that loses most, a wrong corpus."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.cli.main import main
from bench.models.tokenizers import load_tokenizer
from bench.probes.coverage import measure, words_of
from bench.settings.compose import compose_config
from bench.store import read_coverage
from tests.support.commands import call_bench


def test_rates_are_those_of_the_occurrences():
    words = Counter({("plain", (5,)): 6, ("split", (6, 7)): 3, ("strange", (1,)): 1})
    errors = np.linspace(0, 0.5, 100)
    errors[[5, 6, 7]] = 0.1, 0.9, 0.7
    found = measure(words, errors, unknown=1)
    expected = {
        "words": 10,
        "different_words": 3,
        "tokens_per_word": 1.3,
        "unknown_rate": 0.1,
        "split_rate": 0.3,
        "badly_fitted_rate": 6 / 13,
        "relative_error": (6 * 0.1 + 3 * 0.8 + errors[1]) / 10,
    }
    assert found.facts == pytest.approx(expected)
    assert list(found.terms.term) == ["split", "plain", "strange"]


def test_words_are_put_together_from_their_tokens():
    tokenizer = load_tokenizer(compose_config(["model=all-minilm-l6-v2"]).model)
    words = words_of(tokenizer, ["Thrombocytopenia, again: thrombocytopenia!", "☃ \U00013000x"])
    by_term = {term: (count, len(ids)) for (term, ids), count in words.items()}
    assert by_term["thrombocytopenia"][0] == 2 and by_term["thrombocytopenia"][1] > 1
    assert by_term["again"] == (1, 1)
    assert "," not in by_term


def test_the_command_writes_terms_and_rates(tiny, tmp_path):
    corpus = tmp_path / "Notes.txt"
    corpus.write_text("thrombocytopenia was seen\nnothing else was seen\n")
    done = call_bench(
        "coverage",
        "--corpus",
        str(corpus),
        *tiny,
        "assignment=pq",
        "embedding.subspaces=4",
        "embedding.rows=16",
    )
    assert done.returncode == 0, done.stderr
    assert "unknown_rate" in done.stdout
    [table] = (tmp_path / "results" / "coverage").glob("notes.txt-*--tiny--*.csv")
    terms = pd.read_csv(table)
    assert (
        set(terms.term) == {"thrombocytopenia", "was", "seen", "nothing", "else"}
        and (terms.loss.diff().dropna() <= 0).all()
    )
    [covered] = read_coverage(tmp_path / "results")
    assert (covered.corpus, covered.name.split("/")[0], covered.facts["words"]) == ("notes", "tiny", 7)
    assert covered.text == table.name.partition("--")[0]
    assert f"{covered.facts['unknown_rate']:,.4g}" in done.stdout
    assert "Terms that lose most" in table.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("\n \n", "is empty"), ("... !!!\n", "contains no words")],
)
def test_a_corpus_without_words_is_refused(
    content: str | None, words: str, tiny: list[str], tmp_path: Path, capsys
):
    if content is not None:
        (tmp_path / "c.txt").write_text(content)
    assert main(["coverage", "--corpus", str(tmp_path / "c.txt"), *tiny, "embedding=mean"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["coverage", "drift"])
def test_what_was_measured_of_other_texts_or_embeddings_stays(
    verb: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts of one name, in other folders, with other endings or changed in place; and the same text with another method."""
    (tmp_path / "reference.txt").write_text("the film was good\n" * 20)
    flags = (
        ["--corpus"] if verb == "coverage" else ["--reference", str(tmp_path / "reference.txt"), "--current"]
    )
    chosen = [
        *tiny,
        "assignment=pq",
        "embedding.subspaces=4",
        "embedding.rows=16",
        "assignment.frequency_power=1",
    ]
    limits = ["drift.divergence=1", "drift.unseen=1", "drift.error=99", "drift.unknown=1"]

    def files(text: str, content: str, *more: str) -> set[Path]:
        (tmp_path / text).parent.mkdir(exist_ok=True)
        (tmp_path / text).write_text(content * 20)
        assert main([verb, *flags, str(tmp_path / text), *chosen, *limits, *more]) == 0
        return {Path(line) for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))}

    first = files("a/notes.txt", "fever was seen\n")
    assert first and files("a/notes.txt", "fever was seen\n") == first, "the same text keeps its files"
    others = [
        files("b/notes.md", "fever was seen\n"),
        files("b/notes.txt", "nothing was seen\n"),
        files("a/notes.txt", "fever was seen, and pain\n"),
        files("a/notes.txt", "fever was seen\n", "embedding.rows=8"),
    ]
    assert len(first.union(*others)) == len(first) * 5
    if verb == "coverage":
        assert len(read_coverage(tmp_path / "results")) == 5


def test_splits_of_tasks_are_a_corpus_as_the_message_says(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpora = []
    for corpus in ("task", "lexical_sentiment:test+lexical_entailment:train"):
        assert main(["coverage", "--corpus", corpus, *tiny, "embedding=mean"]) == 0
        corpora.append(capsys.readouterr().out)
    assert corpora[0] != corpora[1]
