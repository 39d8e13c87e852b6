"""Tokenised splits and texts, cached by their content."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import tokenizers
from transformers import BatchEncoding, PreTrainedTokenizerBase

from bench.settings.schema import TaskConfig
from bench.store import cached, key, lines_sha256
from bench.tasks.columns import numbers
from bench.tasks.data import Rows
from bench.tasks.text import rules_sha256

BATCH = 1000  # rows that go through the tokenizer at once


@dataclass(frozen=True)
class Reader:
    """How a model reads texts: its tokenizer, and the most tokens of a row, special tokens included (None: the tokenizer's own limit).

    `ends_with` is the dense model's reader, for a tokenizer that needs more tokens. It cuts the texts, and both read the same.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    ends_with: "Reader | None" = None

    def tokens(self, texts: Sequence[Sequence[str]]) -> BatchEncoding:
        """Return the tokens of rows, pairs cut at the longer text first; `texts` has a sequence for each column."""
        tokens = self.tokenizer(*texts, truncation="longest_first", max_length=self.max_length)
        return cast(BatchEncoding, tokens)

    def of_length(self, max_length: int) -> "Reader":
        """Return the same reader for other texts, which the dense model cuts at `max_length` of its tokens."""
        if self.ends_with is None:
            return replace(self, max_length=max_length)
        return replace(self, ends_with=self.ends_with.of_length(max_length))

    def key(self) -> list[object]:
        """Return what the tokens of a text depend on."""
        rules, inputs = rules_sha256(self.tokenizer), self.tokenizer.model_input_names
        others = self.ends_with.key() if self.ends_with else []
        return [rules, len(self.tokenizer), inputs, self.max_length, *others]


@dataclass(frozen=True)
class Tokenised:
    """A split as token ids, and the share of its rows that were cut."""

    # input_ids (int32), token_type_ids (int8) if the tokenizer has them, label, idx; memory-mapped
    table: pa.Table
    truncated: float


def tokenise(rows: Rows, task: TaskConfig, reader: Reader, cache_dir: Path) -> Tokenised:
    """Return the tokenised split, unpadded.

    It is kept as an Arrow file in `cache_dir/tokenised`, one for each content of data and tokenizer.
    """
    path = _path(cache_dir, reader, rows.fingerprint, task.columns)
    table = cached(path, lambda: _token_table(rows, task, reader), _load, _save)
    return Tokenised(table.drop_columns(["truncated"]), float(numbers(table["truncated"]).mean()))


def tokenise_texts(reader: Reader, texts: Sequence[str], cache_dir: Path) -> pa.Table:
    """Return the texts as token ids (`input_ids`, int32), unpadded, kept as splits are."""
    path = _path(cache_dir, reader, lines_sha256(texts))

    def table() -> pa.Table:
        batches = []
        for start in range(0, len(texts), BATCH):
            part = [list(texts[start : start + BATCH])]
            if reader.ends_with:
                _end(part, reader.ends_with)
            batches.append(pa.array(reader.tokens(part)["input_ids"], pa.list_(pa.int32())))
        return pa.table({"input_ids": pa.chunked_array(batches, pa.list_(pa.int32()))})

    return cached(path, table, _load, _save)


def _path(cache_dir: Path, reader: Reader, *content: object) -> Path:
    return cache_dir / "tokenised" / f"{key(*reader.key(), *content, tokenizers.__version__)}.arrow"


def _token_table(rows: Rows, task: TaskConfig, reader: Reader) -> pa.Table:
    types = {"input_ids": pa.list_(pa.int32())}
    if "token_type_ids" in reader.tokenizer.model_input_names:
        types["token_type_ids"] = pa.list_(pa.int8())
    batches = []
    for start in range(0, len(rows), BATCH):
        part = rows.table.slice(start, BATCH)
        texts = [part[column].to_pylist() for column in task.columns]
        ended = _end(texts, reader.ends_with) if reader.ends_with else [False] * len(part)
        tokens = reader.tokens(texts)
        columns = {name: pa.array(tokens[name], kind) for name, kind in types.items()}
        cut = [bool(encoding.overflowing) for encoding in tokens.encodings or ()]
        columns["truncated"] = pa.array(np.maximum(ended, cut).astype(np.uint8))
        columns |= {name: part[name] for name in ("label", "idx") if name in part.column_names}
        batches.append(pa.table(columns))
    return pa.concat_tables(batches)


def _end(texts: Sequence[list[str]], reader: Reader) -> list[bool]:
    """Shorten the rows' texts to what the reader keeps of them; return whether each row was cut."""
    encodings = reader.tokens(texts).encodings or ()
    for row, encoding in enumerate(encodings):
        if encoding.overflowing:
            for number, column in enumerate(texts):
                spans = zip(encoding.sequence_ids, encoding.offsets, strict=True)
                column[row] = column[row][
                    : max((end for text, (_, end) in spans if text == number), default=0)
                ]
    return [bool(encoding.overflowing) for encoding in encodings]


def _save(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _load(path: Path) -> pa.Table:
    """Return the table, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
