"""Claims: one holder at a time, whatever dies; judged by the file system's clock."""

import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.errors import EnvironmentBroken
from bench.store import claims
from tests.support.commands import ROOT

CLAIMANT = [sys.executable, str(ROOT / "tests/support/claimant.py")]


@pytest.fixture
def record(tmp_path):
    return tmp_path / "runs/m/t/dense/s0-0123456789ab.json"


def elsewhere(record, number=0, age=0.0):
    """Put there the claim of a process on another machine that showed life `age` seconds ago."""
    path = record.with_suffix(f".claim{number}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"host": "n7", "machine": "another", "pid": 1, "started": "1", "slurm_job_id": "12"})
    )
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_claim_is_held_once_and_leaves_nothing_behind(record):
    claim = claims.take(record)
    assert claim and claim.deaths == 0 and claims.take(record) is None
    assert claims.holder(record)["pid"] == os.getpid()
    claim.release()
    assert claims.holder(record) is None and list(record.parent.iterdir()) == []
    assert claims.take(record)


def test_a_dead_workers_claim_expires_and_is_counted(record):
    elsewhere(record, age=claims.EXPIRY - 30)
    assert claims.take(record) is None and claims.holder(record)["slurm_job_id"] == "12"
    elsewhere(record, age=claims.SKEW + 30)
    assert claims.holder(record) is None
    claim = claims.take(record)
    assert claim and claim.deaths == 1 and claims.take(record) is None
    claim.release()
    assert list(record.parent.iterdir()) == []


def test_a_killed_process_of_this_machine_is_known_dead_at_once(record):
    code = f"from pathlib import Path; from bench.store import claims; claims.take(Path({str(record)!r})); import os; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert record.with_suffix(".claim0").exists()
    claim = claims.take(record)
    assert claim and claim.deaths == 1


@pytest.mark.parametrize("hours", [-26, 26])
def test_the_nodes_own_clock_does_not_matter(record, monkeypatch, hours):
    elsewhere(record)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
    assert claims.take(record) is None, "alive by the file system's clock"


def test_a_holder_whose_file_times_are_minutes_late_is_watched_before_it_is_taken_for_dead(
    record, monkeypatch
):
    watched = 0.0
    monkeypatch.setattr(claims.time, "monotonic", lambda: watched)
    for _ in range(5):  # it beats, by a clock seven minutes late
        path = elsewhere(record, age=420)
        assert claims.take(record) is None
        watched += claims.WATCH - 1
        assert claims.take(record) is None
        watched += 2
    os.utime(path, (time.time() - 420,) * 2)  # its last heartbeat
    assert claims.take(record) is None
    watched += claims.WATCH + 1
    claim = claims.take(record)
    assert claim and claim.deaths == 1


def test_of_many_that_find_a_dead_claim_one_succeeds(record):
    with ThreadPoolExecutor(16) as pool:
        for _ in range(60):
            elsewhere(record, age=claims.SKEW + 30)
            got = [claim for claim in pool.map(claims.take, [record] * 16) if claim]
            assert len(got) <= 1
            for claim in got or filter(None, [claims.take(record)]):
                claim.release()
            assert list(record.parent.iterdir()) == []


def test_a_process_whose_claim_was_taken_over_ends_without_a_record(record):
    code = (
        "import time; from pathlib import Path; from bench.store import claims; claims.BEAT = 0.05\n"
        f"claim = claims.take(Path({str(record)!r}))\nwith claim.beating(): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    elsewhere(record, number=1)
    assert process.wait(20) == claims.LOST


def test_a_living_holder_shows_life(record, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.02)
    claim = claims.take(record)
    os.utime(claim.path, (1, 1))
    with claim.beating():
        end = time.monotonic() + 10
        while claim.path.stat().st_mtime == 1:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not claims.expired(claim.path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentBroken, match="results_dir"):
        claims.take(tmp_path / "file" / "s0-x.json")


def test_under_kills_each_record_is_worked_on_by_one_process_at_a_time(tmp_path):
    (tmp_path / "todo").write_text("\n".join(f"r{number}.json" for number in range(120)))
    generator = random.Random(0)
    workers = [
        subprocess.Popen([*CLAIMANT, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)
    ]
    kills, end = 0, time.monotonic() + 120
    while any(worker.poll() is None for worker in workers):
        assert time.monotonic() < end, "the records are not done"
        time.sleep(0.3)
        if (tmp_path / "begun").exists() and kills < 10:
            victim = generator.randrange(4)
            workers[victim].kill()
            workers[victim].wait()
            workers[victim] = subprocess.Popen([*CLAIMANT, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
            kills += 1
    assert [worker.stderr.read() for worker in workers if worker.stderr and worker.returncode] == []
    assert not (tmp_path / "violation").exists(), (tmp_path / "violation").read_text()
    begun = (tmp_path / "begun").read_text().split()
    assert len(set(begun)) == 120 and len(begun) <= 120 + kills
    # Claims of processes that were killed between writing the record and releasing the claim.
    left = list(tmp_path.glob("*.claim*"))
    assert len(left) <= kills and all(claims.expired(path) for path in left)
