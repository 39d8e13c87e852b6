"""`bench latency`: latency, memory and cold start of one model with each of several embeddings, in turn on one device.

Latency is measured on one body with exchanged embeddings, so nothing else differs. In a round every embedding answers once, in
random order, and is compared with the dense one of the same round: drift of a shared machine cancels out. Cold start and memory
come from fresh processes that load the stored files.
"""

import itertools
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import quantile_test
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.embeddings import assignment_of, method
from bench.errors import BenchError, ConfigError
from bench.models import pretrained, storage, swap
from bench.models.architectures import ARCHITECTURES, build, placeholder_tokenizer
from bench.models.tokenizers import load_tokenizer
from bench.runs.cost import synchronise
from bench.runs.identity import Prepared, prepare
from bench.runs.provenance import ROOT, provenance
from bench.settings.embeddings import DenseConfig
from bench.settings.schema import ProfileConfig
from bench.store import LatencyPart
from bench.tasks import data as task_data
from bench.training.precision import autocast, resolve_dtype

LEAST = 6  # rounds; with fewer the median has no 95 % interval
log = logging.getLogger("bench")


@dataclass
class Subject:
    """An embedding to measure."""

    run: Prepared
    module: nn.Module
    codes_stored: bool
    latency: list[LatencyPart] = field(default_factory=list)  # a line for each length and batch size
    start: dict[str, Any] = field(default_factory=dict)  # memory and times of fresh processes
    file_bytes: int = 0

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write the model with this embedding to a folder."""
        config = self.run.config
        pretrained.swap_embedding(model, self.module)
        storage.save_compressed(model, folder, config.embedding, self.codes_stored, assignment_of(config))
        self.file_bytes = (folder / "model.safetensors").stat().st_size

    def row(self, dtype: str) -> dict[str, Any]:
        """Return the measurements with the run's canonical configuration."""
        run = self.run
        size = method(run.config.embedding.name).size(
            run.config.embedding, run.vocab_size, run.width, self.codes_stored
        )
        profile = {"dtype": dtype, "file_bytes": self.file_bytes, "latency": self.latency, **self.start}
        return {"config": run.canonical, "embedding_bytes": size.bytes, "profile": profile}


def profile(given: Sequence[Prepared], device: torch.device) -> dict[str, Any]:
    """Return the report on the distinct embeddings of the runs, and always on the dense one. The runs share a model.

    Raises ConfigError for settings that cannot be measured.
    """
    runs = _distinct(given)
    config, settings = runs[0].config, runs[0].config.profile
    _check(settings, runs[0])
    dtype = resolve_dtype(config.training.dtype, device)
    # The command and the job name folders and machines.
    facts = {
        key: value for key, value in provenance(device).items() if key not in ("command", "slurm_job_id")
    }

    model, subjects = _built(runs)
    with tempfile.TemporaryDirectory() as folder:
        folders = {Path(folder) / str(number): subject for number, subject in enumerate(subjects)}
        for path, subject in folders.items():
            subject.save(model, path)
        _measure_starts(folders, device, dtype, settings)
    cast(Any, model).to(device)
    _measure_latency(model, subjects, device, dtype, settings)
    return {
        "model": config.model.name,
        "weights": config.model.weights,
        "device": store.device_key(facts["device"]),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": facts,
        "settings": asdict(settings),
        "rows": [subject.row(dtype) for subject in subjects],
    }


def _distinct(given: Sequence[Prepared]) -> list[Prepared]:
    """Return one run for each embedding, the dense one first. Bodies are fp32, as all bodies compute in fp32."""
    dense = prepare(replace(given[0].config, embedding=DenseConfig()))
    distinct = {store.profile_key(run.canonical): run for run in (dense, *given)}
    return [prepare(replace(run.config, body="fp32")) for run in distinct.values()]


def _check(settings: ProfileConfig, run: Prepared) -> None:
    for key in ("batch_sizes", "lengths"):
        values = getattr(settings, key)
        if not values or min(values) < 1:
            raise ConfigError(f"profile.{key} ({values}) must hold at least one number, each 1 or greater.")
    if settings.rounds < LEAST:
        raise ConfigError(
            f"profile.rounds ({settings.rounds}) must be {LEAST} or greater: fewer give no interval."
        )
    if settings.starts < 1:
        raise ConfigError(f"profile.starts ({settings.starts}) must be 1 or greater.")
    most = pretrained.positions(run.config.model)
    if most is not None and max(settings.lengths) > most:
        raise ConfigError(
            f"profile.lengths ({max(settings.lengths)}) exceeds the {most} positions of the model '{run.config.model.name}'."
        )


def _loaded(run: Prepared) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the classifier and its tokenizer. Random weights of a known architecture need no hub."""
    config = run.config.model
    if config.weights == "random" and config.name in ARCHITECTURES:
        model = build(config.name, "dense", torch.device("cpu")).eval()
        return model, placeholder_tokenizer(cast(int, model.config.pad_token_id), model.config.vocab_size)
    return pretrained.load_classifier(config, run.config.task), load_tokenizer(config)


def _built(runs: Sequence[Prepared]) -> tuple[PreTrainedModel, list[Subject]]:
    """Return the model and every embedding."""
    model, tokenizer = _loaded(runs[0])
    task = runs[0].config.task
    split = task_data.load_split(task, runs[0].config.data, "train").select_columns(task.columns)
    subjects = []
    for run in runs:
        texts = swap.texts_of(run.config.assignment.corpus, run.config, split)
        module, codes = swap.compressed(run.config, model, tokenizer, texts)
        subjects.append(Subject(run, module.eval(), codes is not None and codes.stored))
    return model, subjects


def _measure_starts(
    folders: Mapping[Path, Subject], device: torch.device, dtype: str, settings: ProfileConfig
) -> None:
    """Set each subject's `start` to the medians over `settings.starts` fresh processes, started in turn."""
    arguments = [device.type, dtype, str(max(settings.batch_sizes)), str(max(settings.lengths))]
    starts: dict[Path, list[dict[str, Any]]] = {folder: [] for folder in folders}
    for number in range(settings.starts + 1):
        for folder in folders:
            start = _start([str(folder), *arguments])
            if number:  # the first round brings the files into the page cache
                starts[folder].append(start)
        log.info("latency | %d of %d rounds of fresh processes", number, settings.starts)
    for folder, subject in folders.items():
        subject.start = {key: _median([start[key] for start in starts[folder]]) for key in starts[folder][0]}


def _median(values: list[Any]) -> Any:
    """Return the median in the values' type, bytes or seconds; None where nothing was measured."""
    return None if values[0] is None else type(values[0])(median(values))


def _start(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what a fresh process measures, and the seconds to its first answer."""
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "bench.probes.cold_start", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        first = process.stdout.readline()
        seconds = time.perf_counter() - start
        last = process.stdout.read()  # communicate() would lose what readline() has buffered
        if process.wait() != 0:
            errors.seek(0)
            raise BenchError(
                f"A fresh process failed to load a model (exit status {process.returncode}): {errors.read().strip()[-500:]}"
            )
    return {"cold_start_seconds": seconds, **json.loads(first), **json.loads(last)}


@torch.inference_mode()
def _measure_latency(
    model: PreTrainedModel,
    subjects: Sequence[Subject],
    device: torch.device,
    dtype: str,
    settings: ProfileConfig,
) -> None:
    """Append to each subject's `latency` a line for each length and batch size."""
    rng, modules = np.random.default_rng(0), [subject.module.to(device) for subject in subjects]

    def seconds(module: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
        model.set_input_embeddings(module)
        synchronise(device)
        start = time.perf_counter()
        with autocast(dtype, device):
            model(**inputs)
        synchronise(device)
        return time.perf_counter() - start

    for length, batch in itertools.product(settings.lengths, settings.batch_sizes):
        ids = torch.from_numpy(rng.integers(model.config.vocab_size, size=(batch, length))).to(device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for module in modules:
            for _ in range(settings.warmup):
                seconds(module, inputs)

        # In each round every embedding answers once, in random order.
        rounds, start = list[list[float]](), time.perf_counter()
        while len(rounds) < LEAST or (
            len(rounds) < settings.rounds and time.perf_counter() - start < settings.seconds
        ):
            order = rng.permutation(len(modules))
            took = {int(number): seconds(modules[number], inputs) for number in order}
            rounds.append([took[number] for number in range(len(modules))])

        times = np.array(rounds)  # (rounds, embeddings), the dense one first
        for number, subject in enumerate(subjects):
            dense = None if number == 0 else times[:, 0]
            subject.latency.append(latency_of(batch, length, times[:, number], dense))
        log.info("latency | %d tokens, batch %d: %d rounds", length, batch, len(rounds))


def latency_of(batch: int, length: int, times: np.ndarray, dense: np.ndarray | None) -> LatencyPart:
    """Return the line of one shape. The ratio is the median over rounds, its interval comes from order statistics."""
    ratio = low = high = None
    if dense is not None:
        ratios = times / dense
        ratio = float(np.median(ratios))
        low, high = map(float, quantile_test(ratios, q=1, p=0.5).confidence_interval(confidence_level=0.95))
    return {
        "batch": batch,
        "tokens": length,
        "rounds": len(times),
        "p50_ms": float(1000 * np.median(times)),
        "p95_ms": float(1000 * np.quantile(times, 0.95)),
        "rows_per_second": float(batch / times.mean()),
        "ratio_to_dense": ratio,
        "ratio_low": low,
        "ratio_high": high,
    }
