"""Tokenizers whose vocabulary is trimmed: texts are spelled anew with the tokens that are left.

Removing pieces and letting the tokenizer do with the others is what Abdaoui, Pradel & Sigel, "Load What You Need" (SustaiNLP 2020),
do. Here all tokens keep their ids, so that the embedding stays a drop-in replacement.
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


def character_counts(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray) -> np.ndarray:
    """Return how often each token that is a single character occurs if words are spelled by characters, (V,) int64.

    `counts` (V,) is how often each token occurs in a text. Other tokens have 0. Inside of a word the character's token has the
    tokenizer's prefix (WordPiece: ##).
    """
    inside = json.loads(compact_json(tokenizer))["model"].get("continuing_subword_prefix") or ""
    ids, needed = tokenizer.get_vocab(), np.zeros(len(counts), np.int64)
    for piece, token in ids.items():
        if not counts[token] or token in tokenizer.all_special_ids:
            continue
        within = bool(inside) and piece.startswith(inside)
        for place, character in enumerate(piece.removeprefix(inside) if within else piece):
            if (single := ids.get(inside + character if within or place else character)) is not None:
                needed[single] += counts[token]
    return needed


def spelled(
    tokenizer: PreTrainedTokenizerBase, embedding: nn.Module, rules_json: str | None = None
) -> PreTrainedTokenizerBase:
    """Return the tokenizer for a model with this embedding: itself, or a copy that spells with the tokens that have rows.

    What cannot be spelled with them is unknown. `rules_json` is the tokenizer's JSON, if calls have changed settings in it since.
    Raises ConfigError for an algorithm other than Unigram, WordPiece, WordLevel and BPE.
    """
    left = embedding.spelled_with() if isinstance(embedding, CompressedEmbedding) else None
    if left is None:
        return tokenizer
    rules = json.loads(rules_json or compact_json(tokenizer))
    model, kind = rules["model"], rules["model"]["type"]
    kept = {*left.tolist(), *(added["id"] for added in rules["added_tokens"])}

    # A removed token gets a short name with a space, which no word has.
    def name(piece: str, token: int) -> str:
        return piece if token in kept else f" {token}"

    if kind == "Unigram":
        model["vocab"] = [[name(piece, token), score] for token, (piece, score) in enumerate(model["vocab"])]
    elif kind in ("WordPiece", "WordLevel"):
        model["vocab"] = {name(piece, token): token for piece, token in model["vocab"].items()}
    elif kind == "BPE":
        model |= {"merges": _merges(model, kept), "ignore_merges": False}
    else:
        raise ConfigError(
            f"embedding=trimmed: the model's tokenizer is a {kind}, and only Unigram, WordPiece, WordLevel and BPE can spell texts "
            "anew with the tokens that are left: use another embedding."
        )
    other = copy.copy(tokenizer)
    cast(Any, other)._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(rules))
    return other


def _merges(model: dict[str, Any], kept: set[int]) -> list[Any]:
    """Return the merges that lead to a kept token. A token on the way to one may lack a row, and is then unknown where it ends a word."""
    needed = {piece for piece, token in model["vocab"].items() if token in kept}
    merges = []
    for merge in reversed(model["merges"]):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if "".join(parts) in needed:
            needed.update(parts)
            merges.append(merge)
    return merges[::-1]
