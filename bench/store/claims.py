"""Claims: files beside the records that say which process works on which run.

The protocol is correct on a shared folder with NFS's guarantee that only one process creates a file (O_EXCL). It relies
neither on locks, nor on renaming over a file, nor on the nodes' clocks, even where a file carries the time of the node
that touched it (Lustre). Taking over a claim never removes or renames it: the next holder creates the file with the next
number, so two processes that judge the same claim dead cannot both succeed it.
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
# Seconds for which a process must itself watch a claim stand still before it takes the claim over.
WATCH = 3 * BEAT
SKEW = 3600.0  # seconds by which nodes' clocks may differ; an older claim is dead without watching
LOST = 75  # exit status of a process whose claim was taken over

log = logging.getLogger("bench")
# claim -> its last heartbeat, and when this process first saw that heartbeat
_watched: dict[Path, tuple[float, float]] = {}


@dataclass(frozen=True)
class Claim:
    """The right to work on a run. `path` is <record without .json>.claim<n>, where n holders died before."""

    path: Path
    owner: str  # the file's text, JSON
    deaths: int  # n

    def held(self) -> bool:
        """Return whether the claim still belongs to this process and is the newest."""
        return (
            _text(self.path) == self.owner
            and max(_numbers(self.path.with_suffix(".json")), default=-1) == self.deaths
        )

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Touch the claim every BEAT seconds within the block.

        A process that was suspended too long and lost its claim exits at once with status LOST.
        """
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT):
                with suppress(OSError):  # the file server may be away for a moment
                    if not self.held() and not done.is_set():
                        log.error("%s was taken over by another process: this process stops", self.path)
                        os._exit(LOST)
                    os.utime(self.path)  # without times: the file server's own clock

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()

    def release(self) -> None:
        """Release the claim. Delete dead holders' files before our own, so that the run stays claimed until the end."""
        if self.held():
            for number in sorted(_numbers(self.path.with_suffix(".json"))):
                _path(self.path.with_suffix(".json"), number).unlink(missing_ok=True)


def take(record: Path) -> Claim | None:
    """Claim the run whose record will be `record`; return None while another process holds it.

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
    # Other processes may have come and gone since the first look: withdraw if there is a newer or a living claim now.
    others = _numbers(record) - {claim.deaths}
    if max(others, default=-1) != newest or (newest >= 0 and not _dead(_path(record, newest))):
        claim.path.unlink(missing_ok=True)
        return None
    return claim


def untouched(record: Path) -> bool:
    """Return whether the run has no claim: it was never claimed, or every claim was released."""
    return not _numbers(record)


def holder(record: Path) -> dict[str, Any] | None:
    """Return which process works on the run (host, pid, slurm_job_id), or None."""
    newest = max(_numbers(record), default=-1)
    if newest < 0 or expired(_path(record, newest)):
        return None
    try:
        return dict(json.loads(_text(_path(record, newest)) or "{}"))
    except ValueError:  # being written
        return {}


def expired(path: Path) -> bool:
    """Return whether the claim's holder is dead: its process on this machine has ended, or its heartbeat stopped."""
    return _age(path)[0] > EXPIRY


def _dead(path: Path) -> bool:
    """Return whether a claim may be taken over: it has expired, and stood still while this process watched it.

    Where a file carries the time of the node that touched it, the claims of a node whose clock is minutes late look
    expired although their holders live. Such claims still change, which watching reveals.
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
    """Return the seconds since the last heartbeat and its time; infinite and 0 if the holder is known to be dead."""
    text = _text(path)
    if text is None:
        return math.inf, 0.0
    with suppress(ValueError):
        owner, here = json.loads(text), _myself()
        if owner["machine"] == here["machine"] is not None and _started(owner["pid"]) != owner["started"]:
            return math.inf, 0.0
    try:
        with open(path) as file:  # opening refreshes the attributes, also on NFS
            beat = os.fstat(file.fileno()).st_mtime
            return clock(path.parent) - beat, beat
    except FileNotFoundError:
        return math.inf, 0.0
    except OSError:  # the clock needs a folder that can be written
        return 0.0, 0.0


def clock(folder: Path) -> float:
    """Return the time by the clock of the folder's file system, the only clock that all nodes share."""
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
    """Identify this boot and PID namespace: PIDs are comparable only within them."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: only the heartbeat counts
        return None


def _started(pid: int) -> str | None:
    """Return when a process of this machine started, in ticks since the boot, or None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
