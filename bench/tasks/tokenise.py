"""Tokenised splits, cached by their content."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from bench.errors import BenchError
from bench.settings.schema import TaskConfig
from bench.store import cached, key
from bench.tasks.columns import numbers
from bench.tasks.data import Rows

BATCH = 1000  # rows that go through the tokenizer at once


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
    path = cache_dir / "tokenised" / f"{_key(rows, task, tokenizer, max_length)}.arrow"
    table = cached(path, lambda: _token_table(rows, task, tokenizer, max_length), _load, _save)
    return Tokenised(table.drop_columns(["truncated"]), float(numbers(table["truncated"]).mean()))


def _key(rows: Rows, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BenchError(
            f"{type(tokenizer).__name__} has no fast version: install the model's fast tokenizer."
        )
    # Settings of an earlier call would change the key.
    backend.no_truncation()
    backend.no_padding()
    inputs = tokenizer.model_input_names
    return key(backend.to_str(), rows.fingerprint, task.columns, inputs, max_length, tokenizers.__version__)


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
