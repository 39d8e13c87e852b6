"""Text as packed rows: passages end to end, each closed by the separator, cut into rows of one length without padding."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from bench import store
from bench.errors import DataError
from bench.tasks.corpora import Passages
from bench.tasks.text import MOST_UNKNOWN, rules_sha256, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1  # raised whenever a change here changes the rows
ROWS, FACTS = "rows.bin", "facts.json"
log = logging.getLogger("bench")


@dataclass(frozen=True)
class Packed:
    """The rows of a text, memory-mapped: memory holds no more of them than is looked at."""

    ids: np.ndarray  # (N, length) int32
    tokens: int  # of the text, separators and the left-over end included
    unknown: int  # tokens that the tokenizer does not know
    sha256: str  # of the passages joined by line feeds


def packed(
    texts: Passages, tokenizer: "PreTrainedTokenizerBase", length: int, cache_dir: Path, named: str
) -> Packed:
    """Return the text in rows of `length` tokens: [CLS], tokens with [SEP] after each passage, [SEP].

    As RoBERTa's FULL-SENTENCES (Liu et al. 2019, section 4.2). The tokenizer has these tokens; an end that fills no row is
    left out. The rows are kept in `cache_dir/packed`. Raises DataError for a text that does not fill two rows, as one is
    held out. Raises it, too, where the tokenizer knows less than half of the text. Its message begins with `named`.
    """
    # Tokenise the text once; other processes wait.
    name = store.key(VERSION, texts.sha256, rules_sha256(tokenizer), length)
    folder = cache_dir / "packed" / name
    with store.locked(folder):
        if (rows := store.read_cached(folder, lambda path: _read(path, length))) is None:
            with store.atomic(folder) as temporary:
                _write(texts, tokenizer, length, temporary)
            rows = _read(folder, length)
            log.info("%s | %s tokens, %s rows of %d", named, f"{rows.tokens:,}", f"{len(rows.ids):,}", length)

    if rows.unknown > MOST_UNKNOWN * rows.tokens:
        raise DataError(
            f"{named}: {rows.unknown:,} of its {rows.tokens:,} tokens are unknown to the model's tokenizer; give a text in a "
            "script that the tokenizer was made for, or another tokenizer."
        )
    if len(rows.ids) < 2:
        raise DataError(
            f"{named}: its {rows.tokens:,} tokens fill {len(rows.ids)} rows of {length}, but training and validation need one "
            "each: give more text, or a smaller pretraining.length."
        )
    return rows


def _read(folder: Path, length: int) -> Packed:
    """Return the rows of the folder; raises ValueError where its file was cut."""
    facts = json.loads((folder / FACTS).read_text())
    path, count = folder / ROWS, facts.pop("rows")
    if path.stat().st_size != 4 * length * count:
        raise ValueError(f"{ROWS} was cut")
    if not count:  # an empty file cannot be mapped
        return Packed(np.empty((0, length), np.int32), **facts)
    # Copy on write: torch warns of memory that cannot be written.
    return Packed(np.memmap(path, np.int32, "c", shape=(count, length)), **facts)


def _write(texts: Passages, tokenizer: "PreTrainedTokenizerBase", length: int, folder: Path) -> None:
    """Write the rows, and how many tokens and rows there are, to a new folder."""
    folder.mkdir()
    counts = Counter(tokens=0, unknown=0, rows=0)
    rest, inner = np.empty(0, np.int32), length - 2
    with (folder / ROWS).open("wb") as file:
        for tokens in _tokens(texts, tokenizer):
            stream = np.concatenate([rest, tokens])
            whole = len(stream) // inner
            rows = np.empty((whole, length), np.int32)
            rows[:, 0], rows[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
            rows[:, 1:-1] = stream[: whole * inner].reshape(whole, inner)
            rest = stream[whole * inner :]
            rows.tofile(file)
            unknown = 0 if tokenizer.unk_token_id is None else (tokens == tokenizer.unk_token_id).sum()
            counts.update(tokens=len(tokens), unknown=int(unknown), rows=whole)
    (folder / FACTS).write_text(json.dumps({**counts, "sha256": texts.sha256}))


def _tokens(texts: Passages, tokenizer: "PreTrainedTokenizerBase") -> Iterator[np.ndarray]:
    """Yield the ids of many passages at a time, each passage closed by the separator."""
    separator = [cast(int, tokenizer.sep_token_id)]
    for ids in token_ids(tokenizer, texts, add_special_tokens=False):
        yield np.fromiter(chain.from_iterable(row + separator for row in ids), np.int32)
