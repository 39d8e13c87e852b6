"""A task's splits, read from any source and checked against the task's definition."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.errors import DataError, unknown
from bench.settings.schema import DataConfig, TaskConfig
from bench.store import file_sha256, sha256
from bench.tasks import official, sources
from bench.tasks.columns import checked
from bench.tasks.sources import Request
from bench.tasks.specs import read_task


@dataclass(frozen=True)
class Rows:
    """A split's rows, with the methods of `datasets.Dataset` that bench needs. Importing that class loads 600 modules."""

    table: pa.Table
    fingerprint: str  # differs whenever the content differs

    @property
    def column_names(self) -> list[str]:
        """Return the names of the columns in order."""
        return list(self.table.column_names)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, column: str) -> list[Any]:
        return list(self.table[column].to_pylist())

    def select(self, rows: np.ndarray) -> "Rows":
        """Return the rows with these numbers."""
        # pa.array would import pandas.
        numbers = pa.py_buffer(np.ascontiguousarray(rows, dtype=np.int64))
        return _rows(self.table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, numbers])))

    def select_columns(self, names: list[str]) -> "Rows":
        """Return the rows with these columns only."""
        return Rows(self.table.select(names), f"{self.fingerprint} {names}")

    def add_column(self, name: str, values: list[Any]) -> "Rows":
        """Return the rows with another column."""
        return _rows(self.table.append_column(name, pa.array(values)))


def _rows(table: pa.Table) -> Rows:
    table = table.combine_chunks()
    return Rows(table, _digest(table))


def resolve_source(task: TaskConfig, data: DataConfig) -> str:
    """Return the source of the task's rows: generated, parquet, official or hub."""
    if data.source == "generated" and task.suite != "lexical":
        raise DataError(
            f"data.source=generated makes the lexical suite only, not {task.name}: use parquet, official or hub."
        )
    if data.source != "auto":
        if data.source not in sources.READERS:
            raise DataError(f"data.source: {unknown('source', data.source, ['auto', *sources.READERS])}")
        return data.source
    if task.suite == "lexical":
        return "generated"
    if data.root is None:
        return "hub"
    return "official" if official.exists(task, Path(data.root)) else "parquet"


def languages_of(task: TaskConfig, role: str) -> list[str | None]:
    """Return the languages of a role: all for evaluation and prediction, else the training language (None without)."""
    if task.languages and role in [*task.evaluate, *task.predict]:
        return [*task.languages]
    return [task.train_language]


def load_split(
    task: TaskConfig, data: DataConfig, role: str, language: str | None = None, *, labels: bool = True
) -> Rows:
    """Return a role's rows: text columns, `label` (int64; float32 for a regression), idx and categories if present.

    `language` defaults to `task.train_language`. With `labels=False` labels may be hidden (-1) or absent. Raises
    DataError where the split is missing or contradicts the task.
    """
    # Read the splits.
    request, spec = locate_split(task, data, role, language)
    tables: dict[str, pa.Table] = {}
    for split in _names(spec):
        part = replace(request, split=split)
        tables[split] = checked(sources.read(part), task, part, labels)

    # Cut them as the slices say, and join the parts.
    key = f"task.splits.{role} ({task.splits[role]})"
    lengths = {split: table.num_rows for split, table in tables.items()}
    try:
        parts = [tables[split].slice(start, end - start) for split, start, end in _parts(spec, lengths)]
    except (ValueError, AssertionError) as error:
        raise DataError(f"{key} cannot be cut from {lengths}: {error}") from error
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{key} joins splits with different columns: {error}.") from error
    if not table.num_rows:
        raise DataError(f"{key} selects no row of {lengths}: widen the slice.")
    return _rows(table)


def split_facts(task: TaskConfig, data: DataConfig, splits: Mapping[str, Rows]) -> dict[str, dict[str, Any]]:
    """Return role -> {split, rows, official_rows}; the official count is null for a split that is not official.

    `splits` has the loaded rows by role, for a role in several languages the rows of a single language.
    """
    facts = {}
    for role, loaded in splits.items():
        request, spec = locate_split(task, data, role, None)
        names = _names(spec)
        official_rows = request.task.official_rows.get(names[0]) if len(names) == 1 else None
        facts[role] = {"split": task.splits[role], "rows": len(loaded), "official_rows": official_rows}
    return facts


def data_identity(task: TaskConfig, data: DataConfig, roles: Iterable[str]) -> str:
    """Return the SHA-256 of the data that the roles read, in every language, or "hub:<revision>".

    It covers the files' bytes and their names in the plain layout, not the rows: the same rows in other files or
    shards count as other data. Bytes need no parsing, which a plan of many runs would pay for. Raises DataError where
    a file is missing, so that a run with missing data stops before any work.
    """
    digests, revisions = set(), []
    for role in roles:
        for language in languages_of(task, role):
            request, spec = locate_split(task, data, role, language)
            for split in _names(spec):
                part = replace(request, split=split)
                if part.source == "hub":
                    sources.read(part)  # raises where it is missing
                    revisions.append(str(part.task.revision))
                elif part.source == "generated":
                    sources.read(part)  # raises where it is missing
                    digests.add(f"{split}:{_generated_digest(part.task.name, split)}")
                for name, path in sources.files(part).items():
                    stat = path.stat()
                    digests.add(f"{name}:{_file_digest(path, stat.st_mtime_ns, stat.st_size)}")
    lines = [*dict.fromkeys(revisions), *sorted(digests)]
    if not digests:
        return "hub:" + "+".join(lines)
    return sha256("\n".join(lines))


def locate_split(task: TaskConfig, data: DataConfig, role: str, language: str | None) -> tuple[Request, str]:
    """Return what a role reads, and its splits and slices in datasets' syntax.

    "<task>:<split>" leads to the files of another task. Raises DataError for an unknown role, language or syntax.
    """
    if role not in task.splits:
        raise DataError(f"task.splits of {task.name}: {unknown('role', role, task.splits)}")
    if language is not None and language not in task.languages:
        raise DataError(f"task.languages of {task.name}: {unknown('language', language, task.languages)}")
    owner, prefix, spec = task, "", task.splits[role]
    if other := re.match(r"(\w+):", spec):
        owner, prefix, spec = read_task(other[1]), other[0], spec[other.end() :]
        if (owner.columns, owner.labels) != (task.columns, task.labels):
            raise DataError(
                f"task.splits.{role} ({prefix}{spec}): {owner.name} has other columns or labels than {task.name}."
            )
    try:
        _parts(spec, None)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"task.splits.{role} ({prefix}{spec}) is not a split or a slice such as 'train[:90%]': {error}"
        ) from error
    spoken = (language or owner.train_language) if owner.languages else None
    if spoken is not None and spoken not in owner.languages:
        raise DataError(f"task.train_language: {unknown('language', spoken, owner.languages)}")
    root = Path(data.root) if data.root is not None else None
    return Request(owner, role, prefix, spec, resolve_source(owner, data), root, spoken), spec


def _parts(spec: str, lengths: dict[str, int] | None) -> list[tuple[str, int, int]]:
    """Return (split, start, end) of each part of a spec, for splits of these lengths; None: only check the syntax.

    Raises ValueError or AssertionError for a spec that datasets does not understand.
    """
    if re.fullmatch(r"\w+", spec):  # a whole split, the most common case
        return [(spec, 0, lengths[spec])] if lengths else []
    from datasets import ReadInstruction  # 600 modules

    instruction = ReadInstruction.from_spec(spec)
    absolute = instruction.to_absolute(lengths) if lengths else []
    return [(part.splitname, part.from_, part.to) for part in absolute]


def splits_read(task: TaskConfig, role: str) -> set[tuple[str, str]]:
    """Return (task, split) of each split that a role reads, whole or in part."""
    owner, spec = re.fullmatch(r"(?:(\w+):)?(.*)", task.splits[role]).groups()  # type: ignore[union-attr]
    return {(owner or task.name, name) for name in _names(spec)}


def _names(spec: str) -> list[str]:
    """Return the splits in a spec such as "train[:90%]+validation", in order and without repetition."""
    return list(dict.fromkeys(re.split(r"[\[(]", part)[0].strip() for part in spec.split("+")))


@cache
def _generated_digest(task: str, split: str) -> str:
    return _digest(sources.generated(task)[split])


def _digest(table: pa.Table) -> str:
    """Return the SHA-256 of columns and values; chunks and offsets do not matter."""
    digest = hashlib.sha256(json.dumps([[field.name, str(field.type)] for field in table.schema]).encode())
    for column in table.columns:
        for batch in range(0, len(column), 1 << 16):
            part = pa.chunked_array([pa.concat_arrays(column.slice(batch, 1 << 16).chunks)])
            digest.update(repr(part.to_pylist()).encode())
    return digest.hexdigest()


@cache
def _file_digest(path: Path, mtime_ns: int, size: int) -> str:
    return file_sha256(path)
