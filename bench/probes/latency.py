"""`bench latency`: what a model costs in use with each of several embeddings, all measured in turn on one device.

Latency: one body, whose embedding is exchanged, so that nothing else differs; rounds in which every embedding answers once, in a new
order each, and ratios to the dense embedding within a round. Cold start and memory: fresh processes that load what is stored.
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from bench.runs.identity import Prepared, prepare
from bench.runs.provenance import ROOT, provenance
from bench.settings.embeddings import DenseConfig
from bench.settings.schema import ProfileConfig
from bench.store import LatencyPart
from bench.tasks import data as task_data
from bench.training.precision import autocast, resolve_dtype

LEAST = 6  # rounds: with fewer the median has no 95 % interval
log = logging.getLogger("bench")


def profile(given: Sequence[Prepared], device: torch.device) -> dict[str, Any]:
    """Return the report on the distinct embeddings of the runs, which share a model; the dense one is always among them.

    Raises ConfigError for settings that cannot be measured.
    """
    runs = _distinct(given)
    config, settings = runs[0].config, runs[0].config.profile
    _check(settings, runs[0])
    dtype = resolve_dtype(config.training.dtype, device)
    facts = {
        key: value for key, value in provenance(device).items() if key not in ("command", "slurm_job_id")
    }  # paths, places
    model, modules, stored = _built(runs)
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(number) for number in range(len(runs))]
        for run, module, codes_stored, one in zip(runs, modules, stored, folders, strict=True):
            pretrained.swap_embedding(model, module)
            storage.save_compressed(model, one, run.config.embedding, codes_stored, assignment_of(run.config))
        starts = _cold(folders, device, dtype, settings)
        sizes = [(one / "model.safetensors").stat().st_size for one in folders]
    cast(Any, model).to(device)
    latencies = _latencies(model, [module.to(device) for module in modules], device, dtype, settings)
    rows = []
    for run, codes_stored, size, start, latency in zip(runs, stored, sizes, starts, latencies, strict=True):
        embedding_bytes = (
            method(run.config.embedding.name)
            .size(run.config.embedding, run.vocab_size, run.width, codes_stored)
            .bytes
        )
        rows.append(
            {
                "config": run.canonical,
                "embedding_bytes": embedding_bytes,
                "profile": {"dtype": dtype, "file_bytes": size, "latency": latency, **start},
            }
        )
    return {
        "model": config.model.name,
        "weights": config.model.weights,
        "device": store.device_key(facts["device"]),
        "provenance": facts,
        "settings": asdict(settings),
        "rows": rows,
    }


def into_records(report: dict[str, Any], results_dir: Path) -> int:
    """Write each profile into the finished records of the same model, embedding and assignment with an fp32 body; return how many."""
    profiles = {_key(row["config"]): row["profile"] for row in report["rows"]}
    changed = 0
    for _, record in store.each(results_dir):
        if (
            isinstance(record, str)
            or record["status"] != "ok"
            or record["cost"] is None
            or "body" in record["config"]
            or _key(record["config"]) not in profiles
        ):
            continue
        record["cost"]["profiles"] = (record["cost"]["profiles"] or {}) | {
            report["device"]: profiles[_key(record["config"])]
        }
        store.write(record, results_dir)
        changed += 1
    return changed


def _key(canonical: dict[str, Any]) -> str:
    return json.dumps([canonical[part] for part in ("model", "embedding", "assignment")], sort_keys=True)


def _distinct(given: Sequence[Prepared]) -> list[Prepared]:
    """Return one run an embedding, the dense one first, with a body in fp32: in fewer bits it is computed with in fp32 too."""
    dense = prepare(replace(given[0].config, embedding=DenseConfig()))
    distinct = {_key(run.canonical): run for run in (dense, *given)}
    return [prepare(replace(run.config, body="fp32")) for run in distinct.values()]


def _check(settings: ProfileConfig, run: Prepared) -> None:
    for key in ("batch_sizes", "lengths"):
        if not getattr(settings, key) or min(getattr(settings, key)) < 1:
            raise ConfigError(
                f"profile.{key} ({getattr(settings, key)}) must name at least one number, each 1 or greater."
            )
    if settings.rounds < LEAST:
        raise ConfigError(
            f"profile.rounds ({settings.rounds}) must be {LEAST} or greater: fewer give no interval."
        )
    if settings.starts < 1:
        raise ConfigError(f"profile.starts ({settings.starts}) must be 1 or greater.")
    most = pretrained.positions(run.config.model)
    if most is not None and max(settings.lengths) > most:
        raise ConfigError(
            f"profile.lengths ({max(settings.lengths)}) is more than the {most} positions of the model '{run.config.model.name}'."
        )


def _loaded(run: Prepared) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the classifier and its tokenizer; of random weights, where the architecture is known, without any hub."""
    config = run.config.model
    if config.weights == "random" and config.name in ARCHITECTURES:
        model = build(config.name, "dense", torch.device("cpu")).eval()
        return model, placeholder_tokenizer(cast(int, model.config.pad_token_id), model.config.vocab_size)
    return pretrained.load_classifier(config, run.config.task), load_tokenizer(config)


def _built(runs: Sequence[Prepared]) -> tuple[PreTrainedModel, list[nn.Module], list[bool]]:
    """Return the model, every embedding, and whether its codes are stored."""
    model, tokenizer = _loaded(runs[0])
    split = task_data.load_split(runs[0].config.task, runs[0].config.data, "train").select_columns(
        runs[0].config.task.columns
    )
    modules, stored = list[nn.Module](), list[bool]()
    for run in runs:
        texts = swap.texts_of(run.config.assignment.corpus, run.config, split)
        module, codes = swap.compressed(run.config, model, tokenizer, texts)
        modules.append(module.eval())
        stored.append(codes is not None and codes.stored)
    return model, modules, stored


def _cold(
    folders: Sequence[Path], device: torch.device, dtype: str, settings: ProfileConfig
) -> list[dict[str, Any]]:
    """Return the medians over `settings.starts` fresh processes each, started in turn."""
    arguments = [device.type, dtype, str(max(settings.batch_sizes)), str(max(settings.lengths))]
    found: list[list[dict[str, Any]]] = [[] for _ in folders]
    for number in range(settings.starts + 1):
        for folder, own in zip(folders, found, strict=True):
            one = _started([str(folder), *arguments])
            if number:  # the first round brings the files into the page cache
                own.append(one)
        log.info("cost | %d of %d rounds of fresh processes", number, settings.starts)
    return [
        {
            key: None if own[0][key] is None else type(own[0][key])(median(one[key] for one in own))
            for key in own[0]
        }
        for own in found
    ]


def _started(arguments: Sequence[str]) -> dict[str, Any]:
    begun = time.perf_counter()
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
        seconds = time.perf_counter() - begun
        last = process.stdout.read()  # communicate would lose what readline has already buffered
        if process.wait() != 0:
            errors.seek(0)
            raise BenchError(
                f"A fresh process that was to load a model ended with exit status {process.returncode}: {errors.read().strip()[-500:]}"
            )
    return {"cold_start_seconds": seconds, **json.loads(first), **json.loads(last)}


@torch.inference_mode()
def _latencies(
    model: PreTrainedModel,
    modules: Sequence[nn.Module],
    device: torch.device,
    dtype: str,
    settings: ProfileConfig,
) -> list[list[LatencyPart]]:
    """Return for each embedding one line a length and batch size."""
    rng, found = np.random.default_rng(0), [list[LatencyPart]() for _ in modules]

    def seconds(module: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
        model.set_input_embeddings(module)
        _wait(device)
        begun = time.perf_counter()
        with autocast(dtype, device):
            model(**inputs)
        _wait(device)
        return time.perf_counter() - begun

    for length in settings.lengths:
        for batch in settings.batch_sizes:
            ids = torch.from_numpy(rng.integers(model.config.vocab_size, size=(batch, length))).to(device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            for module in modules:
                for _ in range(settings.warmup):
                    seconds(module, inputs)
            rounds, begun = list[list[float]](), time.perf_counter()
            while len(rounds) < LEAST or (
                len(rounds) < settings.rounds and time.perf_counter() - begun < settings.seconds
            ):
                order = rng.permutation(len(modules))
                took = {int(number): seconds(modules[number], inputs) for number in order}
                rounds.append([took[number] for number in range(len(modules))])
            times = np.array(rounds)  # (rounds, embeddings), the dense one first
            for number, own in enumerate(found):
                own.append(latency_of(batch, length, times[:, number], None if number == 0 else times[:, 0]))
            log.info("cost | %d tokens, batch %d: %d rounds", length, batch, len(rounds))
    return found


def latency_of(batch: int, length: int, times: np.ndarray, dense: np.ndarray | None) -> LatencyPart:
    """Return the line of one cell; the ratio is the median over rounds, its interval by order statistics (no distribution)."""
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
