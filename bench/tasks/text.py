"""Texts as token ids, and how often each token occurs in them."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from bench.errors import BenchError, DataError
from bench.store import cached_array, key, lines_sha256, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 4096  # texts that are tokenised at once
_DIGESTS = WeakKeyDictionary["PreTrainedTokenizerBase", str]()
MOST_UNKNOWN = 0.5  # share of unknown tokens from which a corpus is in another script


def token_ids(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], **options: Any
) -> Iterator[list[list[int]]]:
    """Yield the ids of each of BATCH texts at a time; `options` go to the tokenizer."""
    for start in range(0, len(texts), BATCH):
        yield cast(list[list[int]], tokenizer(list(texts[start : start + BATCH]), **options)["input_ids"])


def rules_sha256(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a digest of vocabulary and rules. It is taken once: XNLI's evaluation has 30 splits, a large vocabulary 9 MB."""
    if tokenizer in _DIGESTS:
        return _DIGESTS[tokenizer]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BenchError(
            f"{type(tokenizer).__name__} has no fast version: install the model's fast tokenizer."
        )
    # Settings of an earlier call would change the digest.
    backend.no_truncation()
    backend.no_padding()
    return _DIGESTS.setdefault(tokenizer, sha256(backend.to_str()))


def cached_counts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], vocab_size: int, cache_dir: Path
) -> np.ndarray:
    """Return `token_counts`, kept in `cache_dir/counts` for each tokenizer and content of the texts."""
    name = key(vocab_size, rules_sha256(tokenizer), lines_sha256(texts))
    return cached_array(
        cache_dir / "counts" / f"{name}.safetensors", lambda: token_counts(tokenizer, texts, vocab_size)
    )


def token_counts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], vocab_size: int) -> np.ndarray:
    """Return how often each token occurs in the texts, (V,) int64.

    Raises DataError for texts of which the tokenizer knows less than half.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for ids in token_ids(tokenizer, texts, add_special_tokens=False):
        counts += np.bincount(np.fromiter(chain.from_iterable(ids), np.int64), minlength=vocab_size)
    unknown = 0 if tokenizer.unk_token_id is None else counts[tokenizer.unk_token_id]
    if unknown > MOST_UNKNOWN * counts.sum() or not counts.sum():
        raise DataError(
            f"assignment.corpus: {unknown:,} of its {counts.sum():,} tokens are unknown to the model's tokenizer; "
            "give a text in a script that the model was trained on."
        )
    return counts
