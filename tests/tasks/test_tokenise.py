"""Tokenised splits equal the tokenizer's output, and the cache never returns other content."""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from bench.errors import EnvironmentBroken
from bench.settings.schema import TaskConfig
from bench.tasks.data import Rows
from bench.tasks.tokenise import Reader, tokenise

PAIRS = TaskConfig(name="pairs", columns=["a", "b"], labels=["x", "y"])
ROWS: dict[str, list[Any]] = {
    "a": ["the cat sat on the mat", "a dog", "the cat the cat the cat the cat", ""],
    "b": ["the dog", "the cat sat on the mat on the mat", "a dog a dog a dog a dog a dog", "a"],
    "label": [0, 1, 1, 0],
    "idx": [3, 2, 1, 0],
    "Domain": list("abcd"),
}


def rows_of(columns: dict[str, list[Any]]) -> Rows:
    return Rows(pa.table(columns), repr(columns))


def words(extra: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, "the", "cat", "sat", "on", "mat", "a", "dog", *extra]
    return BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})


def by_bytes() -> PreTrainedTokenizerBase:
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdeghmnost"]
    return RobertaTokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])


@pytest.mark.parametrize("make", [words, by_bytes])
@pytest.mark.parametrize("columns", [["a"], ["a", "b"]])
@pytest.mark.parametrize("length", [8, 12, 128])
def test_ids_are_those_of_the_tokenizer_row_by_row(
    tmp_path: Path, make: Any, columns: list[str], length: int
) -> None:
    tokenizer, task = make(), dataclasses.replace(PAIRS, columns=columns)
    made = tokenise(rows_of(ROWS), task, Reader(tokenizer, length), tmp_path)
    cut = 0
    for row, tokens in enumerate(made.table.to_pylist()):
        texts = [ROWS[column][row] for column in columns]
        expected = tokenizer(*texts, truncation="longest_first", max_length=length)
        assert tokens["input_ids"] == expected["input_ids"] and len(tokens["input_ids"]) <= length
        assert tokens.get("token_type_ids") == expected.get("token_type_ids")
        cut += len(tokenizer(*texts)["input_ids"]) > length
    assert made.truncated == cut / 4
    assert (made.table["label"].to_pylist(), made.table["idx"].to_pylist()) == (ROWS["label"], ROWS["idx"])
    has_types = {"token_type_ids"} if make is words else set()
    assert set(made.table.column_names) == {"input_ids", "label", "idx"} | has_types


@pytest.mark.parametrize("columns", [["a"], ["a", "b"]])
@pytest.mark.parametrize("most", [20, None])
def test_texts_end_where_another_reader_cuts_them(
    tmp_path: Path, columns: list[str], most: int | None
) -> None:
    task, by_words, by_letters = dataclasses.replace(PAIRS, columns=columns), words(), by_bytes()
    made = tokenise(rows_of(ROWS), task, Reader(by_letters, most, Reader(by_words, 8)), tmp_path)
    cut = 0
    for row, tokens in enumerate(made.table["input_ids"].to_pylist()):
        texts = [ROWS[column][row] for column in columns]
        kept = by_words(*texts, truncation="longest_first", max_length=8, return_special_tokens_mask=True)
        lengths = [0] * len(columns)  # each word is a token
        for column, special in zip(kept["token_type_ids"], kept["special_tokens_mask"], strict=True):
            lengths[column] += not special
        same = [" ".join(text.split()[:length]) for text, length in zip(texts, lengths, strict=True)]
        assert tokens == by_letters(*same, truncation="longest_first", max_length=most or 512)["input_ids"]
        cut += same != texts or len(by_letters(*same)["input_ids"]) > (most or 512)
    assert made.truncated == cut / 4 > 0
    tokenise(rows_of(ROWS), task, Reader(by_letters, most), tmp_path)
    assert len([*(tmp_path / "tokenised").iterdir()]) == 2


def test_cache_is_found_again_and_mapped_into_memory(tmp_path: Path) -> None:
    first = tokenise(rows_of(ROWS), PAIRS, Reader(words(), 8), tmp_path)
    [path] = (tmp_path / "tokenised").iterdir()
    before = path.stat().st_mtime_ns
    used = words()
    used(["a dog", "a"], padding=True, truncation=True, max_length=3)  # must not count as another tokenizer
    again = tokenise(rows_of(ROWS), PAIRS, Reader(used, 8), tmp_path)
    assert [*(tmp_path / "tokenised").iterdir()] == [path] and path.stat().st_mtime_ns == before
    assert again.table == first.table and again.truncated == first.truncated > 0
    held = pa.total_allocated_bytes()
    tokenise(rows_of(ROWS), PAIRS, Reader(used, 8), tmp_path)
    assert pa.total_allocated_bytes() == held  # in no memory of its own


def test_other_content_is_other_cache(tmp_path: Path) -> None:
    rows = rows_of(ROWS)
    other = rows_of(ROWS | {"b": ["mat"] * 4})
    swapped = dataclasses.replace(PAIRS, columns=["b", "a"])
    variants: list[tuple[Any, ...]] = [
        (rows, PAIRS, Reader(words(), 8)),
        (rows, PAIRS, Reader(words(), 9)),
        (rows, swapped, Reader(words(), 8)),
        (other, PAIRS, Reader(words(), 8)),
        (rows.select(np.array([2, 0])), PAIRS, Reader(words(), 8)),
        (rows, PAIRS, Reader(words(("more",)), 8)),
        (rows, PAIRS, Reader(by_bytes(), 8)),
    ]
    made = [tokenise(*variant, tmp_path).table["input_ids"].to_pylist() for variant in variants]
    assert len([*(tmp_path / "tokenised").iterdir()]) == len(variants)
    assert made == [tokenise(*variant, tmp_path).table["input_ids"].to_pylist() for variant in variants]
    assert made[4] == [made[0][2], made[0][0]] and made[2] != made[0] != made[3]


def test_half_written_caches_are_ignored_and_failures_leave_none(tmp_path: Path) -> None:
    whole = tokenise(rows_of(ROWS), PAIRS, Reader(words(), 8), tmp_path / "whole")
    [path] = (tmp_path / "whole" / "tokenised").iterdir()
    half = tmp_path / "half" / "tokenised" / f"{path.name}.0123.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    again = tokenise(rows_of(ROWS), PAIRS, Reader(words(), 8), tmp_path / "half")
    assert again.table == whole.table
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EnvironmentBroken, match="file.*cannot be written.*cache_dir"):
        tokenise(rows_of(ROWS), PAIRS, Reader(words(), 8), tmp_path / "file")


def work(folder: Path) -> list[list[int]]:
    rows = rows_of({name: values * 300 for name, values in ROWS.items()})
    return list(tokenise(rows, PAIRS, Reader(words(), 8), folder).table["input_ids"].to_pylist())


def test_processes_may_tokenise_the_same_at_once(tmp_path: Path) -> None:
    # Not "fork": a copy of a process whose other threads hold locks can wait for them for ever.
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(work, [tmp_path] * 3))
    assert made[0] == made[1] == made[2] and len(made[0]) == 1200
    assert len([*(tmp_path / "tokenised").iterdir()]) == 1


def test_large_vocabulary(tmp_path: Path, tokenizers_folder: Path) -> None:
    """XLM-R's real tokenizer: ids beyond 16 bits, and no token_type_ids."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizers_folder / "xlm-roberta-base")
    assert len(tokenizer) == 250_002
    made = tokenise(rows_of(ROWS), PAIRS, Reader(tokenizer, 16), tmp_path)
    expected = tokenizer(ROWS["a"], ROWS["b"], truncation="longest_first", max_length=16)["input_ids"]
    assert made.table["input_ids"].to_pylist() == expected
