"""Records on disk: whole or not there, readable or named."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from bench import store
from bench.errors import BenchError, EnvironmentBroken


def record(run_id="0123456789ab", **changes):
    keys = dict.fromkeys(store.Record.__required_keys__)
    return (
        keys
        | {
            "schema_version": store.SCHEMA_VERSION,
            "run_id": run_id,
            "status": "ok",
            "name": "m/t/dense/s0",
            "config": {},
            "provenance": {},
            "created_at": "2026-01-01T00:00:00+00:00",
        }
        | changes
    )


@pytest.mark.parametrize(
    ("one", "other"), [("mnli:test", "mnli_test"), ("test/en", "test_en"), ("test[:5%]", "test[:5_]")]
)
def test_no_two_splits_share_a_file_of_predictions(one: str, other: str, tmp_path: Path) -> None:
    store.write_predictions(tmp_path, one, np.array([1, 2]))
    with pytest.raises(BenchError, match="holds no predictions"):
        store.read_predictions(tmp_path, other)
    store.write_predictions(tmp_path, other, np.array([3]))
    assert store.read_predictions(tmp_path, one).tolist() == [1, 2]
    assert store.read_predictions(tmp_path, other).tolist() == [3]


def test_predictions_under_their_former_name_are_read_as_those_of_their_own_split_only(
    tmp_path: Path,
) -> None:
    store.write_predictions(tmp_path, "test/en", np.array([1, 2]))
    next(tmp_path.iterdir()).rename(tmp_path / "test_en.safetensors")
    assert store.read_predictions(tmp_path, "test/en").tolist() == [1, 2]
    with pytest.raises(BenchError, match="they are of test/en"):
        store.read_predictions(tmp_path, "test_en")


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = store.write(record(metrics={"test": {"accuracy": 0.5}}), tmp_path)
    assert path == tmp_path / "runs/m/t/dense/s0-0123456789ab.json"
    assert store.read_all(tmp_path) == ([record(metrics={"test": {"accuracy": 0.5}})], [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "Expecting"),
        ("[]", "not a JSON object"),
        ('{"schema_version": 99}', "schema_version 99"),
        (json.dumps({"schema_version": 1, "run_id": "x"}), "no key"),
        (json.dumps(record(status="fine")), "unknown status 'fine'"),
        (json.dumps(record(run_id="other")), "run_id 'other'"),
        (json.dumps(record(name="../../../outside/s1")), "name '../../../outside/s1'"),
    ],
)
def test_a_bad_file_is_named_and_the_others_are_read(tmp_path, text, reason):
    path = store.write(record(), tmp_path)
    bad = path.with_name("s1-0123456789ab.json")
    bad.write_text(path.read_text()[:100] if text is None else text)
    records, problems = store.read_all(tmp_path)
    assert len(records) == 1 and problems[0][0] == bad and reason in problems[0][1]


def test_nan_is_refused_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        store.write(record(metrics={"test": {"accuracy": float("nan")}}), tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_a_full_disk_leaves_the_old_record_whole(tmp_path, monkeypatch):
    path = store.write(record(), tmp_path)
    before = path.read_text()
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(EnvironmentBroken, match="No space left on device.*results_dir"):
        store.write(record(metrics={"test": {"accuracy": 1.0}}), tmp_path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_unwritable_results_folder_is_found_at_once(tmp_path):
    blocker = tmp_path / "results"
    blocker.write_text("a file where the folder should be")
    with pytest.raises(EnvironmentBroken, match="results_dir"):
        store.check_writable(tmp_path / "cache", blocker)
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_with_room_for_an_empty_file_only_is_not_writable(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # longer files fail, as on a full disk
    try:
        with pytest.raises(EnvironmentBroken, match="free some space"):
            store.check_writable(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
