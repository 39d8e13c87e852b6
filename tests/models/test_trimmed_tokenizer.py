"""A trimmed tokenizer tokenises as one that was made of the remaining tokens alone, under the ids that they had."""

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
from bench.models.trimmed_tokenizer import character_counts, trimmed_tokenizer, with_ancestors

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
        scores = [(token, -float(vocabulary(kind).index(token) ** 2 % 23)) for token in tokens]
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
def test_texts_are_tokenised_with_the_remaining_tokens(kind, texts, removed):
    tokens = vocabulary(kind)
    if kind == "BPE":
        removed = removed - {5, 6, 7}  # characters, which keep their names
    kept = [place for place in range(len(tokens)) if place not in removed]
    whole = tokenizer(kind, tokens)
    before = whole(texts)["input_ids"]
    found = trimmed_tokenizer(whole, trimmed(len(tokens), kept[1:]))

    small = tokenizer(kind, [tokens[place] for place in kept])
    assert found(texts)["input_ids"] == [[kept[token] for token in ids] for ids in small(texts)["input_ids"]]
    assert whole(texts)["input_ids"] == before  # of a copy
    assert len(found) == len(whole) and found.pad_token_id == 0


def test_a_removed_character_of_bpe_keeps_its_id():
    tokens = vocabulary("BPE")  # the ids of a, b and ab are 5, 6 and 8
    found = trimmed_tokenizer(tokenizer("BPE", tokens), trimmed(len(tokens), [1, 6, 8]))
    assert found(["ab", "ba"])["input_ids"] == [[8], [6, 5]]


@given(counts=st.lists(st.integers(0, 9), min_size=8, max_size=8), number=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_the_most_frequent_tokens_of_bpe_can_all_be_merged(counts, number):
    tokens = vocabulary("BPE")
    raised = with_ancestors(tokenizer("BPE", tokens), np.array([0] * 5 + counts))
    assert (raised[5:] >= counts).all() and raised.max() == max(counts)
    most = {tokens[place] for place in np.argsort(-raised[5:], kind="stable")[:number] + 5}
    reached = {piece for piece in most if len(piece) == 1}
    for pair in MERGES:
        if {*pair} <= reached and "".join(pair) in most:
            reached.add("".join(pair))
    assert reached == most

    tokens = vocabulary("WordPiece")
    counts = np.arange(len(tokens))
    assert (with_ancestors(tokenizer("WordPiece", tokens), counts) == counts).all()


def test_merges_are_named_without_the_prefix_of_their_second_part():
    ids = {token: place for place, token in enumerate([*SPECIAL, "a", "##a", "##b", "ab"])}
    made = Tokenizer(models.BPE(ids, [("a", "##b")], unk_token="[UNK]", continuing_subword_prefix="##"))
    whole = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    found = trimmed_tokenizer(whole, trimmed(len(ids), list(range(1, len(ids)))))
    assert found("ab aab")["input_ids"] == whole("ab aab")["input_ids"]


def test_an_embedding_that_has_all_tokens_changes_no_tokenizer():
    whole = tokenizer("WordPiece", vocabulary("WordPiece"))
    assert trimmed_tokenizer(whole, nn.Embedding(21, 2)) is whole


def test_kept_tokens_are_used_too():
    tokens = vocabulary("WordPiece")
    kept = Kept(trimmed(len(tokens), [1, tokens.index("a"), tokens.index("##b")]), 1)
    whole = tokenizer("WordPiece", tokens)
    for piece, expected in (("abc", ["abc"]), ("cab", ["[UNK]"])):
        kept.set_integers("kept_ids", np.array([tokens.index(piece)]))
        found = trimmed_tokenizer(whole, kept)
        assert found.convert_ids_to_tokens(found("abc ab")["input_ids"]) == [*expected, "a", "##b"]


def test_another_algorithm_is_refused(monkeypatch):
    whole = tokenizer("WordPiece", vocabulary("WordPiece"))
    monkeypatch.setattr(
        "bench.models.trimmed_tokenizer.compact_json",
        lambda _: '{"model": {"type": "Other"}, "added_tokens": []}',
    )
    with pytest.raises(ConfigError, match="embedding=trimmed.* is a Other, not one of Unigram"):
        trimmed_tokenizer(whole, trimmed(21, [1, 5]))


def test_a_tokenizer_without_an_unknown_token_is_refused():
    whole = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    with pytest.raises(ConfigError, match="embedding=trimmed.* has no unknown token"):
        trimmed_tokenizer(whole, trimmed(2, [1]))


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
