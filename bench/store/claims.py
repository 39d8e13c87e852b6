"""Claims: which process works on which run, told by files beside the records.

Correct on a shared folder with NFS's promises: a file is created by one process only (O_EXCL). Nothing relies on locks, on
renaming over a file or on the nodes' clocks, even where a file has the time of the node that touched it (Lustre). A claim
that is taken over is never removed or renamed by the taker: the next holder creates the file with the next number, so two
processes that judge one claim dead cannot both succeed it.
"""

import json
import logging
import math
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import store

BEAT = 10.0  # seconds between heartbeats
EXPIRY = 120.0  # seconds without a heartbeat after which a holder is dead: NFS may show a time 60 s late
WATCH = (
    3 * BEAT
)  # seconds for which a claim must stand still under a process's own eyes before it is taken over
SKEW = 3600.0  # seconds by which nodes' clocks may differ: a claim older than that needs no watching
LOST = 75  # exit status of a process that finds its claim taken over

log = logging.getLogger("bench")
_watched: dict[
    Path, tuple[float, float]
] = {}  # claim -> its last heartbeat, and when this process first saw that one


@dataclass(frozen=True)
class Claim:
    """The right to work on one run: `path` is <record without .json>.claim<n>, after n holders that died."""

    path: Path
    owner: str  # the file's text, JSON
    deaths: int

    def held(self) -> bool:
        """Return whether this claim is still this process's own, and the newest."""
        return (
            _text(self.path) == self.owner
            and max(_numbers(self.path.with_suffix(".json")), default=-1) == self.deaths
        )

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Show every BEAT seconds that the holder lives. A process that lost its claim (it slept too long) ends at once."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT):
                with suppress(OSError):  # a file server that is away for a moment
                    if not self.held() and not done.is_set():
                        log.error("%s was taken over by another process: this one stops", self.path)
                        os._exit(LOST)
                    os.utime(self.path)  # without times: the file server's own clock

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()

    def release(self) -> None:
        """Give the run free. The dead holders' files go first: as long as this one is there, the run is held."""
        if self.held():
            for number in sorted(_numbers(self.path.with_suffix(".json"))):
                _path(self.path.with_suffix(".json"), number).unlink(missing_ok=True)


def take(record: Path) -> Claim | None:
    """Return the claim on the run whose record is to be `record`, or None while another process holds it.

    Raises EnvironmentBroken if the folder cannot be written.
    """
    newest = max(_numbers(record), default=-1)
    if newest >= 0 and not _dead(_path(record, newest)):
        return None
    claim = Claim(_path(record, newest + 1), json.dumps(_myself() | {"token": uuid.uuid4().hex}), newest + 1)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(claim.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        try:
            with os.fdopen(handle, "w") as file:
                file.write(claim.owner)
        except OSError:
            claim.path.unlink()
            raise
    except OSError as error:
        raise store.unwritable(claim.path, error) from error
    # Between the look and the creation others may have come and gone: whoever now sees a newer or a living claim withdraws.
    others = _numbers(record) - {claim.deaths}
    if max(others, default=-1) != newest or (newest >= 0 and not _dead(_path(record, newest))):
        claim.path.unlink(missing_ok=True)
        return None
    return claim


def untouched(record: Path) -> bool:
    """Return whether nobody has ever claimed the run, or all gave it free."""
    return not _numbers(record)


def holder(record: Path) -> dict[str, Any] | None:
    """Return who works on the run now: host, pid, slurm_job_id; None if nobody does."""
    newest = max(_numbers(record), default=-1)
    if newest < 0 or expired(_path(record, newest)):
        return None
    try:
        return dict(json.loads(_text(_path(record, newest)) or "{}"))
    except ValueError:  # being written
        return {}


def expired(path: Path) -> bool:
    """Return whether the claim's holder is dead: a process of this machine that is gone, or one that ceased to beat."""
    return _age(path)[0] > EXPIRY


def _dead(path: Path) -> bool:
    """Return whether a claim may be taken over: it has expired, and stood still while this process watched it.

    Where a file's time is that of the node which touched it, the claims of a node whose clock is minutes late look expired
    while their holders live; but they change.
    """
    age, beat = _age(path)
    if not EXPIRY < age < SKEW:
        return age > EXPIRY
    last, since = _watched.get(path, (None, 0.0))
    if last != beat:
        _watched[path] = beat, time.monotonic()
        return False
    return time.monotonic() - since > WATCH


def _age(path: Path) -> tuple[float, float]:
    """Return the seconds since the holder's last heartbeat, infinite if it is known to be dead, and the heartbeat's time."""
    text = _text(path)
    if text is None:
        return math.inf, 0.0
    with suppress(ValueError):
        owner, here = json.loads(text), _myself()
        if owner["machine"] == here["machine"] is not None and _started(owner["pid"]) != owner["started"]:
            return math.inf, 0.0
    try:
        with open(path) as file:  # opening fetches the attributes anew, also on NFS
            beat = os.fstat(file.fileno()).st_mtime
            return clock(path.parent) - beat, beat
    except FileNotFoundError:
        return math.inf, 0.0
    except OSError:  # a folder that cannot be written has no clock
        return 0.0, 0.0


def clock(folder: Path) -> float:
    """Return the time by the clock of the folder's file system: the only one that all nodes share."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-", suffix=".tmp") as probe:
        os.utime(probe.name)
        return os.fstat(probe.fileno()).st_mtime


def _path(record: Path, number: int) -> Path:
    return record.with_suffix(f".claim{number}")


def _numbers(record: Path) -> set[int]:
    """Return the numbers of the claims on a run."""
    try:
        names = os.listdir(record.parent)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    pattern = re.compile(rf"{re.escape(record.stem)}\.claim(\d+)")
    return {int(match[1]) for name in names if (match := pattern.fullmatch(name))}


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


@cache
def _machine() -> str | None:
    """Return what tells this system's process numbers from all others': the boot and the namespace of processes."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: only the heartbeat counts
        return None


def _started(pid: int) -> str | None:
    """Return when a process of this machine was started, in ticks since the boot; None if it is gone."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
