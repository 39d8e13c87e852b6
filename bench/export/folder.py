"""The exported folder: written whole or not at all, with the digest of every file. Loading checks the digests."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, ConfigError
from bench.models import storage
from bench.store import atomic, check_writable, file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
LOADED = ("config.json", storage.DESCRIPTION, "model.safetensors")


def check_target(to: Path) -> None:
    """Raise ConfigError if `to` exists and is not an empty folder, EnvironmentBroken if it cannot be written."""
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise ConfigError(f"--to ({to}) is not an empty folder: name another one, or empty it first.")
    check_writable(to.parent)


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Yield a folder to fill. It becomes `to`, with its digests, when the block ends without an error."""
    with atomic(to) as folder:
        folder.mkdir()
        yield folder
        sums = [f"{file_sha256(folder / name)}  {name}\n" for name in files(folder)]
        (folder / SUMS).write_text("".join(sums))
        # safetensors makes files that only their owner can read, and a server often runs as another user.
        for name in files(folder):
            shutil.copymode(folder / SUMS, folder / name)
        check_target(to)


def files(folder: Path) -> dict[str, int]:
    """Return the bytes of every file of a folder and of those in it, by its path from there, sorted."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: found[name].stat().st_size for name in sorted(found)}


def verify(folder: Path) -> set[str]:
    """Compare the digest of every file in an exported folder and return the files' names.

    Raises BenchError for a folder without digests, a missing file, and a changed file, with both digests.
    """
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(
            f"{folder} is not a complete folder of `bench export`: its {SUMS} cannot be read ({error})."
        ) from error
    names = set()
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+(?:/[\w.-]+)?)", line)
        if not match or any(set(part) == {"."} for part in match[2].split("/")):
            raise BenchError(
                f"{folder / SUMS} holds a line that is no digest of a file beside it: {line[:100]!r}; export again."
            )
        expected, name = match.groups()
        names.add(name)
        try:
            actual = file_sha256(folder / name)
        except OSError as error:
            raise BenchError(
                f"{folder / name} cannot be read ({error.strerror}), but {SUMS} names it: export again."
            ) from error
        if actual != expected:
            raise BenchError(
                f"{folder / name} has the SHA-256 {actual}, but {SUMS} says {expected}: the file was cut short or changed, and "
                "nothing was loaded; export again."
            )
    return names


def load_compressed(folder: str | Path) -> "PreTrainedModel":
    """Return the model of a folder written by `bench export`, after checking the digest of every file.

    Raises BenchError for a missing or changed file, and for a dense export.
    """
    folder = Path(folder)
    names = verify(folder)
    if missing := [name for name in LOADED if name not in names]:
        raise BenchError(
            f"{folder / SUMS} does not name {missing[0]}: an export in plain form is loaded with AutoModelForSequenceClassification, an "
            "encoder with AutoModel."
        )
    return storage.load_compressed(folder)
