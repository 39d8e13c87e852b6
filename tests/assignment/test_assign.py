"""The registry and its cache: what is computed, what is kept, what is refused."""

import hashlib
import logging
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from bench.assignment import Codes, TokenVectors, assign, check, identity
from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.settings.assignments import AssignmentConfig
from bench.settings.choices import CHOICES, named
from bench.store import load_array

TABLE = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)


class Counted:
    """Token vectors that know how often they were computed."""

    def __init__(self, points: np.ndarray = TABLE) -> None:
        self.points, self.calls = points, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.points


def config(name: str, **settings: Any) -> AssignmentConfig:
    return cast(AssignmentConfig, named("assignment", {"name": name, **settings}))


def make(name: str, cache: Path, *, vectors: Any = None, key: str = "k", table: np.ndarray = TABLE, rows: int = 7,
         f: int = 3, device: torch.device | None = None, **settings: Any) -> Codes:  # fmt: skip
    given = TokenVectors(key, vectors or Counted())
    return assign(config(name, **settings), vocab_size=300, subspaces=f, rows=rows, table=table,
                  vectors=given, cache_dir=cache, device=device)  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHOICES["assignment"]))
def test_codes_come_with_checksum_and_facts(name: str, tmp_path: Path) -> None:
    found = make(name, tmp_path)
    contents = struct.pack("<2q", 300, 3) + b"".join(
        struct.pack("<i", c) for c in found.codes.ravel().tolist()
    )
    assert found.sha256 == hashlib.sha256(contents).hexdigest()
    assert found.distinct == len({tuple(row) for row in found.codes.tolist()})
    assert found.injective == (name not in ("pq", "residual", "hash")) and (
        found.distinct == 300 or not found.injective
    )
    assert found.stored == (name not in ("sequential", "hash"))
    assert found.codes.dtype == np.int32 and found.codes.shape == (300, 3)
    assert 0 <= found.codes.min() <= found.codes.max() < 7


@pytest.mark.parametrize("name", ["contextual", "pq", "residual"])
def test_a_row_for_every_token_needs_no_sharing(name: str, tmp_path: Path) -> None:
    assert (make(name, tmp_path, rows=300).codes == np.arange(300)[:, None]).all()


def test_a_hit_computes_nothing(tmp_path: Path) -> None:
    vectors = Counted()
    first, second = (make("contextual", tmp_path, vectors=vectors) for _ in range(2))
    assert vectors.calls == 1 and first.sha256 == second.sha256 and (first.codes == second.codes).all()
    (kept,) = (tmp_path / "codes").iterdir()  # no leftovers
    assert kept.suffix == ".safetensors" and load_array(kept).dtype == np.uint8, "as few bytes as they need"
    assert first.codes.dtype == second.codes.dtype == np.int32


@pytest.mark.parametrize("name", ["contextual", "pq", "residual"])
def test_the_codes_of_a_device_are_cached_apart_from_scikit_learns(name: str, tmp_path: Path) -> None:
    device, files = torch.device("cpu"), list[int]()
    for chosen in (None, device, None, device):
        make(name, tmp_path, device=chosen)
        files.append(len([*(tmp_path / "codes").iterdir()]))
    assert files == [1, 2, 2, 2]


@pytest.mark.parametrize("step", ["plus_plus", "_sums"])  # before the rounds, and within them
def test_without_room_on_the_device_the_cpu_finds_the_clusters(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(f"bench.assignment.kmeans.{step}", full)
    with caplog.at_level(logging.WARNING, logger="bench"):
        found = make("pq", tmp_path / "a", device=torch.device("cpu"))
    assert "assignment=pq: the GPU has no room" in caplog.text
    assert found.device == "cpu" and found.sha256 == make("pq", tmp_path / "b").sha256


def test_codes_that_take_long_are_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="bench"):
        make("pq", tmp_path / "a")
        assert caplog.text == ""
        monkeypatch.setattr("bench.assignment.WORTH_A_LINE", 0)
        make("pq", tmp_path / "b")
        make("pq", tmp_path / "b")  # which the cache has
    (line,) = caplog.messages
    assert line.startswith("assignment=pq: codes of ") and line.endswith(" s on cpu")


def test_a_device_changes_nothing_where_there_is_nothing_to_cluster(tmp_path: Path) -> None:
    first, second = (make("random", tmp_path, device=chosen) for chosen in (None, torch.device("cpu")))
    assert (
        first.sha256 == second.sha256
        and second.device is None
        and len([*(tmp_path / "codes").iterdir()]) == 1
    )


def test_what_decides_the_codes_decides_the_key(tmp_path: Path) -> None:
    vectors = Counted()
    changes: list[dict[str, Any]] = [
        {},
        {"key": "other"},
        {"seed": 1},
        {"rows": 8},
        {"f": 4},
    ]
    for change in changes:
        make("contextual", tmp_path, vectors=vectors, **change)
    assert vectors.calls == len(changes)
    make("pq", tmp_path)
    make("pq", tmp_path, corpus="elsewhere")  # no setting of pq
    assert len(list((tmp_path / "codes").iterdir())) == len(changes) + 1
    make("pq", tmp_path, table=TABLE + 1)
    assert len(list((tmp_path / "codes").iterdir())) == len(changes) + 2


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_file_is_made_again(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = Counted()
    first = make("contextual", tmp_path, vectors=vectors)
    (file,) = (tmp_path / "codes").iterdir()
    whole = file.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    file.write_bytes({"truncated": whole[: len(whole) // 2], "one bit": flipped, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert make("contextual", tmp_path, vectors=vectors).sha256 == first.sha256
    assert vectors.calls == 2 and file.name in caplog.text and file.read_bytes() == whole


def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentBroken, match=r"file.* cannot be written .*cache_dir"):
        make("random", tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "given"), [("pq", "pretrained embedding table"), ("contextual", "token vectors")]
)
def test_values_that_are_not_finite_are_counted(name: str, given: str, tmp_path: Path) -> None:
    points = TABLE.copy()
    points[3, 1], points[5], points[7, 2] = np.nan, np.inf, -np.inf
    with pytest.raises(BenchError, match=f"{given} has NaN or infinite values in 3 of its 300 rows"):
        make(name, tmp_path, table=points, vectors=Counted(points))


def test_points_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="299 rows, but there are 300 tokens"):
        make("pq", tmp_path, table=TABLE[:299])
    with pytest.raises(ConfigError, match=r"embedding.subspaces \(13\) exceeds .* width: at most 12"):
        make("pq", tmp_path, f=13)


@pytest.mark.parametrize(
    ("settings", "sizes", "message"),
    [
        ({"name": "random"}, (30_522, 3, 30), r"embedding.rows \(30\) \*\* embedding.subspaces \(3\) = 27,000 "
         r"codes are too few for the 30,522 tokens of an injective assignment: use embedding.rows=32 or more, "
         r"or assignment=pq\."),
        ({"name": "pq"}, (9, 0, 3), r"embedding.subspaces \(0\)"),
        ({"name": "pq"}, (9, 2, 1), r"embedding.rows \(1\)"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(
    settings: dict[str, Any], sizes: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config(**settings), *sizes)


def test_seed_zero_is_a_seed() -> None:
    check(config("random", seed=0), 8, 3, 2)
    assert identity(config("random", seed=0, corpus="x")) == {"name": "random", "seed": 0}
    assert identity(config("sequential")) == {"name": "sequential"}
