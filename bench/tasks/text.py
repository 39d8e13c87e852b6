"""Text files without labels, and how often each token occurs in a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from bench.errors import DataError
from bench.store import cached_array, key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_UNKNOWN = 0.5  # share of unknown tokens from which a corpus is in another script


def passages(corpus: str) -> list[str]:
    """Return the non-empty lines of the text file `corpus`; raises DataError if it has none or is not UTF-8."""
    try:
        lines = [line.strip() for line in Path(corpus).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"corpus ({corpus}) cannot be read: {error}; give a UTF-8 text file, one passage a line, splits of tasks "
            "such as mrpc:train+rte:train, or task."
        ) from error
    if not any(lines):
        raise DataError(f"corpus ({corpus}) is empty: give a text file with one passage a line.")
    return [line for line in lines if line]


def cached_counts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], vocab_size: int, cache_dir: Path
) -> np.ndarray:
    """Return `token_counts`, kept in `cache_dir/counts` for each vocabulary and content of the texts."""
    name = key(type(tokenizer).__name__, vocab_size, tokenizer.get_vocab(), list(texts))
    return cached_array(
        cache_dir / "counts" / f"{name}.safetensors", lambda: token_counts(tokenizer, texts, vocab_size)
    )


def token_counts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], vocab_size: int) -> np.ndarray:
    """Return how often each token occurs in the texts, (V,) int64.

    Raises DataError for texts of which the tokenizer knows less than half.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(texts), 4096):
        batch = cast(
            list[list[int]],
            tokenizer(list(texts[start : start + 4096]), add_special_tokens=False)["input_ids"],
        )
        counts += np.bincount(
            np.concatenate([np.array(ids, dtype=np.int64) for ids in batch]), minlength=vocab_size
        )
    unknown = 0 if tokenizer.unk_token_id is None else counts[tokenizer.unk_token_id]
    if unknown > MOST_UNKNOWN * counts.sum() or not counts.sum():
        raise DataError(
            f"assignment.corpus: {unknown:,} of its {counts.sum():,} tokens are unknown to the model's tokenizer; "
            "give a text in a script that the model was trained on."
        )
    return counts
