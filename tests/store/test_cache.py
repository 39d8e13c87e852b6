"""The cache and the files under it: what is kept, what is computed again, what is never seen half written."""

from pathlib import Path

import numpy as np
import pytest

from bench.errors import EnvironmentBroken
from bench.store import atomic, cached_array, key


def test_a_key_depends_on_every_part_and_on_nothing_else() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    parts = [{"b": 1, "a": array}, ["text"]]
    others = [array + 1, array.reshape(3, 2), array.astype(np.int64), array.T]
    assert key(*parts) == key({"a": np.asfortranarray(array), "b": 1}, ["text"])
    assert (
        len({key(*parts), key(*parts, None), *(key({"b": 1, "a": other}, ["text"]) for other in others)}) == 6
    )
    with pytest.raises(TypeError, match="set cannot be part of a key"):
        key({1})


def test_an_array_is_kept_whatever_its_memory_looks_like(tmp_path: Path) -> None:
    array = np.arange(12.0).reshape(3, 4)[:, ::2]
    for build in (lambda: array, lambda: pytest.fail("it was computed again")):
        assert (cached_array(tmp_path / "kept.safetensors", build) == array).all()


def test_an_error_while_computing_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def build() -> np.ndarray:
        raise FileNotFoundError("a corpus")

    with pytest.raises(FileNotFoundError, match="a corpus"):
        cached_array(tmp_path / "kept.safetensors", build)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_a_reason_even_if_the_error_has_no_number(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(EnvironmentBroken, match=r"model cannot be written \(the disk went away\)"),
        atomic(tmp_path / "model"),
    ):
        raise OSError("the disk went away")


def test_a_folder_takes_the_place_of_the_former_one_whole_or_not_at_all(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic(tmp_path / "model") as folder:
            folder.mkdir()
            (folder / name).touch()
    with (
        pytest.raises(EnvironmentBroken, match="model cannot be written"),
        atomic(tmp_path / "model") as folder,
    ):
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(28, "No space left on device")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/new"]
