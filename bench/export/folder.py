"""The exported folder: written whole or not at all, with the digest of every file, which loading checks."""

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
    """Raise ConfigError unless `to` can become a new folder, as nothing is ever overwritten; EnvironmentBroken if not there."""
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise ConfigError(f"--to ({to}) is not an empty folder: name another one, or empty it first.")
    check_writable(to.parent)


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes `to`, with its digests, when the block ends without an error."""
    with atomic(to) as folder:
        folder.mkdir()
        yield folder
        sums = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
        (folder / SUMS).write_text("".join(sums))
        for path in folder.iterdir():  # safetensors' files are their owner's alone, who seldom serves them
            shutil.copymode(folder / SUMS, path)
        check_target(to)


def verify(folder: Path) -> set[str]:
    """Return the files of an exported folder, after comparing the digest of each.

    Raises BenchError for a folder without digests, and for a file that is missing or not as it was written, with both digests.
    """
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(
            f"{folder} is no folder that `bench export` wrote whole: its {SUMS} cannot be read ({error})."
        ) from error
    names = set()
    for line in lines:
        if not (match := re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)) or set(match[2]) == {"."}:
            raise BenchError(
                f"{folder / SUMS} holds a line that is no digest of a file beside it: {line[:100]!r}; export again."
            )
        wanted, name = match.groups()
        names.add(name)
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise BenchError(
                f"{folder / name} cannot be read ({error.strerror}), but {SUMS} names it: export again."
            ) from error
        if found != wanted:
            raise BenchError(
                f"{folder / name} has the SHA-256 {found}, but {SUMS} says {wanted}: the file was cut short or changed, and "
                "nothing was loaded; export again."
            )
    return names


def load_compressed(folder: str | Path) -> "PreTrainedModel":
    """Return the model of a folder that `bench export` wrote, after checking every file in it.

    Raises BenchError as `verify` does, for a dense export, and for files that are not what they should be.
    """
    folder = Path(folder)
    names = verify(folder)
    if missing := [name for name in LOADED if name not in names]:
        raise BenchError(
            f"{folder / SUMS} does not name {missing[0]}: an export in plain form is loaded with AutoModelForSequenceClassification."
        )
    return storage.load_compressed(folder)
