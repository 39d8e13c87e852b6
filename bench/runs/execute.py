"""One run: load, replace the embedding, fine-tune, evaluate, measure. Whatever happens, the run leaves a record."""

import gc
import itertools
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch

from bench import store
from bench.errors import EnvironmentBroken, TimeLimit, stop_behind
from bench.runs import cost
from bench.runs.evaluate import Unscored, evaluated
from bench.runs.identity import Prepared, prepare
from bench.runs.loading import device_of, load, trainees_of
from bench.runs.provenance import provenance
from bench.settings.schema import RunConfig
from bench.store import Record
from bench.training import processes
from bench.training.batching import evaluation_tokens
from bench.training.finetune import Diverged, NotFinite, finetune_together
from bench.training.precision import resolve_dtype

log = logging.getLogger("bench")


def execute(prepared: Prepared) -> Record:
    """Carry out the run and return its record, which is written to the results folder.

    A failure becomes a record too. Raises only EnvironmentBroken, as every other run would fail likewise, and
    KeyboardInterrupt, after writing an `interrupted` record.
    """
    check_folders(prepared)
    device = device_of(prepared.config)
    return recorded(prepared, device, lambda: _fitting(prepared, device))


def check_folders(prepared: Prepared) -> None:
    """Raise EnvironmentBroken, before the training, if a folder that the run writes to cannot be written."""
    config, results_dir = prepared.config, Path(prepared.config.results_dir)
    written = [store.path_of, store.predictions_folder] + [store.weights_folder] * config.keep_weights
    folders = [path(results_dir, prepared.name, prepared.run_id).parent for path in written]
    store.check_writable(*folders, Path(config.cache_dir))


def recorded(prepared: Prepared, device: torch.device, measured: Callable[[], dict[str, Any]]) -> Record:
    """Write and return the record with the parts that `measured` returns, or with the error that it raises.

    Raises as `execute` does.
    """
    record = _blank(prepared, device)
    try:
        record.update(measured())  # type: ignore[typeddict-item]
        record["status"] = "ok"
    except EnvironmentBroken:
        raise
    except (KeyboardInterrupt, TimeLimit, Exception) as error:
        record["status"], stop = status_of(error), stop_behind(error)
        if isinstance(error, Unscored):
            record.update(error.parts)  # type: ignore[typeddict-item]
        record["error"] = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc()[-4000:],
        }
        log.error("%s | %s: %s", prepared.name, record["status"], str(error) or type(error).__name__)
        if isinstance(stop, KeyboardInterrupt):
            raise stop from error
    finally:
        if record["status"] != "pending" and processes.IS_MAIN:
            store.write(record, Path(prepared.config.results_dir))
    return record


def status_of(error: BaseException) -> str:
    """Return the record's status for an exception."""
    if stop := stop_behind(error):
        return "timeout" if isinstance(stop, TimeLimit) else "interrupted"
    if isinstance(error, (Diverged, NotFinite)):
        return "diverged"
    return "oom" if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) else "failed"


def _blank(prepared: Prepared, device: torch.device) -> Record:
    """Return a record with all that is known before the run; the rest is null."""
    known = {
        "schema_version": store.SCHEMA_VERSION,
        "run_id": prepared.run_id,
        "status": "pending",
        "name": prepared.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": prepared.canonical,
        "chosen": {group: name for group, name in prepared.config.chosen.items() if group in store.CHOSEN},
        "provenance": provenance(device),
    }
    return cast(Record, dict.fromkeys(Record.__required_keys__) | known)


def failure(prepared: Prepared, status: str, message: str) -> Record:
    """Write and return the record of a run that wrote none, as its process died or hung."""
    record = _blank(prepared, torch.device("cpu"))
    record["status"], record["error"] = status, {"type": "ProcessDied", "message": message, "traceback": ""}
    store.write(record, Path(prepared.config.results_dir))
    return record


def _fitting(prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """Return the record's parts. Out of the GPU's memory, the run starts again with half the rows on the device at once."""
    training = prepared.config.training
    for retries in itertools.count():
        device_batch = -(-(training.device_batch or training.batch_size) // 2**retries)
        tokens = max(1, evaluation_tokens(training, device) // 2**retries)
        smaller = replace(training, device_batch=device_batch, eval_batch_tokens=tokens)
        attempt = replace(prepared, config=replace(prepared.config, training=smaller))
        try:
            return _measured(attempt, device, retries)
        except torch.cuda.OutOfMemoryError as error:
            if device_batch == 1 or processes.COUNT > 1:  # the other processes would wait for this one
                raise
            reason = str(error).splitlines()[0]
            log.warning(
                "%s | %s: it starts again with half the device batch of %d",
                prepared.name,
                reason,
                device_batch,
            )
        # Free the failed attempt's model, which the exception held until here.
        gc.collect()
        torch.cuda.empty_cache()
    raise AssertionError("unreachable")


def _measured(prepared: Prepared, device: torch.device, oom_retries: int) -> dict[str, Any]:
    """Return the record's parts; raises Diverged."""
    dtype = resolve_dtype(prepared.config.training.dtype, device)
    cost.reset_peak_memory(device)
    (loaded,) = load([prepared], device)
    trainees = trainees_of([prepared], [loaded], device)
    (outcome,) = finetune_together(trainees, dtype)
    if isinstance(outcome, Diverged):
        raise outcome
    return evaluated(prepared, loaded, outcome, device, oom_retries)


def run(config: RunConfig) -> Record:
    """Return the record of the run that `config` describes; raises ConfigError before any work."""
    return execute(prepare(config))
