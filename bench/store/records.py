"""Records and predictions on disk: all that passes from running to reporting."""

import json
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from bench.errors import BenchError
from bench.store.cache import sha256, write_atomically
from bench.store.schema import SCHEMA_VERSION, STATUSES, Record

log = logging.getLogger("bench")


def device_key(name: str) -> str:
    """Return a device's name as in `cost.profiles` and file names: "cpu", "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def unscored(record: Record) -> bool:
    """Return whether the run is trained and its predictions are stored, but its metrics are missing."""
    return record["training"] is not None and record["metrics"] is None


def path_of(results_dir: Path, name: str, run_id: str) -> Path:
    """Return the path of a run's record: runs/<model>/<task>/<method-slug>/s<seed>-<run_id>.json."""
    return results_dir / "runs" / f"{name}-{run_id}.json"


def split_name(split: str, language: str | None) -> str:
    """Return the key of a split's metrics and predictions: "<split>", or "<split>/<language>"."""
    return split if language is None else f"{split}/{language}"


def predictions_folder(results_dir: Path, name: str, run_id: str) -> Path:
    """Return the folder of a run's predictions: predictions/<name>-<run_id>/."""
    return results_dir / "predictions" / f"{name}-{run_id}"


def weights_folder(results_dir: Path, name: str, run_id: str) -> Path:
    """Return the folder of a run's trained model, if it was kept: models/<name>-<run_id>/."""
    return results_dir / "models" / f"{name}-{run_id}"


def _predictions_file(folder: Path, split: str) -> Path:
    """Return the file of a split. Quoting keeps splits such as "mnli:test" and "mnli_test" apart."""
    return folder / f"{quote(split, safe='')}.safetensors"


def write_predictions(folder: Path, split: str, values: np.ndarray) -> None:
    """Write the predictions (rows,) of a split to <folder>/<split>.safetensors."""
    content = safetensors.numpy.save({"predictions": values}, {"split": split})
    write_atomically(_predictions_file(folder, split), content)


def read_predictions(folder: Path, split: str) -> np.ndarray:
    """Return the predictions (rows,) of a split; raises BenchError where they are missing or damaged."""
    path = _predictions_file(folder, split)
    if not path.exists():  # older files have names that are not quoted
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', split)}.safetensors"
    try:
        with safetensors.safe_open(path, "np") as file:
            if (file.metadata() or {}).get("split", split) != split:
                raise KeyError(f"they are of {file.metadata()['split']}")
            return cast(np.ndarray, file.get_tensor("predictions"))
    except (OSError, KeyError, SafetensorError) as error:
        raise BenchError(
            f"{path} holds no predictions of {split} ({error}): delete the run's record and run it again."
        ) from error


def stored_splits(folder: Path) -> dict[str, np.ndarray]:
    """Return split -> predictions (rows,) of all splits in a run's folder; raises BenchError for a damaged file."""
    found = {}
    for path in folder.glob("*.safetensors"):
        try:
            with safetensors.safe_open(path, "np") as file:
                found[file.metadata()["split"]] = file.get_tensor("predictions")
        except (OSError, KeyError, TypeError, SafetensorError) as error:
            raise BenchError(
                f"{path} holds no predictions ({error}): delete the run's record and run it again."
            ) from error
    return found


def write(record: Record, results_dir: Path) -> Path:
    """Write a record and return its path."""
    path = path_of(results_dir, record["name"], record["run_id"])
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def read(path: Path) -> Record:
    """Return the record in `path`; raises ValueError that says what is wrong with the file."""
    record = json.loads(path.read_text())
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version {record.get('schema_version')!r}, this version of bench reads {SCHEMA_VERSION}"
        )
    if missing := Record.__required_keys__ - record.keys():
        raise ValueError(f"no key {', '.join(sorted(missing))}")
    if record["status"] not in STATUSES:
        raise ValueError(f"unknown status {record['status']!r}")
    if record["run_id"] != path.stem.rpartition("-")[2]:
        raise ValueError(f"run_id {record['run_id']!r} is not the one in the file's name")
    # In bytes: a system whose file names are not Unicode reads others into the path than the record has.
    if not os.fsencode(path.as_posix()).endswith(f"/{record['name']}-{record['run_id']}.json".encode()):
        raise ValueError(f"name {record['name']!r} is not the one in the file's path")
    if record["cost"]:
        record["cost"].setdefault("profiles", None)
    return cast(Record, record)


def aside(record: Path) -> Path:
    """Return the path that an unreadable record is moved to: <record>.corrupt."""
    return record.with_name(f"{record.name}.corrupt")


def move_unreadable(path: Path) -> None:
    """Move a record aside that cannot be read, and log its name."""
    try:
        read(path)
    except FileNotFoundError:
        return
    except (ValueError, OSError) as error:
        with suppress(FileNotFoundError):  # another process was faster
            path.replace(aside(path))
        log.error(
            "%s could not be read (%s): it is now %s.corrupt, and the run starts again",
            path,
            error,
            path.name,
        )


def digest(part: object) -> str:
    """Return the first 12 hex digits of the SHA-256 of `part` as JSON, the form of a run_id."""
    return sha256(json.dumps(part, sort_keys=True))[:12]


def flaw(record: Record) -> str | None:
    """Return what is wrong with a readable record that was cut or edited, or None for a valid one."""
    if digest(record["config"]) != record["run_id"]:
        return "its configuration was changed by hand: the run_id belongs to another one"
    if record["status"] != "ok":
        return None
    headline, metrics, size, task = record["headline"], record["metrics"], record["size"], record["task"]
    if headline is None or metrics is None or size is None or task is None:
        return "it is ok but has no headline, metrics, size or task"
    try:
        for part in task["splits"].values():
            part["split"], part["rows"]
        value = metrics[headline["split"]][headline["metric"]]
        numbers: list[Any] = [score for scores in metrics.values() for score in scores.values()]
        numbers += [number for number in size.values() if number is not None]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            return "a metric or size is not a number"
    except (KeyError, TypeError, AttributeError) as error:
        return f"a part is missing or has another form ({type(error).__name__}: {error})"
    if value != headline["value"]:
        key = f"{headline['split']}.{headline['metric']}"
        return f"headline.value ({headline['value']}) is not metrics.{key} ({value})"
    return None


def each(results_dir: Path) -> Iterator[tuple[Path, Record | str]]:
    """Yield (path, record) of every record in order, with the reason in place of a record that cannot be read."""
    for path in sorted((results_dir / "runs").rglob("*.json")):
        try:
            yield path, read(path)
        except (ValueError, OSError) as error:
            yield path, str(error)


def read_all(results_dir: Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Return all records in the order of their files, and (path, reason) of those that cannot be read."""
    contents = list(each(results_dir))
    return (
        [content for _, content in contents if not isinstance(content, str)],
        [(path, content) for path, content in contents if isinstance(content, str)],
    )


def stamp(path: Path) -> str | None:
    """Return a string that changes whenever the record is rewritten, or None without a record."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return f"{facts.st_ino}-{facts.st_mtime_ns}"
