"""Tokenised splits, cached by their content."""

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from datasets import Dataset, Features, List, Value, disable_progress_bars, load_from_disk
from transformers import PreTrainedTokenizerBase

from bench.config import TaskConfig
from bench.errors import BenchError

disable_progress_bars()  # a log file would hold every state of them


@dataclass(frozen=True)
class Tokenised:
    """A split as token ids, and the share of its rows that were cut to the maximum length."""

    dataset: Dataset  # input_ids (int32), token_type_ids (int8) if the tokenizer has them, label, idx; memory-mapped
    truncated: float


def tokenise(
    dataset: Dataset, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, cache_dir: Path
) -> Tokenised:
    """Return the tokenised split, unpadded, pairs cut at the longer text first.

    It is made once for each content of data and tokenizer, in a folder of its own that is renamed when it is complete:
    parallel runs may make it twice and never see half of it.
    """
    key = _key(dataset, task, tokenizer, max_length)
    folder = cache_dir / "tokenised" / key
    if not folder.is_dir():
        _make(dataset, task, tokenizer, max_length, folder)
    cached = load_from_disk(str(folder))
    cut = np.asarray(cached.data["truncated"])
    return Tokenised(cached.remove_columns("truncated"), float(cut.mean()))


def _key(dataset: Dataset, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BenchError(f"{type(tokenizer).__name__} has no fast version: install the model's fast tokenizer.")
    backend.no_truncation()  # left over from an earlier call, they would change the digest
    backend.no_padding()
    digest = hashlib.sha256(backend.to_str().encode())
    parts = [dataset._fingerprint, task.columns, tokenizer.model_input_names, max_length, tokenizers.__version__]
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()[:24]


def _make(
    dataset: Dataset, task: TaskConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path
) -> None:
    typed = "token_type_ids" in tokenizer.model_input_names

    def encode(rows: dict[str, list[str]]) -> dict[str, list[Any]]:
        texts = [rows[column] for column in task.columns]
        tokens = tokenizer(*texts, truncation="longest_first", max_length=max_length)
        kept = {name: tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens}
        return kept | {"truncated": [bool(encoding.overflowing) for encoding in tokens.encodings or ()]}

    carried = {name: dataset.features[name] for name in ("label", "idx") if name in dataset.features}
    made = {"input_ids": List(Value("int32")), "truncated": Value("bool")}
    made |= {"token_type_ids": List(Value("int8"))} if typed else {}
    tokens = dataset.map(
        encode, batched=True, remove_columns=[name for name in dataset.column_names if name not in carried],
        features=Features(made | carried), keep_in_memory=True, new_fingerprint=folder.name, desc="tokenise",
    )
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        tokens.save_to_disk(temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
