"""The `lexical` demo suite, generated without any download: does a compressed embedding still know what words mean?

No word occurs in two splits. Fine-tuning cannot teach the test words, so the embedding has to know them. Only the word
gives the label away: every premise, hypothesis and template has both labels equally often.
"""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.errors import ConfigError, unknown

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")


def generate(name: str) -> dict[str, list[Row]]:
    """Return the splits of a lexical task as rows {text columns, label, idx}, in a fixed random order.

    Raises ConfigError for an unknown task.
    """
    makers = {"lexical_entailment": _entailment, "lexical_sentiment": _sentiment}
    if name not in makers:
        raise ConfigError(unknown("lexical task", name, makers))
    spec = _declaration()[name]
    splits: dict[str, list[Row]] = {}
    for split in SPLITS:
        rows = list(makers[name](spec, split))
        random.Random(f"{name}/{split}").shuffle(rows)
        splits[split] = [{**row, "idx": idx} for idx, row in enumerate(rows)]
    return splits


@cache
def _declaration() -> dict[str, Any]:
    text = Path(__file__).with_name("lexical_words.yaml").read_text(encoding="utf-8")
    declared: dict[str, Any] = yaml.safe_load(text)
    return declared


def _words(listed: str, counts: dict[str, int], split: str) -> list[str]:
    """Return a split's words after a fixed shuffle: the lists begin with their commonest words."""
    words = listed.split()
    random.Random(" ".join(words)).shuffle(words)
    start = sum(counts[earlier] for earlier in SPLITS[: SPLITS.index(split)])
    return words[start : start + counts[split]]


def _phrase(word: str, bare: bool = False) -> str:
    """Return the word with its article; the lists have no word whose first letter misleads ("hour", "uniform")."""
    return word if bare else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _entailment(spec: dict[str, Any], split: str) -> Iterator[Row]:
    """Yield pairs: "he dreamed of a dog" entails (0) "he dreamed of an animal", not (1) "he dreamed of a vehicle".

    `turn` fixes the template and the shift to the wrong category for all categories at once, and a cyclic shift is a
    permutation: so each hypothesis, like each premise, occurs with both labels equally often.
    """
    categories, templates = spec["categories"], spec["templates"]
    names, uses = list(categories), spec["uses"][split]
    for at, (name, category) in enumerate(categories.items()):
        for turn, word in enumerate(
            w for w in _words(category["words"], spec["words"], split) for _ in range(uses)
        ):
            template = templates[turn % len(templates)]
            other = names[(at + 1 + turn % (len(names) - 1)) % len(names)]
            premise = template.format(_phrase(word, category["bare"]))
            for label, hypernym in enumerate((name, other)):
                yield {"premise": premise, "hypothesis": template.format(_phrase(hypernym)), "label": label}


def _sentiment(spec: dict[str, Any], split: str) -> Iterator[Row]:
    """Yield sentences with a negative (0) or a positive (1) word, each template with both labels equally often."""
    uses = spec["uses"][split]
    for kind in spec["kinds"].values():
        for label, polarity in enumerate(("negative", "positive")):
            words = _words(kind[polarity], spec["words"], split)
            for turn, word in enumerate(w for w in words for _ in range(uses)):
                yield {
                    "sentence": kind["templates"][turn % len(kind["templates"])].format(word),
                    "label": label,
                }
