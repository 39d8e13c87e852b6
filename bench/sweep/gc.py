"""Free space: files that can be made again or belong to nobody. Records, also unreadable ones moved aside, always stay."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import store
from bench.store import claims
from bench.sweep import launchers

PRETRAINED = "pretrained"  # in the cache: took device hours, and records of any results folder name its files by digest


@dataclass(frozen=True)
class Garbage:
    """A file or folder that may be deleted, and why."""

    path: Path
    reason: str
    size: int  # bytes


def find(results_dir: Path, cache_dir: Path) -> list[Garbage]:
    """Return what may be deleted: dead processes' claims, temporary files, what has no record, jobs' files, the cache.

    While a run goes on in `results_dir`, or a job for it waits in a queue, that is dead processes' claims only. Models that were
    pretrained here stay in the cache.
    """
    every = list(results_dir.rglob("*.claim[0-9]*"))
    dead = [path for path in every if claims.expired(path)]
    expired = [_garbage(path, "claim of a process that ended") for path in dead]
    if len(dead) < len(every) or any(launcher.busy(results_dir) for launcher in launchers.every()):
        return expired
    kept = results_dir.resolve()
    temporary = [path for folder in (results_dir, cache_dir / PRETRAINED) for path in folder.rglob(".*.tmp")]
    return [
        *expired,
        *(
            _garbage(path, f"{kind} without a record")
            for kind in ("predictions", "models")
            for path in _orphans(results_dir / kind)
        ),
        *(_garbage(path, "temporary file") for path in sorted(temporary)),
        *(_garbage(path, "files of ended jobs") for path in sorted((results_dir / "jobs").glob("*"))),
        *(
            _garbage(path, "cache")
            for path in sorted(cache_dir.glob("*"))
            if path.name != PRETRAINED and not kept.is_relative_to(path.resolve())
        ),
    ]


def pretrained_here(cache_dir: Path) -> list[Garbage]:
    """Return the folder of models that were pretrained here, which `find` leaves alone, and why; none where it is missing."""
    folder = cache_dir / PRETRAINED
    reason = "kept: it took device hours, and records name its files by digest; delete the folder yourself"
    return [_garbage(folder, reason)] if folder.exists() else []


def remove(garbage: Garbage) -> None:
    """Delete the file or folder."""
    if garbage.path.is_dir() and not garbage.path.is_symlink():
        shutil.rmtree(garbage.path)
    else:
        garbage.path.unlink(missing_ok=True)


def _orphans(kind: Path) -> Iterator[Path]:
    for folder in sorted(
        {path.parent for path in kind.rglob("*.safetensors") if path.parent.suffix != ".tmp"}
    ):
        name, _, run_id = str(folder.relative_to(kind)).rpartition("-")
        if not store.path_of(kind.parent, name, run_id).exists():
            yield folder


def _garbage(path: Path, reason: str) -> Garbage:
    files = (
        [path]
        if path.is_file() or path.is_symlink()
        else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    )
    return Garbage(path, reason, sum(file.stat().st_size for file in files))
