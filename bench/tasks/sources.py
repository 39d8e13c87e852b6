"""Where rows come from: rows made here, parquet files, the official TSV files, the hub. Each source gives one table."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from bench.errors import DataError, MissingData
from bench.settings.schema import TaskConfig
from bench.tasks import official, parquet
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


def files(wanted: Wanted) -> dict[str, Path]:
    """Return the files that `read` reads, by their name in the plain layout: none for rows made here or the hub's.

    Raises MissingData where one is missing. The names are part of a run's identity, so that data keep theirs when
    they lie in a folder less, or when a split's only file is called a shard.
    """
    if wanted.source == "official":
        root = root_of(wanted)
        found = official.files(wanted.task, root, wanted.split, wanted.language, str(wanted))
        return {str(path.relative_to(root)): path for path in found}
    return _parquet_files(wanted) if wanted.source == "parquet" else {}


def root_of(wanted: Wanted) -> Path:
    """Return the folder of the data; raises DataError where there is none."""
    if wanted.root is None:
        raise DataError(
            f"data.root is not set, and data.source={wanted.source} reads {wanted} from there: set it to a folder."
        )
    return checked_root(wanted.root)


def checked_root(root: Path) -> Path:
    """Return the folder; raises DataError where it is none."""
    if not root.is_dir():
        raise DataError(f"data.root ({root}) is not a folder: correct it, or use data.source=hub.")
    return root


def choose(wanted: Wanted, there: list[str]) -> str:
    """Return the half-sentence that lists the splits that are there, and settings with which the run goes on."""
    if not there:
        return "nothing of this task is there"
    key, hints = f"task.splits.{wanted.role}", []
    train = next((name for name in there if name.startswith("train")), None)
    if near := next((name for name in there if name.startswith((wanted.split, wanted.role))), None):
        hints.append(f"select one with {_setting(key, wanted.prefix + near)}")
    elif wanted.role == "validation" and train:
        rest, most = (f"{wanted.prefix}{train}[{part}]" for part in ("90%:", ":90%"))
        hints.append(f"hold out a part with {_setting(key, rest)} and {_setting('task.splits.train', most)}")
    if wanted.role != "train" and (wanted.prefix or wanted.task.evaluate != [wanted.role]):
        hints.append(f"leave '{wanted.role}' out of task.evaluate and task.predict")
    return f"there are {', '.join(there)}; {' or '.join(hints) or f'get the {wanted.split} split too'}"


def _setting(key: str, value: str) -> str:
    """Return the setting in the form that a shell takes: brackets in quotes."""
    return shlex.quote(f"{key}={value}")


def _parquet_files(wanted: Wanted) -> dict[str, Path]:
    root = root_of(wanted)
    if found := parquet.files(wanted.task, root, wanted.split, wanted.language):
        return found
    path = parquet.folders(wanted.task, root, wanted.language)[0] / f"{wanted.split}.parquet"
    state = "is no file that can be read" if os.path.lexists(path) else "is missing"
    there = choose(wanted, parquet.splits(wanted.task, root, wanted.language))
    raise MissingData(f"data.root: {path} {state} for {wanted}: {there}.")


def _parquet(wanted: Wanted) -> Raw:
    return Raw(*parquet.read([*_parquet_files(wanted).values()], wanted.task))


def _official(wanted: Wanted) -> Raw:
    return Raw(official.read(wanted.task, root_of(wanted), wanted.split, wanted.language, str(wanted)), None)


def _generated(wanted: Wanted) -> Raw:
    tables = generated(wanted.task.name)
    if wanted.split not in tables:
        raise MissingData(f"{wanted} does not exist: {choose(wanted, sorted(tables))}.")
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
        raise MissingData(f"{wanted} is not on the hub: {choose(wanted, sorted(splits))}.")
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
            "can be reached; or, without the hub, set data.root to a folder of parquet files (<suite>/<task>/<split>.parquet, or the hub's shards) "
            "or of the official files (GLUE's TSV folders, XNLI-1.0)."
        ) from error
    return splits


READERS: dict[str, Callable[[Wanted], Raw]] = {
    "generated": _generated,
    "parquet": _parquet,
    "official": _official,
    "hub": _hub,
}
