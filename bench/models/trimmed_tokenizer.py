"""The tokenizer of a model with a trimmed vocabulary: texts are tokenised with the remaining tokens.

Abdaoui, Pradel & Sigel, "Load What You Need" (SustaiNLP 2020), remove tokens and let the tokenizer make do with the rest. Here the
remaining tokens keep their ids, so that the embedding stays a drop-in replacement and the tokenizer's file keeps its length.
"""

import copy
import json
from typing import Any, cast

import numpy as np
import tokenizers
from torch import nn
from transformers import PreTrainedTokenizerBase

from bench.embeddings.layer import CompressedEmbedding
from bench.errors import ConfigError
from bench.models.tokenizers import compact_json

KINDS = ("Unigram", "WordPiece", "WordLevel", "BPE")


def trimmed_tokenizer(tokenizer: PreTrainedTokenizerBase, embedding: nn.Module) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model with this embedding: itself, or a copy that uses the tokens with rows only.

    Words that these cannot form become the unknown token, or characters with its row. Raises ConfigError for an algorithm that is
    not in KINDS, and for a tokenizer without an unknown token.
    """
    usable = embedding.usable_ids() if isinstance(embedding, CompressedEmbedding) else None
    if usable is None:
        return tokenizer
    rules = _rules(tokenizer)
    model, kind = rules["model"], rules["model"]["type"]
    if kind not in KINDS or tokenizer.unk_token_id is None:
        lacks = "has no unknown token" if kind in KINDS else f"is a {kind}, not one of {', '.join(KINDS)}"
        raise ConfigError(
            f"embedding=trimmed: the model's tokenizer {lacks}, and cannot do without the removed tokens: use another embedding."
        )
    kept = {*usable.tolist(), tokenizer.unk_token_id, *(added["id"] for added in rules["added_tokens"])}

    # A removed token gets a short name with a space, which no word has.
    if kind == "Unigram":
        # The least score decides that of unknown tokens, so no removed token may have it.
        least = min(score for token, (_, score) in enumerate(model["vocab"]) if token in kept)
        model["unk_id"] = tokenizer.unk_token_id
        model["vocab"] = [
            [piece, score] if token in kept else [f" {token}", least]
            for token, (piece, score) in enumerate(model["vocab"])
        ]
    else:
        # Characters of BPE keep their names, and have the unknown token's row: a byte-level one leaves out what it has no name for.
        named = {token for piece, token in model["vocab"].items() if len(piece) == 1 and kind == "BPE"} | kept
        model["vocab"] = {
            piece if token in named else f" {token}": token for piece, token in model["vocab"].items()
        }
    if kind == "BPE":
        names, merges = model["vocab"].keys(), model["merges"]
        model["merges"] = [merge for merge in merges if {*_parts(merge), _merged(model, merge)} <= names]
        model["ignore_merges"] = False
    elif kind != "Unigram":
        model["unk_token"] = tokenizer.unk_token
    trimmed = copy.copy(tokenizer)
    cast(Any, trimmed)._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(rules))
    return trimmed


def character_counts(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray) -> np.ndarray:
    """Return how often each token that is a single character occurs if words are written in characters, (V,) int64.

    `counts` (V,) is how often each token occurs in a text. Other tokens have 0. Within a word the character's token has the
    tokenizer's prefix (WordPiece: ##).
    """
    prefix = _rules(tokenizer)["model"].get("continuing_subword_prefix") or ""
    ids, of_characters = tokenizer.get_vocab(), np.zeros(len(counts), np.int64)
    special = set(tokenizer.all_special_ids)
    for piece, token in ids.items():
        if not counts[token] or token in special:
            continue
        continues = bool(prefix) and piece.startswith(prefix)
        for place, character in enumerate(piece.removeprefix(prefix) if continues else piece):
            single = ids.get(prefix + character if continues or place else character)
            if single is not None:
                of_characters[single] += counts[token]
    return of_characters


def with_ancestors(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray) -> np.ndarray:
    """Return counts (V,) in which no token of BPE has less than a token that it is merged into; the same for other algorithms.

    So the most frequent tokens can all be reached by merges of one another.
    """
    model, counts = _rules(tokenizer)["model"], counts.copy()
    if model["type"] != "BPE":
        return counts
    ids = model["vocab"]
    for merge in reversed(model["merges"]):
        for part in _parts(merge):
            counts[ids[part]] = max(counts[ids[part]], counts[ids[_merged(model, merge)]])
    return counts


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return tokenizer.json without settings of earlier calls, to cut or pad texts."""
    return cast(dict[str, Any], json.loads(compact_json(tokenizer))) | {"truncation": None, "padding": None}


def _parts(merge: Any) -> list[str]:
    return cast(list[str], merge.split(" ") if isinstance(merge, str) else merge)


def _merged(model: dict[str, Any], merge: Any) -> str:
    left, right = _parts(merge)
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")
