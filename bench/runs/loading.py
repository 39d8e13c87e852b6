"""What a run needs before its first step: device, data, model with the embedding replaced, teacher."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from joblib import cpu_count
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.errors import EnvironmentBroken
from bench.models import pretrained, swap
from bench.models.tokenizers import MUCH_UNKNOWN, check_for_run, compact_json, load_tokenizer, unknown_share
from bench.models.trimmed_tokenizer import trimmed_tokenizer
from bench.runs import cost
from bench.runs.identity import Prepared
from bench.runs.reading import check_reading
from bench.settings.pretrainings import MaskedLmPretrainingConfig
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig
from bench.store import FitPart, SizePart
from bench.tasks import data as task_data
from bench.tasks.data import Rows
from bench.tasks.scoring import check_scoring
from bench.tasks.tokenise import Reader, tokenise
from bench.training import encoder_file, processes
from bench.training.batching import Examples
from bench.training.finetune import Trainee
from bench.training.lane import TASK
from bench.training.precision import resolve_dtype
from bench.training.pretraining.stage import Pretraining, pretrain_together
from bench.training.recoveries import Recovery, recover_together
from bench.training.teacher import Student, teacher_logits, with_teacher

log = logging.getLogger("bench")


def pick_device(name: str) -> torch.device:
    """Return the device; raises EnvironmentBroken where CUDA is configured and missing.

    Also limits torch's threads to the CPUs of the container's quota, which torch does not know: more threads would
    only wait for each other.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))
    if name == "cuda" and not torch.cuda.is_available():
        raise EnvironmentBroken("device (cuda): torch sees no CUDA device; use device=cpu or device=auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of(config: RunConfig) -> torch.device:
    """Return the run's device, with torch set to deterministic algorithms where the configuration says so."""
    if config.deterministic:
        # CUDA reads the first when it starts, and torch refuses to be deterministic without it. The compiler reads the second:
        # by default it chooses kernels by their time, which differs from one process to the next.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
    torch.use_deterministic_algorithms(config.deterministic)
    return processes.own_device(pick_device(config.device))


@dataclass(frozen=True)
class Loaded:
    """What a run trains: the model with its embedding replaced, on the CPU, and the training rows on the device."""

    model: PreTrainedModel
    reader: Reader
    splits: dict[str, Rows]  # by role
    train: Examples
    teacher_train: Examples  # the same rows as a dense teacher reads them, with all tokens
    shares: dict[str, float]  # of the training rows, as `examples_of` returns them
    size: SizePart
    fit: FitPart
    recovery: dict[str, Any]
    pretraining: dict[str, Any] | None = None  # the record's


def load(runs: Sequence[Prepared], device: torch.device) -> list[Loaded]:
    """Return the model and data of each run, ready to be trained; what has to be pretrained or recovered first is so side by side.

    Raises BenchError for all that would make the training useless: data, tokenizer, weights or metrics that do not fit; ValueError
    for runs of different models.
    """
    # Pretrain before anything else takes memory on the device.
    stages = {
        number: pretraining_of(run, device)
        for number, run in enumerate(runs)
        if isinstance(run.config.pretraining, MaskedLmPretrainingConfig)
    }
    made = dict(zip(stages, pretrain_together(list(stages.values())), strict=True))
    if not all(facts["reused"] for facts in made.values()):
        cost.reset_peak_memory(device)  # a pretraining's memory is no part of the run's peak

    # One tokenizer serves all, as a large vocabulary takes two seconds to read. Calls leave their settings in it, so that its
    # size is taken first.
    if any(run.config.model != runs[0].config.model for run in runs):
        raise ValueError("runs of different models")
    tokenizer = load_tokenizer(runs[0].config.model)
    tokenizer_bytes = len(compact_json(tokenizer).encode())

    loaded, recoveries = [], dict[int, Recovery]()
    for number, run in enumerate(runs):
        part, recovery = _load(run, tokenizer, device)
        part.size.setdefault("tokenizer_bytes", tokenizer_bytes)
        if number in stages:
            encoder_file.load(stages[number].path, part.model)
            part = replace(part, pretraining=made[number])
        loaded.append(part)
        if recovery:
            recoveries[number] = recovery
    facts = recover_together(list(recoveries.values()), [loaded[number].model for number in recoveries])
    for number, recovered in zip(recoveries, facts, strict=True):
        loaded[number] = replace(loaded[number], recovery=recovered)
    return loaded


def pretraining_of(run: Prepared, device: torch.device) -> Pretraining:
    """Return the pretraining of a run that has one."""
    config, dtype = run.config, resolve_dtype(run.config.training.dtype, device)
    return Pretraining(config, run.canonical, load_tokenizer(config.model), device, dtype, run.name)


def _load(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[Loaded, Recovery | None]:
    """Return the run's model and data, and what trains back, on text without labels, what the smaller embedding lost."""
    config, task = prepared.config, prepared.config.task
    check_scoring(task)

    # Read every split, and tokenise the training rows.
    splits = _splits(config)
    check_for_run(tokenizer, config)
    texts = splits["train"].select_columns(task.columns)
    dense_reader = Reader(tokenizer, config.training.max_length)
    train, shares = examples_of(splits["train"], config, dense_reader, device)

    # Load the model, and replace its embedding. The seed gives every embedding the same new head.
    transformers.set_seed(config.seed)
    model = pretrained.load_classifier(config.model, task)
    check_reading(model, train, config.training.max_length, config.model.path)
    counts = np.bincount(train.tokens["input_ids"].cpu().numpy(), minlength=prepared.vocab_size)
    corpus = swap.texts_of(config.assignment.corpus, config, texts)
    size, fit = swap.swap(config, model, tokenizer, corpus, counts)
    if fit["codes_device"] == "cuda":
        cost.reset_peak_memory(device)  # the memory of clusters is no part of the run's peak

    # Tokenise the rows again where tokens were removed.
    teacher_train, reader = train, reader_of(config, tokenizer, model.get_input_embeddings())
    if reader.tokenizer is not tokenizer:
        size["tokenizer_bytes"] = len(compact_json(reader.tokenizer).encode())
        train, shares = examples_of(splits["train"], config, reader, device)
        teacher_train = teacher_train if config.training.teacher != "none" else train
    if shares["unknown"] > MUCH_UNKNOWN:
        share = 100 * shares["unknown"]
        log.warning(
            "%s | %.0f %% of the training tokens are unknown to the model's tokenizer", prepared.name, share
        )

    loaded = Loaded(model, reader, splits, train, teacher_train, shares, size, fit, {"name": "none"})
    if not isinstance(config.recovery, TrainedRecoveryConfig):
        return loaded, None
    dtype = resolve_dtype(config.training.dtype, device)
    unlabelled = swap.texts_of(config.recovery.corpus, config, texts)()
    identity = prepared.canonical["model"]
    reader = reader.of_length(config.recovery.max_length)
    return loaded, Recovery(config, identity, reader, unlabelled, device, dtype, prepared.name)


def reader_of(config: RunConfig, tokenizer: PreTrainedTokenizerBase, embedding: nn.Module) -> Reader:
    """Return how a model with this embedding reads the task's texts; `tokenizer` is the dense model's.

    A trimmed tokenizer needs more tokens for a text. Its texts end where the dense model's do, and it may use all of the model's
    positions for them, as otherwise what is compared would be how much each model reads.
    """
    dense, own = Reader(tokenizer, config.training.max_length), trimmed_tokenizer(tokenizer, embedding)
    return dense if own is tokenizer else Reader(own, pretrained.positions(config.model), dense)


def _splits(config: RunConfig) -> dict[str, Rows]:
    """Return the rows of each role, those of the first language; all languages are read, so that errors come now."""
    task = config.task
    splits: dict[str, Rows] = {}
    for role in ("train", *task.evaluate, *task.predict):
        for language in task_data.languages_of(task, role):
            rows = task_data.load_split(task, config.data, role, language, labels=role not in task.predict)
            splits.setdefault(role, rows)
    if limit := config.training.max_train_examples:
        kept = np.random.default_rng(0).permutation(len(splits["train"]))[:limit]  # the same for every seed
        splits["train"] = splits["train"].select(np.sort(kept))
    return splits


def examples_of(
    split: Rows, config: RunConfig, reader: Reader, device: torch.device
) -> tuple[Examples, dict[str, float]]:
    """Return a split's examples on the device, and shares: of its rows `truncated`, of its tokens `unknown`."""
    tokenizer, tokens = reader.tokenizer, tokenise(split, config.task, reader, Path(config.cache_dir))
    examples = Examples.from_table(tokens.table, cast(int, tokenizer.pad_token_id), device)
    unknown = unknown_share(tokenizer, examples.tokens["input_ids"])
    return examples, {"truncated": tokens.truncated, "unknown": unknown}


def trainees_of(runs: Sequence[Prepared], loaded: Sequence[Loaded], device: torch.device) -> list[Trainee]:
    """Return what each run trains, on the device, with the logits of its teacher where it has one."""
    dtype = resolve_dtype(runs[0].config.training.dtype, device)
    students = {
        number: Student(run.config, run.canonical, part.teacher_train, run.name)
        for number, (run, part) in enumerate(zip(runs, loaded, strict=True))
        if run.config.training.teacher != "none"
    }
    logits = dict(zip(students, teacher_logits(list(students.values()), device, dtype), strict=True))
    trainees = []
    for number, (run, part) in enumerate(zip(runs, loaded, strict=True)):
        training, train, objective = run.config.training, part.train, TASK
        if number in logits:
            train, objective = with_teacher(train, logits[number], training.teacher_weight)
        model = cast(Any, part.model).to(device)
        trainees.append(Trainee(model, train, training, run.config.seed, run.name, objective))
    return trainees
