"""One run: load, swap, fine-tune, evaluate, measure; whatever happens, one record."""

import gc
import itertools
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from joblib import cpu_count
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.errors import BenchError, EnvironmentBroken, TimeLimit
from bench.models import body, pretrained, swap
from bench.models.tokenizers import MUCH_UNKNOWN, check_for_run, load_tokenizer, unknown_share
from bench.runs import cost
from bench.runs.identity import Prepared, prepare
from bench.runs.provenance import provenance
from bench.runs.reading import check_reading
from bench.settings.schema import RunConfig, TrainedRecovery
from bench.store import Record
from bench.tasks import data as task_data
from bench.tasks.data import Rows
from bench.tasks.scoring import check_scoring, score_split
from bench.tasks.tokenise import tokenise
from bench.training import processes
from bench.training.batching import Examples
from bench.training.distil import recover
from bench.training.finetune import Diverged, NotFinite, Outcome, Trainee, finetune_together, predict
from bench.training.lane import TASK
from bench.training.precision import resolve_dtype
from bench.training.teacher import Student, teacher_logits, with_teacher

log = logging.getLogger("bench")


def pick_device(name: str) -> torch.device:
    """Return the device; raises EnvironmentBroken where CUDA is asked for and is not there.

    Torch gets no more threads than there are CPUs by the container's quota, which it does not know: more would wait for each other.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))
    if name == "cuda" and not torch.cuda.is_available():
        raise EnvironmentBroken("device (cuda): torch sees no CUDA device; use device=cpu or device=auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of(config: RunConfig) -> torch.device:
    """Return the run's device, with torch set to deterministic algorithms where the run asks for them."""
    if config.deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # read when CUDA starts; torch insists on it
    torch.use_deterministic_algorithms(config.deterministic)
    return processes.own_device(pick_device(config.device))


def execute(prepared: Prepared) -> Record:
    """Return the record of the run, already written to its results folder.

    A failure becomes a record too. Only EnvironmentBroken (nothing else would work either) and KeyboardInterrupt
    (after writing an `interrupted` record) are raised.
    """
    check_folders(prepared)
    device = device_of(prepared.config)
    return recorded(prepared, device, lambda: _fitting(prepared, device))


class Unscored(BenchError):
    """The model is trained and its answers are stored, but they could not be scored; `parts` is the rest of the record."""

    def __init__(self, error: Exception, parts: dict[str, Any]) -> None:
        super().__init__(
            f"The answers are stored, but not scored ({error}): `make rescore` finishes the run."
        )
        self.parts = parts


def check_folders(prepared: Prepared) -> None:
    """Raise EnvironmentBroken, before the training, for a folder of the run's that cannot be written."""
    config, results_dir = prepared.config, Path(prepared.config.results_dir)
    own = prepared.name, prepared.run_id
    kept = [store.weights_folder(results_dir, *own)] if config.keep_weights else []
    written = [store.path_of(results_dir, *own), store.predictions_folder(results_dir, *own), *kept]
    store.check_writable(*(path.parent for path in written), Path(config.cache_dir))


def recorded(prepared: Prepared, device: torch.device, measured: Callable[[], dict[str, Any]]) -> Record:
    """Return and write the record whose parts `measured` returns, or of the error that it raises; raises as `execute` does."""
    record = _blank(prepared, device)
    try:
        record.update(measured())  # type: ignore[typeddict-item]
        record["status"] = "ok"
    except EnvironmentBroken:
        raise
    except (KeyboardInterrupt, Exception) as error:
        record["status"] = status_of(error)
        if isinstance(error, Unscored):
            record.update(error.parts)  # type: ignore[typeddict-item]
        record["error"] = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc()[-4000:],
        }
        log.error("%s | %s: %s", prepared.name, record["status"], str(error) or type(error).__name__)
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        if record["status"] != "pending" and processes.IS_MAIN:
            store.write(record, Path(prepared.config.results_dir))
    return record


def status_of(error: BaseException) -> str:
    """Return the record's status for an exception."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, TimeLimit):
        return "timeout"
    if isinstance(error, (Diverged, NotFinite)):
        return "diverged"
    return "oom" if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) else "failed"


def _blank(prepared: Prepared, device: torch.device) -> Record:
    return {
        "schema_version": store.SCHEMA_VERSION,
        "run_id": prepared.run_id,
        "status": "pending",
        "name": prepared.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": prepared.canonical,
        "chosen": {group: name for group, name in prepared.config.chosen.items() if group in store.CHOSEN},
        "task": None,
        "model": None,
        "size": None,
        "fit": None,
        "metrics": None,
        "headline": None,
        "training": None,
        "recovery": None,
        "cost": None,
        "provenance": provenance(device),
        "error": None,
    }


def failure(prepared: Prepared, status: str, message: str) -> Record:
    """Return and write the record of a run that could not write one itself: its process died, or did not react."""
    record = _blank(prepared, torch.device("cpu"))
    record["status"], record["error"] = status, {"type": "ProcessDied", "message": message, "traceback": ""}
    store.write(record, Path(prepared.config.results_dir))
    return record


def _fitting(prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """Return the record's parts. A run that is out of the GPU's memory begins again with half the rows on the device at once."""
    training = prepared.config.training
    for retries in itertools.count():
        device_batch = -(-(training.device_batch or training.batch_size) // 2**retries)
        smaller = replace(
            training, device_batch=device_batch, eval_batch_size=-(-training.eval_batch_size // 2**retries)
        )
        try:
            return _measured(
                replace(prepared, config=replace(prepared.config, training=smaller)), device, retries
            )
        except torch.cuda.OutOfMemoryError as error:
            if device_batch == 1 or processes.COUNT > 1:  # the other processes would wait for this one
                raise
            log.warning(
                "%s | %s: it begins again with half the device batch of %d",
                prepared.name,
                str(error).splitlines()[0],
                device_batch,
            )
        gc.collect()  # the failed attempt's model, which the exception held until here
        torch.cuda.empty_cache()
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class Loaded:
    """What a run trains: the model, still on the CPU, with its embedding swapped, and the training rows on the device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    splits: dict[str, Rows]  # by role
    train: Examples
    shares: dict[str, float]  # of the training rows, as `_examples` returns them
    size: Any
    fit: Any
    recovery: dict[str, Any]


def load(prepared: Prepared, device: torch.device) -> Loaded:
    """Return the run's model and data, ready to be trained; raises what would make the training useless."""
    config, task = prepared.config, prepared.config.task
    check_scoring(task)
    splits: dict[str, Rows] = {}
    for role in ("train", *task.evaluate, *task.predict):
        # Every language is checked now; the first stands for the role.
        for language in task_data.languages_of(task, role):
            rows = task_data.load_split(task, config.data, role, language, labels=role not in task.predict)
            splits.setdefault(role, rows)
    if limit := config.training.max_train_examples:
        kept = np.random.default_rng(0).permutation(len(splits["train"]))[
            :limit
        ]  # the same rows for every seed
        splits["train"] = splits["train"].select(np.sort(kept))
    tokenizer = load_tokenizer(config.model)
    check_for_run(tokenizer, config)
    texts = splits["train"].select_columns(task.columns)
    train, shares = _examples(splits["train"], config, tokenizer, device)
    if shares["unknown"] > MUCH_UNKNOWN:
        log.warning(
            "%s | %.0f %% of the training tokens are unknown to the model's tokenizer",
            prepared.name,
            100 * shares["unknown"],
        )

    transformers.set_seed(config.seed)  # the new head is the same for every embedding
    model = pretrained.load_classifier(config.model, task)
    check_reading(model, train, config.training.max_length, config.model.path)
    counts = np.bincount(train.tokens["input_ids"].cpu().numpy(), minlength=prepared.vocab_size)
    size, fit = swap.swap(
        config, model, tokenizer, swap.texts_of(config.assignment.corpus, config, texts), counts
    )
    recovery: dict[str, Any] = {"name": "none"}
    dtype = resolve_dtype(config.training.dtype, device)
    if isinstance(config.recovery, TrainedRecovery):
        unlabelled = swap.texts_of(config.recovery.corpus, config, texts)()
        recovery = recover(
            model, config, prepared.canonical["model"], tokenizer, unlabelled, device, dtype, prepared.name
        )
    return Loaded(model, tokenizer, splits, train, shares, size, fit, recovery)


def trainees_of(runs: Sequence[Prepared], loaded: Sequence[Loaded], device: torch.device) -> list[Trainee]:
    """Return what is trained in each of the runs, with the answers of its teacher where it has one, on the device."""
    dtype = resolve_dtype(runs[0].config.training.dtype, device)
    students = {
        place: Student(run.config, run.canonical, one.train, run.name)
        for place, (run, one) in enumerate(zip(runs, loaded, strict=True))
        if run.config.training.teacher != "none"
    }
    logits = dict(zip(students, teacher_logits(list(students.values()), device, dtype), strict=True))
    found = []
    for place, (run, one) in enumerate(zip(runs, loaded, strict=True)):
        training = run.config.training
        train, objective = (
            with_teacher(one.train, logits[place], training.teacher_weight)
            if place in logits
            else (one.train, TASK)
        )
        found.append(
            Trainee(cast(Any, one.model).to(device), train, training, run.config.seed, run.name, objective)
        )
    return found


def _measured(prepared: Prepared, device: torch.device, oom_retries: int) -> dict[str, Any]:
    config, dtype = prepared.config, resolve_dtype(prepared.config.training.dtype, device)
    cost.reset_peak_memory(device)
    loaded = load(prepared, device)
    trainees = trainees_of([prepared], [loaded], device)
    transformers.set_seed(config.seed)
    (outcome,) = finetune_together(trainees, dtype)
    if isinstance(outcome, Diverged):
        raise outcome
    return evaluated(prepared, loaded, outcome, device, oom_retries)


def evaluated(
    prepared: Prepared, loaded: Loaded, outcome: Outcome, device: torch.device, oom_retries: int = 0
) -> dict[str, Any]:
    """Return the record's parts of a run whose model, on the device, is trained; raises Unscored where only the scores are missing."""
    config, task = prepared.config, prepared.config.task
    dtype = resolve_dtype(config.training.dtype, device)
    body.round_off(loaded.model, config.body)
    answered = {
        role: list(answers(loaded.model, prepared, role, loaded.tokenizer, device, dtype))
        for role in (*task.evaluate, *task.predict)
    }
    if config.keep_weights and processes.IS_MAIN:
        _keep_weights(prepared, loaded)
    parts = _parts(prepared, loaded, outcome, answered, device, oom_retries)
    # Scored last: whatever fails here, answers and parts are kept.
    reported = task.splits[task.evaluate[0]]
    metrics: dict[str, dict[str, float]] = {}
    try:
        for role in task.evaluate:
            metrics |= score_split(
                task, task.splits[role], [(one.language, one.values, one.split) for one in answered[role]]
            )
        value = metrics[reported][task.headline]
    except Exception as error:
        raise Unscored(error, parts) from error
    log.info("%s | %s %s = %.4f", prepared.name, reported, task.headline, value)
    return parts | {
        "metrics": metrics,
        "headline": {
            "split": reported,
            "metric": task.headline,
            "value": value,
            "higher_is_better": task.higher_is_better,
        },
    }


def _keep_weights(prepared: Prepared, loaded: Loaded) -> None:
    """Write the trained weights. Without room for them the run still has its record: `export --retrain` makes them again."""
    folder = store.weights_folder(Path(prepared.config.results_dir), prepared.name, prepared.run_id)
    try:
        swap.save(prepared.config, loaded.model, folder)
    except EnvironmentBroken as error:
        log.error("%s | the weights are not kept: %s", prepared.name, error)


def _parts(
    prepared: Prepared,
    loaded: Loaded,
    outcome: Outcome,
    answered: dict[str, list["Answers"]],
    device: torch.device,
    oom_retries: int,
) -> dict[str, Any]:
    """Return the record's parts of a trained run but for its scores; `answered` is by role."""
    config, task = prepared.config, prepared.config.task
    dtype = resolve_dtype(config.training.dtype, device)
    facts = task_data.split_facts(task, config.data, loaded.splits)
    facts["train"] |= loaded.shares
    for role, of_role in answered.items():
        facts[role] |= {
            share: float(np.mean([one.shares[share] for one in of_role])) for share in loaded.shares
        }
    if limit := config.training.max_train_examples:
        facts["train"]["max_train_examples"] = limit
    reported = answered[task.evaluate[0]]
    shared = (
        device.type == "cuda" and max(config.workers or 1, outcome.runs_at_once) > 1
    )  # a time beside others says little about a model
    return {
        "task": {
            "name": task.name,
            "suite": task.suite,
            "version": task.task_version,
            "source": prepared.source,
            "data_sha256": prepared.canonical["data"]["sha256"],
            "splits": facts,
            "chance": task.chance,
            "majority": task.majority,
            "average": task.average,
        },
        "model": {
            "name": config.model.name,
            "revision": config.model.revision,
            "sha256": config.model.sha256,
            "weights": config.model.weights,
            "width": prepared.width,
            "vocab_size": prepared.vocab_size,
        },
        "size": loaded.size,
        "fit": loaded.fit,
        "training": {
            "steps": outcome.steps,
            "epochs": outcome.epochs,
            "train_rows": len(loaded.splits["train"]),
            "seconds": outcome.seconds,
            "start_seconds": outcome.start_seconds,
            "engine": outcome.engine,
            "engine_fallback": outcome.fallback,
            "examples_per_second": outcome.examples / outcome.seconds,
            "effective_batch": config.training.batch_size,
            "device_batch": outcome.device_batch,
            "oom_retries": oom_retries,
            "runs_at_once": outcome.runs_at_once,
            "processes": processes.COUNT,
            "dtype": dtype,
            "curve": outcome.curve,
            "collapsed": any(bool(np.ptp(one.values) == 0) for one in reported),
        },
        "recovery": loaded.recovery,
        "cost": {
            "peak_memory_bytes": cost.peak_memory_bytes(device),
            "latency_ms": None if shared else cost.latency_ms(loaded.model, reported[0].examples, dtype),
            "profiles": None,
        },
    }


def _examples(
    split: Rows, config: RunConfig, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[Examples, dict[str, float]]:
    """Return a split's examples on the device, and shares: of its rows `truncated`, of its tokens `unknown`."""
    tokens = tokenise(split, config.task, tokenizer, config.training.max_length, Path(config.cache_dir))
    examples = Examples.from_table(tokens.table, cast(int, tokenizer.pad_token_id), device)
    unknown = unknown_share(tokenizer, examples.tokens["input_ids"])
    return examples, {"truncated": tokens.truncated, "unknown": unknown}


@dataclass(frozen=True)
class Answers:
    """The model's answers (rows,) to one split in one language: class codes, or numbers for a regression."""

    language: str | None
    values: np.ndarray
    split: Rows
    examples: Examples
    shares: dict[str, float]


def answers(
    model: Any,
    prepared: Prepared,
    role: str,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    dtype: str,
) -> Iterator[Answers]:
    """Yield the answers to a role, language by language, each stored as soon as it is there."""
    config, task = prepared.config, prepared.config.task
    folder = store.predictions_folder(Path(config.results_dir), prepared.name, prepared.run_id)
    for language in task_data.languages_of(task, role):
        split = task_data.load_split(task, config.data, role, language, labels=role in task.evaluate)
        unlabelled = split if "label" in split.column_names else split.add_column("label", [-1] * len(split))
        examples, shares = _examples(unlabelled, config, tokenizer, device)
        logits = predict(model, examples, config.training.eval_batch_size, dtype)
        values = logits[:, 0] if task.labels is None else logits.argmax(axis=1).astype(np.int8)
        if processes.IS_MAIN:
            store.write_predictions(folder, store.split_name(task.splits[role], language), values)
        yield Answers(language, values, split, examples, shares)


def run(config: RunConfig) -> Record:
    """Return the record of the run that `config` describes; raises ConfigError before anything is loaded."""
    return execute(prepare(config))
