"""Parquet files: `<split>.parquet`, or the hub's shards `<split>-00000-of-00003.parquet`.

They lie in `<root>/<suite>/<task or language>/` or, as in a clone of the hub's repository, in
`<root>/<task or language>/`. XNLI's `all_languages` holds every language in nested columns.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.errors import DataError
from bench.settings.schema import TaskConfig

# A split's name is a word, as in datasets. Other files ("._train", "train (1)") are not splits.
FILE = re.compile(r"(\w+(?:\.\w+)*)(?:-(\d{5})-of-(\d{5}))?\.parquet", re.ASCII)
ALL_LANGUAGES = "all_languages"
LFS_POINTER = b"version https://git-lfs"


def folders(task: TaskConfig, root: Path, language: str | None) -> list[Path]:
    """Return the folders that may hold the task's files in a language, the first choice first."""
    names = [language, ALL_LANGUAGES] if language else [task.hub_config or task.name]
    return [root / part / name for name in names for part in (task.suite, "")]


def splits(task: TaskConfig, root: Path, language: str | None) -> list[str]:
    """Return the splits of a task in a language that have files."""
    return sorted({split for folder in folders(task, root, language) for split in _shards(folder)})


def files(task: TaskConfig, root: Path, split: str, language: str | None) -> dict[str, Path]:
    """Return a split's files in order, by their names in the plain layout; {} where there are none.

    Raises DataError for a missing shard, and for two complete sets of shards.
    """
    for folder in folders(task, root, language):
        sets = _shards(folder).get(split, {})
        if not sets:
            continue
        if 0 in sets:
            return {f"{task.suite}/{folder.name}/{split}.parquet": sets[0][0]}

        # Take the complete set, even beside shards of another set, as after an update of the data set.
        whole = [count for count, shards in sets.items() if sorted(shards) == [*range(count)]]
        if len(whole) > 1:
            raise DataError(
                f"data.root: {folder} holds {split} in {' and in '.join(map(str, sorted(whole)))} shards: "
                "delete the set that is out of date."
            )
        if not whole:
            count, shards = max(sets.items(), key=lambda item: len(item[1]))
            missing = next((number for number in range(count) if number not in shards), count)
            raise DataError(
                f"data.root: {folder / f'{split}-{missing:05d}-of-{count:05d}.parquet'} is missing, and "
                f"{len(shards)} of the {count} shards of {split} are there: get the others too."
            )
        names = [f"-{number:05d}-of-{whole[0]:05d}" if whole[0] > 1 else "" for number in range(whole[0])]
        return {
            f"{task.suite}/{folder.name}/{split}{name}.parquet": sets[whole[0]][number]
            for number, name in enumerate(names)
        }
    return {}


def _shards(folder: Path) -> dict[str, dict[int, dict[int, Path]]]:
    """Return split -> number of shards (0: a whole file) -> number of the shard -> file."""
    shards: dict[str, dict[int, dict[int, Path]]] = {}
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (match := FILE.fullmatch(path.name)) and path.is_file():
                split, number, count = match[1], int(match[2] or 0), int(match[3] or 0)
                shards.setdefault(split, {}).setdefault(count, {})[number] = path
    except OSError as error:
        raise DataError(
            f"data.root: {folder} cannot be read ({error.strerror}): check its rights."
        ) from error
    return shards


def read(paths: Sequence[Path], task: TaskConfig) -> tuple[pa.Table, list[str] | None]:
    """Return the rows of the files, and the class names in the order of their codes if the first file has them.

    Raises DataError for a file that cannot be read, and for shards with different columns.
    """
    tables = [_table(path) for path in paths]
    try:
        table = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    except pa.ArrowException as error:
        raise DataError(
            f"data.root: the shards beside {paths[0]} do not have the same columns ({_line(error)}): get all of "
            "one release."
        ) from error
    return table, _class_names(tables[0].schema, task, paths[0])


def _table(path: Path) -> pa.Table:
    import pyarrow.parquet as pq  # only this source needs it

    try:
        with pq.ParquetFile(path) as file:  # pq.read_table would import pandas
            table = file.read()
        table.validate(full=True)  # UTF-8 is not checked while reading
    except PermissionError as error:
        raise DataError(f"data.root: {path} cannot be read ({error.strerror}): check its rights.") from error
    except (pa.ArrowException, OSError) as error:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        cause = "it is damaged or half-downloaded; get it again"
        if pointer:
            cause = "it is a pointer of Git LFS and not the file; run `git lfs pull` where it was cloned"
        elif "UTF8" in str(error):
            cause = "its text is in another encoding; write it again as UTF-8"
        raise DataError(f"data.root: {path} cannot be read ({_line(error)}): {cause}.") from error
    return table


def _class_names(schema: pa.Schema, task: TaskConfig, path: Path) -> list[str] | None:
    """Return the class names in the order of their codes, if datasets wrote them into the file."""
    try:
        info: dict[str, Any] = (
            json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info") or {}
        )
        label = (info.get("features") or {}).get(task.label_column) or {}
        return label.get("names") if label.get("_type") == "ClassLabel" else None
    except (ValueError, AttributeError) as error:
        raise DataError(f"data.root: {path} has a damaged description of its columns ({error}).") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
