"""Files written whole, digests of contents, and a cache of what takes long to compute."""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bench.errors import EnvironmentBroken

PROBE = 2**20  # bytes that must fit into a folder: a full disk still creates empty files
Value = TypeVar("Value")
log = logging.getLogger("bench")


def sha256(content: str | bytes) -> str:
    """Return the SHA-256 of bytes, or of a text as UTF-8, in 64 hex digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def lines_sha256(lines: Iterable[str]) -> str:
    """Return `sha256` of the lines joined by line feeds, one line at a time in memory, or the one that the lines carry."""
    if isinstance(carried := getattr(lines, "sha256", None), str):
        return carried  # as `bench.tasks.corpora.Passages` do: a pass over 500,000 takes a second
    digest = hashlib.sha256()
    for number, line in enumerate(lines):
        digest.update((f"\n{line}" if number else line).encode())
    return digest.hexdigest()


def file_sha256(*paths: Path) -> str:
    """Return the SHA-256 of the files' contents, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def array_sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of shape (int64) and contents, both little-endian."""
    digest = hashlib.sha256(np.array(array.shape, dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def key(*parts: object) -> str:
    """Return the SHA-256 of `parts` as JSON with sorted keys; arrays count by type, shape and contents.

    It names a cached file, so pass everything that decides the content.
    """
    return sha256(json.dumps(parts, sort_keys=True, default=_array_facts))


def _array_facts(part: object) -> list[str]:
    if not isinstance(part, np.ndarray):
        raise TypeError(f"{type(part).__name__} cannot be part of a key")
    return [part.dtype.str, array_sha256(part)]


def cached(
    path: Path,
    build: Callable[[], Value],
    load: Callable[[Path], Value],
    save: Callable[[Value, Path], object],
) -> Value:
    """Return what `load` reads from the file; where it is missing or damaged, build it and `save` it first.

    Processes that build the same at once each write a whole file, and the last one stays. Raises EnvironmentBroken
    if the folder cannot be written.
    """
    value = read_cached(path, load)
    if value is None:
        value = build()
        with atomic(path) as temporary:
            save(value, temporary)
        value = load(path)
    return value


@contextmanager
def locked(*paths: Path) -> Iterator[None]:
    """Hold the locks of the files within the block, or first wait for other processes that make them; make their folders.

    All lock in the same order, since two processes could otherwise wait for each other forever.
    """
    with ExitStack() as locks:
        for path in sorted(set(paths)):
            make_folder(path.parent)
            locks.enter_context(FileLock(path.with_suffix(".lock")))
        yield


def cached_array(path: Path, build: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array kept in the file, as `cached` does."""
    return cached(path, build, load_array, save_array)


def read_cached(path: Path, load: Callable[[Path], Value]) -> Value | None:
    """Return what `load` reads from the file, or None where it is missing or damaged; the latter is logged."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        log.warning("%s cannot be read (%s): it is computed again", path, error)
        return None


def load_array(path: Path) -> np.ndarray:
    """Return the array that `save_array` wrote; raises ValueError where its checksum is not the one in the file."""
    with safe_open(path, "np") as file:
        array, metadata = cast(np.ndarray, file.get_tensor("array")), file.metadata() or {}
    if array_sha256(array) != metadata.get("sha256"):
        raise ValueError("its checksum differs")
    return array


def save_array(array: np.ndarray, path: Path) -> None:
    """Write the array and its checksum as a safetensors file."""
    whole = np.ascontiguousarray(array)  # safetensors would write a view's memory in the wrong order
    path.write_bytes(save({"array": whole}, {"sha256": array_sha256(array)}))


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file or folder to write; it replaces `path` when the block ends without an error.

    No reader and no crash ever sees half of it. Raises EnvironmentBroken if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if temporary.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` as `atomic` does."""
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises EnvironmentBroken if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def check_writable(*folders: Path) -> None:
    """Raise EnvironmentBroken, before any work, for the first folder that does not take a megabyte."""
    for folder in folders:
        probe = folder / f".writable-{secrets.token_hex(8)}"
        try:
            write_atomically(probe, os.urandom(PROBE))
        except EnvironmentBroken as error:
            raise unwritable(folder, cast(OSError, error.__cause__)) from error
        probe.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError | SafetensorError) -> EnvironmentBroken:
    """Return the error of a folder that is full or read-only; safetensors raises its own for a full disk."""
    reason = (isinstance(error, OSError) and error.strerror) or error
    full = not isinstance(error, OSError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return EnvironmentBroken(
        f"{path} cannot be written ({reason}): {'free some space, or ' if full else ''}set results_dir, cache_dir or --to, "
        "whichever names it, to a folder that you can write."
    )
