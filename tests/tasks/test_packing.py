"""Packed rows: what stands in them, that they are made once and mapped, and what becomes of a file that was cut."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import normalizers

from bench.errors import DataError
from bench.settings.compose import compose_config
from bench.tasks.corpora import passages
from bench.tasks.packing import packed
from bench.tasks.text import cached_counts, token_counts
from tests.support.pretraining import text, tokenizer


@pytest.fixture
def rows(tmp_path):
    """Return a function that packs a corpus."""
    config = compose_config([f"cache_dir={tmp_path}/cache"])

    def made(corpus: object, length: int = 16):
        return packed(
            passages(str(corpus), config), tokenizer(), length, tmp_path / "cache", f"text ({corpus})"
        )

    return made


def test_rows_hold_the_passages_end_to_end_between_begin_and_end(rows, tmp_path):
    lines = text(tmp_path / "text.txt", 90).read_text().splitlines()
    own = tokenizer()
    stream = [
        token
        for line in lines
        for token in (*own(line, add_special_tokens=False)["input_ids"], own.sep_token_id)
    ]
    found = rows(tmp_path / "text.txt")
    assert isinstance(found.ids, np.memmap) and found.ids.dtype == np.int32
    assert len(found.ids) == len(stream) // 14 and found.tokens == len(stream) and found.unknown == 0
    assert set(found.ids[:, 0]) == {own.cls_token_id} and set(found.ids[:, -1]) == {own.sep_token_id}
    assert found.ids[:, 1:-1].flatten().tolist() == stream[: 14 * len(found.ids)]


def test_a_text_is_packed_once_for_each_length_and_again_where_its_file_was_cut(rows, tmp_path, caplog):
    caplog.set_level("INFO")
    text(tmp_path / "text.txt", 90)
    first, again, other = (
        rows(tmp_path / "text.txt"),
        rows(tmp_path / "text.txt"),
        rows(tmp_path / "text.txt", 12),
    )
    assert np.array_equal(first.ids, again.ids) and other.ids.shape[1] == 12
    assert sum("rows of" in line for line in caplog.messages) == 2
    before = np.array(first.ids)
    (file,) = (
        path for path in (tmp_path / "cache/packed").rglob("rows.bin") if path.stat().st_size == before.nbytes
    )
    file.write_bytes(file.read_bytes()[:-4])
    assert np.array_equal(rows(tmp_path / "text.txt").ids, before) and "rows.bin was cut" in caplog.text


def test_a_tokenizer_with_the_same_words_and_other_rules_reads_the_text_anew(tmp_path):
    text(tmp_path / "text.txt", 90)
    config = compose_config([f"cache_dir={tmp_path}/cache"])
    own, other = tokenizer(), tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Prepend("x")
    assert own.get_vocab() == other.get_vocab()
    one, two = (
        packed(passages(str(tmp_path / "text.txt"), config), made, 16, tmp_path / "cache", "text")
        for made in (own, other)
    )
    assert not np.array_equal(one.ids, two.ids)
    lines = (tmp_path / "text.txt").read_text().splitlines()
    for made in (own, other):
        counts = cached_counts(made, lines, len(made), tmp_path / "cache")
        assert np.array_equal(counts, token_counts(made, lines, len(made)))


def test_parquet_files_are_text_too(rows, tmp_path):
    # A folder's passages come once each.
    lines = list(dict.fromkeys(text(tmp_path / "text.txt", 90).read_text().splitlines()))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    (tmp_path / "shards").mkdir()
    for number, part in enumerate((lines[:50], lines[50:])):
        joined = ["\n".join(part[:2]), *part[2:], None, ""]  # a text of two lines is two passages
        pq.write_table(
            pa.table({"id": range(len(joined)), "text": joined}), tmp_path / f"shards/train-{number}.parquet"
        )
    assert np.array_equal(rows(tmp_path / "shards").ids, rows(tmp_path / "text.txt").ids)
    pq.write_table(pa.table({"sentence": lines}), tmp_path / "other.parquet")
    with pytest.raises(
        DataError, match=r"other.parquet.* cannot be read.*parquet files with a column 'text'"
    ):
        rows(tmp_path / "other.parquet")
