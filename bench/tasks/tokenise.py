"""Tokenised splits and texts, cached by their content."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from bench.errors import BenchError
from bench.settings.schema import TaskConfig
from bench.store import cached, key, lines_sha256, sha256
from bench.tasks.columns import numbers
from bench.tasks.data import Rows
from bench.tasks.text import token_ids

BATCH = 1000  # rows that go through the tokenizer at once
_DIGESTS = WeakKeyDictionary[PreTrainedTokenizerBase, str]()


@dataclass(frozen=True)
class Tokenised:
    """A split as token ids, and the share of its rows that were cut to the maximum length."""

    # input_ids (int32), token_type_ids (int8) if the tokenizer has them, label, idx; memory-mapped
    table: pa.Table
    truncated: float


def tokenise(
    rows: Rows, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, cache_dir: Path
) -> Tokenised:
    """Return the tokenised split, unpadded, pairs cut at the longer text first.

    It is kept as an Arrow file in `cache_dir/tokenised`, one for each content of data and tokenizer.
    """
    path = cache_dir / "tokenised" / f"{_key(tokenizer, max_length, rows.fingerprint, task.columns)}.arrow"
    table = cached(path, lambda: _token_table(rows, task, tokenizer, max_length), _load, _save)
    return Tokenised(table.drop_columns(["truncated"]), float(numbers(table["truncated"]).mean()))


def tokenise_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, cache_dir: Path
) -> pa.Table:
    """Return the texts as token ids (`input_ids`, int32), unpadded and cut at the maximum length, kept as splits are."""
    path = cache_dir / "tokenised" / f"{_key(tokenizer, max_length, lines_sha256(texts))}.arrow"

    def table() -> pa.Table:
        batches = token_ids(tokenizer, texts, truncation=True, max_length=max_length)
        return pa.table(
            {"input_ids": pa.chunked_array([pa.array(ids, pa.list_(pa.int32())) for ids in batches])}
        )

    return cached(path, table, _load, _save)


def _key(tokenizer: PreTrainedTokenizerBase, max_length: int, *content: object) -> str:
    rules, inputs = rules_sha256(tokenizer), tokenizer.model_input_names
    return key(rules, len(tokenizer), *content, inputs, max_length, tokenizers.__version__)


def rules_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
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


def _token_table(
    rows: Rows, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> pa.Table:
    types = {"input_ids": pa.list_(pa.int32())}
    if "token_type_ids" in tokenizer.model_input_names:
        types["token_type_ids"] = pa.list_(pa.int8())
    batches = []
    for start in range(0, len(rows), BATCH):
        part = rows.table.slice(start, BATCH)
        tokens = tokenizer(
            *[part[column].to_pylist() for column in task.columns],
            truncation="longest_first",
            max_length=max_length,
        )
        columns = {name: pa.array(tokens[name], kind) for name, kind in types.items()}
        cut = [int(bool(encoding.overflowing)) for encoding in tokens.encodings or ()]
        columns["truncated"] = pa.array(cut, pa.uint8())
        columns |= {name: part[name] for name in ("label", "idx") if name in part.column_names}
        batches.append(pa.table(columns))
    return pa.concat_tables(batches)


def _save(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _load(path: Path) -> pa.Table:
    """Return the table, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
