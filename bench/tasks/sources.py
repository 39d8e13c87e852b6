"""Where rows come from: rows made here, parquet files, the official TSV files, the hub. Each source gives one table."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from bench.config import TaskConfig
from bench.errors import DataError
from bench.tasks import official
from bench.tasks.lexical import generate

if TYPE_CHECKING:
    from datasets import DatasetDict  # 600 modules, which only the hub's rows need


@dataclass(frozen=True)
class Wanted:
    """One split as a run asks for it."""

    task: TaskConfig  # whose files they are; for "mnli:train" the task mnli
    role: str
    prefix: str  # "mnli:" where the split is another task's, else empty
    split: str  # its real name, without prefix and slice
    source: str  # generated | parquet | official | hub
    root: Path | None
    language: str | None

    def __str__(self) -> str:
        language = f" ({self.language})" if self.language else ""
        return f"task.splits.{self.role}={self.prefix}{self.split}{language} of {self.task.name}"


class Raw(NamedTuple):
    """A split as its source has it: the rows and, where it says so, the class names in the order of their codes."""

    table: pa.Table
    class_names: list[str] | None


def read(wanted: Wanted) -> Raw:
    """Return the split's rows; raises DataError where there is no such split or it cannot be read."""
    return READERS[wanted.source](wanted)


def files(wanted: Wanted) -> list[Path]:
    """Return the files that `read` reads: none for rows made here or the hub's. Raises DataError where one misses."""
    if wanted.source == "official":
        return official.files(wanted.task, root_of(wanted), wanted.split, wanted.language, str(wanted))
    return [_parquet_file(wanted)] if wanted.source == "parquet" else []


def root_of(wanted: Wanted) -> Path:
    """Return the folder of the data; raises DataError where there is none."""
    if wanted.root is None:
        raise DataError(
            f"data.root is not set, and data.source={wanted.source} reads {wanted} from there: set it to a folder."
        )
    if not wanted.root.is_dir():
        raise DataError(f"data.root ({wanted.root}) is not a folder: correct it, or use data.source=hub.")
    return wanted.root


def choose(wanted: Wanted, there: list[str]) -> str:
    """Return the half-sentence that lists the splits that are there and how to go on with them."""
    if not there:
        return "nothing of this task is there"
    key, hints = f"task.splits.{wanted.role}={wanted.prefix}", []
    if near := next((name for name in there if name.startswith((wanted.split, wanted.role))), None):
        hints.append(f"select one with {key}{near}")
    elif wanted.role == "validation" and (
        train := next((name for name in there if name.startswith("train")), None)
    ):
        hints.append(
            f"hold out a part with {key}{train}[90%:] and task.splits.train={wanted.prefix}{train}[:90%]"
        )
    if wanted.role != "train":
        hints.append(f"leave '{wanted.role}' out of task.evaluate and task.predict")
    return f"there are {', '.join(there)}; {' or '.join(hints) or 'select one with ' + key + there[0]}"


def parquet_splits(task: TaskConfig, root: Path, language: str | None) -> list[str]:
    """Return the splits of a task, in one language, whose parquet files are there."""
    return sorted(found.stem for found in _parquet_folder(task, root, language).glob("*.parquet"))


def _parquet_folder(task: TaskConfig, root: Path, language: str | None) -> Path:
    return root / task.suite / (language or task.hub_config or task.name)


def _parquet_file(wanted: Wanted) -> Path:
    root = root_of(wanted)
    path = _parquet_folder(wanted.task, root, wanted.language) / f"{wanted.split}.parquet"
    if not path.is_file():
        there = choose(wanted, parquet_splits(wanted.task, root, wanted.language))
        raise DataError(f"data.root: {path} is missing for {wanted}: {there}.")
    return path


def _parquet(wanted: Wanted) -> Raw:
    import pyarrow.parquet as pq  # rows made here do not need it

    path = _parquet_file(wanted)
    try:
        with pq.ParquetFile(path) as file:  # pq.read_table would import pandas
            table = file.read()
        table.validate(full=True)  # UTF-8 is not checked while reading
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"data.root: {path} cannot be read ({reason}): it is damaged or half-downloaded; get it again."
        ) from error
    return Raw(table, _class_names(table.schema, wanted.task))


def _class_names(schema: pa.Schema, task: TaskConfig) -> list[str] | None:
    """Return the names in the order of their codes where the file, as datasets writes it, has them."""
    info: dict[str, Any] = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info") or {}
    label = (info.get("features") or {}).get(task.label_column) or {}
    return label.get("names") if label.get("_type") == "ClassLabel" else None


def _official(wanted: Wanted) -> Raw:
    return Raw(official.read(wanted.task, root_of(wanted), wanted.split, wanted.language, str(wanted)), None)


def _generated(wanted: Wanted) -> Raw:
    tables = generated(wanted.task.name)
    if wanted.split not in tables:
        raise DataError(f"{wanted} does not exist: {choose(wanted, sorted(tables))}.")
    return Raw(tables[wanted.split], None)


@cache  # a plan asks for the same few tasks thousands of times
def generated(task: str) -> dict[str, pa.Table]:
    """Return the splits of a task that this package makes itself."""
    return {split: pa.Table.from_pylist(rows) for split, rows in generate(task).items()}


def _hub(wanted: Wanted) -> Raw:
    splits = hub_splits(
        wanted.task.name, wanted.task.hub, wanted.task.revision, wanted.language or wanted.task.hub_config
    )
    if wanted.split not in splits:
        raise DataError(f"{wanted} is not on the hub: {choose(wanted, sorted(splits))}.")
    split = splits[wanted.split]
    return Raw(split.data.table, getattr(split.features.get(wanted.task.label_column), "names", None))


@cache
def hub_splits(task: str, hub: str | None, revision: str | None, config: str | None) -> "DatasetDict":
    """Return all splits of a hub data set at its pinned revision, from the local cache if it was fetched before.

    Raises DataError where it cannot be had, naming the sources that would work.
    """
    if hub is None or revision is None:
        raise DataError(f"task.hub and task.revision of {task} must be set for data.source=hub.")
    import datasets

    datasets.disable_progress_bars()  # a log file would hold every state of them
    try:
        splits = datasets.load_dataset(hub, config, revision=revision)
        # Without the hub, datasets takes the newest revision that it has.
        if not all(revision in file["filename"] for split in splits.values() for file in split.cache_files):
            raise FileNotFoundError(f"only another revision than {revision} was fetched")
    except Exception as error:  # datasets, huggingface_hub and httpx have no base class in common
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"data.source=hub: {hub} ({config}) was not fetched ({reason}). Run `make fetch TASKS={task}` once where the hub "
            "can be reached; or, without the hub, set data.root to a folder of parquet files (<suite>/<task>/<split>.parquet) "
            "or of the official files (GLUE's TSV folders, XNLI-1.0)."
        ) from error
    return splits


READERS: dict[str, Callable[[Wanted], Raw]] = {
    "generated": _generated,
    "parquet": _parquet,
    "official": _official,
    "hub": _hub,
}
