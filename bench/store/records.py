"""Records: one JSON file a run. All that passes from running to reporting."""

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast
from urllib.parse import quote

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from bench.errors import BenchError, EnvironmentBroken

SCHEMA_VERSION = 1
CHOSEN = ("model", "task", "embedding", "assignment", "recovery", "training")  # groups of `chosen`
PROBE = 2**20  # bytes that must fit into a folder: a full disk still makes empty files
STATUSES = ("ok", "failed", "oom", "diverged", "timeout", "interrupted")


class TaskPart(TypedDict):
    name: str
    suite: str
    version: int
    source: str  # generated | parquet | official | hub
    data_sha256: str  # digest of the data, or the hub revision it is pinned to
    splits: dict[
        str, dict[str, Any]
    ]  # role -> {split, rows, official_rows, truncated, unknown}; train also max_train_examples when limited. Shares:
    # `truncated` of the rows, `unknown` of the tokens that the tokenizer cannot read (not in records made before it was)
    chance: float | None
    majority: float | None
    average: bool  # counted in the suite's average


class ModelPart(TypedDict):
    name: str
    revision: str | None
    sha256: str | None  # of the weights
    weights: str  # pretrained | random
    width: int
    vocab_size: int


class SizePart(TypedDict):
    embedding_params: int  # floats in tables, projections, gains
    code_bits: int  # packed; 0 where codes are computed from the token id
    embedding_bytes: int  # stored: floats, packed codes
    dense_embedding_params: int
    dense_embedding_bytes: int
    total_params: int  # whole model, task head included
    total_bytes: int  # stored: the embedding, and the rest in the form that config.body names (fp32 where there is none)
    file_bytes: int | None  # measured: the saved embedding as a safetensors file
    param_saving: float  # 1 - embedding_params / dense_embedding_params
    byte_saving: float  # 1 - embedding_bytes / dense_embedding_bytes


class FitPart(TypedDict):
    relative_error: float | None  # ||E - E'||_F / ||E||_F before training; null for a random initialisation
    decile_errors: NotRequired[
        list[float] | None
    ]  # the same in each tenth of the tokens, from the most to the least frequent in
    # the training rows as tokenised; not in records made before it was
    distinct_codes: int | None
    codes_sha256: str | None


class HeadlinePart(TypedDict):
    split: str
    metric: str
    value: float
    higher_is_better: bool


class TrainingPart(TypedDict):
    steps: int
    epochs: float
    train_rows: int
    seconds: float  # of the training steps
    start_seconds: float  # capturing or compiling the step
    engine: str  # eager | graph | compile
    engine_fallback: str | None  # why the engine is not the one asked for
    examples_per_second: float
    effective_batch: int
    device_batch: (
        int  # rows that went through the model at once; the gradients of a batch's parts are added up
    )
    runs_at_once: int  # that trained side by side; `seconds` and the peak of memory are those of all of them
    processes: int  # that shared each batch, a device each
    oom_retries: int  # how often the run began again with half the device batch after running out of memory
    dtype: str  # fp32 | bf16
    curve: list[list[float]]  # [step, mean training loss since the previous point]
    collapsed: bool  # one class predicted for the whole reported split


class LatencyPart(TypedDict):
    batch: int  # rows
    tokens: int  # of each row
    rounds: int
    p50_ms: float
    p95_ms: float
    rows_per_second: float  # over all rounds
    ratio_to_dense: (
        float | None
    )  # median of the rounds' ratios, null for dense itself; below: its 95 % interval
    ratio_low: float | None
    ratio_high: float | None


class ProfilePart(TypedDict):
    """Measured by `bench cost` on untrained weights of the same model, embedding and assignment: they do not change the cost."""

    dtype: str  # fp32 | bf16
    file_bytes: int  # of the whole model, as a safetensors file
    latency: list[LatencyPart]
    cold_start_seconds: float  # from the start of a fresh process to its first answer
    load_seconds: float  # the part of it after the imports
    before_bytes: int | None  # memory without any model: resident on a CPU, allocated by torch on a GPU
    resident_bytes: int | None  # after the first answer
    peak_bytes: int  # after the largest batch


class CostPart(TypedDict):
    peak_memory_bytes: (
        int | None
    )  # GPU: allocated by torch; CPU: resident, the process's peak within this run
    latency_ms: (
        dict[str, float] | None
    )  # "batch1", "batch32": median forward on the evaluation texts; None: others used the GPU meanwhile
    profiles: (
        dict[str, ProfilePart] | None
    )  # by device; null: not measured (records before `bench cost` have no such key)


def device_key(name: str) -> str:
    """Return a device's name as `cost.profiles` and file names have it: "cpu", "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Record(TypedDict):
    schema_version: int
    run_id: str  # first 12 hex digits of the SHA-256 of the canonical configuration
    status: str
    name: str  # <model>/<task>/<method-slug>/s<seed>
    created_at: str  # UTC, ISO 8601
    config: dict[str, Any]  # canonical: resolved, without what the method does not use
    # group (of CHOSEN) -> file of conf/<group>/ that its keys began from, not part of the identity; not in records made
    # before it was
    chosen: NotRequired[dict[str, str]]
    task: TaskPart | None
    model: ModelPart | None
    size: SizePart | None
    fit: FitPart | None
    # split[/language or category] -> metric -> value, fractions; null: the run failed. With `training` there all the same,
    # only the scoring failed: the answers are stored, and `bench rescore` finishes the record
    metrics: dict[str, dict[str, float]] | None
    headline: HeadlinePart | None
    training: TrainingPart | None
    recovery: (
        dict[str, Any] | None
    )  # name; of a recovered model sha256, reused, texts, steps, seconds, engine, curve
    cost: CostPart | None
    provenance: dict[
        str, Any
    ]  # commit, dirty, packages, python, platform, device, cuda, command, slurm_job_id
    error: dict[str, str] | None  # type, message, traceback (its end)


def unscored(record: Record) -> bool:
    """Return whether the run is trained and its answers are stored, but its metrics are missing."""
    return record["training"] is not None and record["metrics"] is None


def path_of(results_dir: Path, name: str, run_id: str) -> Path:
    """Return where a run's record lies: runs/<model>/<task>/<method-slug>/s<seed>-<run_id>.json."""
    return results_dir / "runs" / f"{name}-{run_id}.json"


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises EnvironmentBroken if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that no reader and no crash ever sees half of it.

    Raises EnvironmentBroken if the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with temporary.open("xb") as file:  # mkstemp's would be the owner's alone, whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError | SafetensorError) -> EnvironmentBroken:
    """Return the error of a folder that is full or read-only; safetensors raises its own for a full disk."""
    reason = error.strerror if isinstance(error, OSError) else error
    return EnvironmentBroken(
        f"{path} cannot be written ({reason}): free some space, or set results_dir, cache_dir or --to, whichever "
        "names it, to a folder that you can write."
    )


def split_name(split: str, language: str | None) -> str:
    """Return the name under which a split's metrics and predictions are kept: "<split>", or "<split>/<language>"."""
    return split if language is None else f"{split}/{language}"


def predictions_folder(results_dir: Path, name: str, run_id: str) -> Path:
    """Return where a run's answers lie: predictions/<name>-<run_id>/."""
    return results_dir / "predictions" / f"{name}-{run_id}"


def weights_folder(results_dir: Path, name: str, run_id: str) -> Path:
    """Return where a run's trained model lies if it was kept: models/<name>-<run_id>/."""
    return results_dir / "models" / f"{name}-{run_id}"


def _predictions_file(folder: Path, split: str) -> Path:
    """Return the file of a split: no two splits share one, as "mnli:test" and "mnli_test" once did."""
    return folder / f"{quote(split, safe='')}.safetensors"


def write_predictions(folder: Path, split: str, values: np.ndarray) -> None:
    """Write the answers (rows,) of a run to one split: <folder>/<split>.safetensors."""
    write_atomically(
        _predictions_file(folder, split), safetensors.numpy.save({"predictions": values}, {"split": split})
    )


def read_predictions(folder: Path, split: str) -> np.ndarray:
    """Return the answers (rows,) of a run to one split; raises BenchError where they are not there or damaged."""
    path = _predictions_file(folder, split)
    if not path.exists():  # written before names were quoted
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', split)}.safetensors"
    try:
        with safetensors.safe_open(path, "np") as file:
            if (file.metadata() or {}).get("split", split) != split:
                raise KeyError(f"they are of {file.metadata()['split']}")
            return cast(np.ndarray, file.get_tensor("predictions"))
    except (OSError, KeyError, SafetensorError) as error:
        raise BenchError(f"{path} holds no predictions of {split} ({error}): run the run again.") from error


def write(record: Record, results_dir: Path) -> Path:
    """Write a record and return its file."""
    path = path_of(results_dir, record["name"], record["run_id"])
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path


def read(path: Path) -> Record:
    """Return the record in `path`; raises ValueError saying what is wrong with the file."""
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
    if record["cost"]:
        record["cost"].setdefault("profiles", None)
    return cast(Record, record)


def digest(part: object) -> str:
    """Return the first 12 hex digits of the SHA-256 of the part as JSON, as in a run_id."""
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:12]


def flaw(record: Record) -> str | None:
    """Return why a record that can be read is not as a run wrote it: cut, or changed by hand; None for a good one."""
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
    """Yield every record's file in order with the record, or with the reason why it cannot be read."""
    for path in sorted((results_dir / "runs").rglob("*.json")):
        try:
            yield path, read(path)
        except (ValueError, OSError) as error:
            yield path, str(error)


def read_all(results_dir: Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Return all good records in the order of their files, and (file, reason) of those that cannot be read."""
    found = list(each(results_dir))
    return (
        [content for _, content in found if not isinstance(content, str)],
        [(path, content) for path, content in found if isinstance(content, str)],
    )


def stamp(path: Path) -> str | None:
    """Return what changes whenever a record is written anew, or None without one."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return f"{facts.st_ino}-{facts.st_mtime_ns}"


def check_writable(*folders: Path) -> None:
    """Raise EnvironmentBroken, before any work, for the first folder that does not take a megabyte."""
    for folder in folders:
        probe = folder / f".writable-{secrets.token_hex(8)}"
        try:
            write_atomically(probe, os.urandom(PROBE))
        except EnvironmentBroken as error:
            raise unwritable(folder, cast(OSError, error.__cause__)) from error
        probe.unlink(missing_ok=True)
