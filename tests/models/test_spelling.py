"""A trimmed vocabulary spells as a tokenizer that was made of its tokens alone does, under the ids that they had."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from bench.embeddings.trimmed import TrimmedEmbedding
from bench.embeddings.wrappers import Kept
from bench.errors import ConfigError
from bench.models.spelling import character_counts, spelled

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["a", "b", "c", "ab", "bc", "abc", "cab", "bb"]
MERGES = [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "ab"), ("b", "b")]
TEXTS = st.lists(st.text("abc ", max_size=12), min_size=1, max_size=4)


def vocabulary(kind):
    """Return every token, the special ones first; WordPiece has two forms of each piece."""
    inside = [f"##{piece}" for piece in PIECES] if kind == "WordPiece" else []
    return [*SPECIAL, *PIECES, *inside]


def tokenizer(kind, tokens):
    """Return a tokenizer of these tokens, whose ids are their places."""
    ids = {token: place for place, token in enumerate(tokens)}
    if kind == "Unigram":
        scores = [(token, -float(1 + vocabulary(kind).index(token) % 7)) for token in tokens]
        made = Tokenizer(models.Unigram(scores, unk_id=1))
    elif kind == "WordPiece":
        made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    elif kind == "BPE":
        merges = [pair for pair in MERGES if {*pair, "".join(pair)} <= ids.keys()]
        made = Tokenizer(models.BPE(ids, merges, unk_token="[UNK]"))
    else:
        made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{word[1:-1].lower()}_token": word for word in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def trimmed(vocab_size, ids):
    layer = TrimmedEmbedding(vocab_size, 2, len(ids), 0)
    layer.set_integers("ids", np.array(ids))
    return layer


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "WordLevel", "BPE"])
@given(texts=TEXTS, removed=st.sets(st.integers(5, 20)))
@settings(max_examples=60, deadline=None)
def test_texts_are_spelled_with_the_tokens_that_are_left(kind, texts, removed):
    tokens = vocabulary(kind)
    if kind == "BPE":  # all tokens that lead to a kept one stay
        for pair in reversed(MERGES):
            if tokens.index("".join(pair)) not in removed:
                removed = removed - {tokens.index(part) for part in pair}
    left = [place for place in range(1, len(tokens)) if place not in removed]
    whole = tokenizer(kind, tokens)
    before = whole(texts)["input_ids"]
    own = spelled(whole, trimmed(len(tokens), left))

    small = tokenizer(kind, [token for place, token in enumerate(tokens) if place not in removed])
    expected = [
        [tokens.index(token) for token in map(small.convert_ids_to_tokens, ids)]
        for ids in small(texts)["input_ids"]
    ]
    found = own(texts)["input_ids"]
    if kind == "BPE":  # a character keeps its id, whose row is the unknown token's
        found = [[token if token in left else 1 for token in ids] for ids in found]
    assert found == expected
    assert whole(texts)["input_ids"] == before  # of a copy
    assert len(own) == len(whole) and own.pad_token_id == 0


def test_a_token_on_the_way_to_a_kept_one_is_merged_though_it_has_no_row():
    tokens = vocabulary("BPE")
    left = [1, *(tokens.index(piece) for piece in ("a", "b", "c", "abc"))]
    own = spelled(tokenizer("BPE", tokens), trimmed(len(tokens), left))
    assert own.convert_ids_to_tokens(own("abc ab bc")["input_ids"]) == ["abc", "ab", "b", "c"]


def test_an_embedding_that_has_all_tokens_changes_no_tokenizer():
    whole = tokenizer("WordPiece", vocabulary("WordPiece"))
    assert spelled(whole, nn.Embedding(21, 2)) is whole


def test_kept_tokens_are_spelled_with_too():
    tokens = vocabulary("WordPiece")
    kept = Kept(trimmed(len(tokens), [1, tokens.index("a"), tokens.index("##b")]), 1)
    whole = tokenizer("WordPiece", tokens)
    for piece, expected in (("abc", ["abc"]), ("cab", ["[UNK]"])):
        kept.set_integers("kept_ids", np.array([tokens.index(piece)]))
        own = spelled(whole, kept)
        assert own.convert_ids_to_tokens(own("abc ab")["input_ids"]) == [*expected, "a", "##b"]


def test_another_algorithm_is_refused(monkeypatch):
    whole = tokenizer("WordPiece", vocabulary("WordPiece"))
    monkeypatch.setattr(
        "bench.models.spelling.compact_json", lambda _: '{"model": {"type": "Other"}, "added_tokens": []}'
    )
    with pytest.raises(ConfigError, match="embedding=trimmed.* is a Other"):
        spelled(whole, trimmed(21, [1, 5]))


def test_characters_are_counted_as_the_tokenizer_would_write_them():
    tokens = vocabulary("WordPiece")
    counts = np.zeros(len(tokens), np.int64)
    counts[[tokens.index("abc"), tokens.index("##bb"), tokens.index("[CLS]"), tokens.index("c")]] = 2, 3, 9, 5
    expected = {"a": 2, "##b": 2 + 6, "##c": 2, "c": 5}
    found = character_counts(tokenizer("WordPiece", tokens), counts)
    assert {tokens[place]: found[place] for place in found.nonzero()[0]} == expected

    tokens = vocabulary("Unigram")
    counts = np.zeros(len(tokens), np.int64)
    counts[[tokens.index("abc"), tokens.index("bb")]] = 2, 3
    found = character_counts(tokenizer("Unigram", tokens), counts)
    assert {tokens[place]: found[place] for place in found.nonzero()[0]} == {"a": 2, "b": 8, "c": 2}
