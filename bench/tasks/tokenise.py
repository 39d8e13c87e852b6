"""Tokenised splits, cached by their content."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import tokenizers
from transformers import PreTrainedTokenizerBase

from bench.errors import BenchError
from bench.settings.schema import TaskConfig
from bench.store import make_folder, unwritable
from bench.tasks.columns import numbers
from bench.tasks.data import Rows

BATCH = 1000  # rows that go through the tokenizer at once


@dataclass(frozen=True)
class Tokenised:
    """A split as token ids, and the share of its rows that were cut to the maximum length."""

    table: (
        pa.Table
    )  # input_ids (int32), token_type_ids (int8) if the tokenizer has them, label, idx; memory-mapped
    truncated: float


def tokenise(
    rows: Rows, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, cache_dir: Path
) -> Tokenised:
    """Return the tokenised split, unpadded, pairs cut at the longer text first.

    It is made once for each content of data and tokenizer, in an Arrow file that is renamed when it is complete:
    parallel runs may make it twice and never see half of it.
    """
    path = cache_dir / "tokenised" / f"{_key(rows, task, tokenizer, max_length)}.arrow"
    if not path.is_file():
        _write(_made(rows, task, tokenizer, max_length), path)
    cached = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return Tokenised(cached.drop_columns(["truncated"]), float(numbers(cached["truncated"]).mean()))


def _key(rows: Rows, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BenchError(
            f"{type(tokenizer).__name__} has no fast version: install the model's fast tokenizer."
        )
    backend.no_truncation()  # left over from an earlier call, they would change the digest
    backend.no_padding()
    digest = hashlib.sha256(backend.to_str().encode())
    parts = [rows.fingerprint, task.columns, tokenizer.model_input_names, max_length, tokenizers.__version__]
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()[:24]


def _made(rows: Rows, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    types = {"input_ids": pa.list_(pa.int32())}
    types |= (
        {"token_type_ids": pa.list_(pa.int8())} if "token_type_ids" in tokenizer.model_input_names else {}
    )
    batches = []
    for start in range(0, len(rows), BATCH):
        part = rows.table.slice(start, BATCH)
        tokens = tokenizer(
            *[part[column].to_pylist() for column in task.columns],
            truncation="longest_first",
            max_length=max_length,
        )
        made = {name: pa.array(tokens[name], kind) for name, kind in types.items()}
        made["truncated"] = pa.array(
            [int(bool(encoding.overflowing)) for encoding in tokens.encodings or ()], pa.uint8()
        )
        batches.append(
            pa.table(made | {name: part[name] for name in ("label", "idx") if name in part.column_names})
        )
    return pa.concat_tables(batches)


def _write(table: pa.Table, path: Path) -> None:
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
