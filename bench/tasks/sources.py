"""The sources of rows: generated tasks, parquet files, the official TSV files, the hub. Each source returns a table."""

import io
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.json

from bench.errors import DataError, MissingData
from bench.settings.schema import TaskConfig
from bench.tasks import official, parquet
from bench.tasks.lexical import generate

if TYPE_CHECKING:
    from datasets import DatasetDict  # 600 modules, which only this source needs


@dataclass(frozen=True)
class Request:
    """A split that a run reads."""

    task: TaskConfig  # the owner of the files; for "mnli:train" the task mnli
    role: str
    prefix: str  # "mnli:" if the split belongs to another task, else empty
    split: str  # its real name, without prefix and slice
    source: str  # generated | parquet | official | hub
    root: Path | None
    language: str | None

    def __str__(self) -> str:
        language = f" ({self.language})" if self.language else ""
        return f"task.splits.{self.role}={self.prefix}{self.split}{language} of {self.task.name}"


class Raw(NamedTuple):
    """A split as its source has it: the rows and, if known, the class names in the order of their codes."""

    table: pa.Table
    class_names: list[str] | None


def read(request: Request) -> Raw:
    """Return the split's rows; raises DataError where it is missing or cannot be read."""
    return READERS[request.source](request)


def files(request: Request) -> dict[str, Path]:
    """Return the files that `read` reads, by their names in the plain layout; {} for generated rows and the hub's.

    Raises MissingData where a file is missing. The names are part of a run's identity. Those of the plain layout stay
    the same if the files lie a folder higher, or if a split's only file is called a shard.
    """
    if request.source == "official":
        root = root_of(request)
        paths = official.files(request.task, root, request.split, request.language, str(request))
        return {str(path.relative_to(root)): path for path in paths}
    return _parquet_files(request) if request.source == "parquet" else {}


def root_of(request: Request) -> Path:
    """Return the folder of the data; raises DataError where it is not set or is not a folder."""
    if request.root is None:
        raise DataError(
            f"data.root is not set, and data.source={request.source} reads {request} from there: set it to a folder."
        )
    return checked_root(request.root)


def checked_root(root: Path) -> Path:
    """Return the folder; raises DataError where it is not a folder."""
    if not root.is_dir():
        raise DataError(f"data.root ({root}) is not a folder: correct it, or use data.source=hub.")
    return root


def choose(request: Request, splits: list[str]) -> str:
    """Return the end of an error message: the splits that exist, and settings with which the run can go on."""
    if not splits and request.language:
        return f"nothing of {request.language} is there: correct data.root, or leave out the language, or the task"
    if not splits:
        return "nothing of this task is there: correct data.root, or leave the task out"
    key, hints = f"task.splits.{request.role}", []
    train = next((name for name in splits if name.startswith("train")), None)
    if near := next((name for name in splits if name.startswith((request.split, request.role))), None):
        hints.append(f"select one with {_setting(key, request.prefix + near)}")
    elif request.role == "validation" and train:
        rest, most = (f"{request.prefix}{train}[{part}]" for part in ("90%:", ":90%"))
        hints.append(f"hold out a part with {_setting(key, rest)} and {_setting('task.splits.train', most)}")
    if request.role != "train" and (request.prefix or request.task.evaluate != [request.role]):
        hints.append(f"leave '{request.role}' out of task.evaluate and task.predict")
    return f"the data have {', '.join(splits)}; {' or '.join(hints) or f'get the {request.split} split too'}"


def _setting(key: str, value: str) -> str:
    """Return the setting as a shell takes it, with brackets in quotes."""
    return shlex.quote(f"{key}={value}")


def _parquet_files(request: Request) -> dict[str, Path]:
    root = root_of(request)
    if paths := parquet.files(request.task, root, request.split, request.language):
        return paths
    path = parquet.folders(request.task, root, request.language)[0] / f"{request.split}.parquet"
    state = "is no file that can be read" if os.path.lexists(path) else "is missing"
    choice = choose(request, parquet.splits(request.task, root, request.language))
    raise MissingData(f"data.root ({root}): {path} {state} for {request}: {choice}.")


def _parquet(request: Request) -> Raw:
    return Raw(*parquet.read([*_parquet_files(request).values()], request.task))


def _official(request: Request) -> Raw:
    return Raw(
        official.read(request.task, root_of(request), request.split, request.language, str(request)), None
    )


def _generated(request: Request) -> Raw:
    tables = generated(request.task.name)
    if request.split not in tables:
        raise MissingData(f"{request} does not exist: {choose(request, sorted(tables))}.")
    return Raw(tables[request.split], None)


@cache  # a plan reads the same few tasks thousands of times
def generated(task: str) -> dict[str, pa.Table]:
    """Return the splits of a task that bench generates."""
    # As lines of JSON, since pa.Table.from_pylist would import pandas.
    return {
        split: pyarrow.json.read_json(io.BytesIO("\n".join(map(json.dumps, rows)).encode()))
        for split, rows in generate(task).items()
    }


def _hub(request: Request) -> Raw:
    splits = hub_splits(
        request.task.name,
        request.task.hub,
        request.task.revision,
        request.language or request.task.hub_config,
    )
    if request.split not in splits:
        raise MissingData(f"{request} is not on the hub: {choose(request, sorted(splits))}.")
    split = splits[request.split]
    return Raw(split.data.table, getattr(split.features.get(request.task.label_column), "names", None))


@cache
def hub_splits(task: str, hub: str | None, revision: str | None, config: str | None) -> "DatasetDict":
    """Return all splits of a hub data set at its pinned revision, from the local cache if it is there.

    Raises DataError, which names the alternatives, where it can be neither read nor fetched.
    """
    if hub is None or revision is None:
        raise DataError(f"task.hub and task.revision of {task} must be set for data.source=hub.")
    import datasets

    datasets.disable_progress_bars()  # they would fill a log file
    try:
        splits = datasets.load_dataset(hub, config, revision=revision)
        # Offline, datasets takes the newest revision in its cache.
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


READERS: dict[str, Callable[[Request], Raw]] = {
    "generated": _generated,
    "parquet": _parquet,
    "official": _official,
    "hub": _hub,
}
