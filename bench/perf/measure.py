"""`bench perf`: measure all sides by turns, several times, and write each number at once."""

import gc
import json
import logging
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.models.architectures import build
from bench.perf.layers import layers
from bench.perf.selection import Cell, cells, resolve
from bench.perf.sides import TOGETHER, EngineSide, Side, TrainerSide, TunedTrainerSide, Work, make_side
from bench.perf.startup import startup
from bench.perf.table import markdown
from bench.perf.workload import flops_per_row, matrix_rate, synthetic_rows
from bench.runs.provenance import provenance
from bench.settings.schema import PerfConfig, RunConfig
from bench.store import digest, write_atomically

log = logging.getLogger("bench")
TRAINING_ROWS = 3668  # as MRPC
EVALUATION_ROWS = {"cuda": 408, "cpu": 64}


def measure(config: RunConfig, device: torch.device) -> Path:
    """Measure what `config.perf` selects and return the JSON file; the table lies beside it.

    Both files are rewritten after every number, so that an interrupted measurement keeps its numbers. A side that fails is
    recorded with its error, and the others go on.
    """
    perf = resolve(config.perf, device.type == "cuda")
    facts = provenance(device)
    path = Path(config.results_dir) / "perf" / f"{slug(facts, config.perf)}.json"
    report: dict[str, Any] = {
        "complete": False,
        "provenance": facts,
        "settings": asdict(perf),
        "data": f"synthetic sentence pairs as long as MRPC's, {TRAINING_ROWS} to train on and {EVALUATION_ROWS[device.type]} to "
        "evaluate; random weights",
        "sides": {
            "trainer": TrainerSide.how,
            "trainer_tuned": TunedTrainerSide.how,
            "engines": EngineSide.how,
        },
        "matrix_flops_per_second": matrix_rate(device, 8192) if device.type == "cuda" else None,
        "startup": None,
        "layers": [],
        "rows": [],
    }

    def write() -> None:
        write_atomically(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
        write_atomically(path.with_suffix(".md"), markdown(report))

    todo, began = cells(perf), time.perf_counter()
    if perf.startup:
        report["startup"] = startup(device)
        write()
    if perf.layers:
        report["layers"] = layers(perf.backbones or [], device, perf.repeats)
        write()
    for number, cell in enumerate(todo):
        _measure_cell(cell, perf, device, report["rows"], write)
        log.info("perf | %d of %d cells after %.0f s", number + 1, len(todo), time.perf_counter() - began)
    report["complete"] = True
    write()
    return path


def slug(facts: dict[str, Any], perf: PerfConfig) -> str:
    """Return a file's name: the device's ("nvidia-h200", "cpu-2-threads"), and a digest of settings that are not the defaults.

    The digest keeps a partial measurement from overwriting the whole one.
    """
    name = f"cpu-{facts['threads']}-threads" if facts["device"] == "cpu" else facts["device"]
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if perf == PerfConfig():
        return plain
    return f"{plain}--{digest(asdict(perf))[:8]}"


class Contestant:
    """A side on a cell, and the report's row with its numbers."""

    side: Side

    def __init__(self, cell: Cell, embedding: str, name: str, perf: PerfConfig, device: torch.device) -> None:
        self.perf, self.device = perf, device
        self.steps = max(1, (perf.examples or 0) // cell.batch_size)
        self.row: dict[str, Any] = {
            "backbone": cell.backbone,
            "embedding": embedding,
            "batch_size": cell.batch_size,
            "side": name,
            "runs": 1,
            "dtype": None,
            "examples_per_second": [],
            "eval_examples_per_second": [],
            "matrix_flops_per_second": None,
            "peak_memory_bytes": None,
            "start_seconds": None,
            "fallback": None,
            "error": None,
        }

    def start(self) -> None:
        """Build the side and train for the first time. The peak of memory covers both, above what other sides hold."""
        row, on_gpu = self.row, self.device.type == "cuda"

        # Memory that other sides hold.
        gc.collect()
        held = torch.cuda.memory_allocated(self.device) if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

        # The start, and a first measurement.
        begun = time.perf_counter()
        train = synthetic_rows(row["backbone"], TRAINING_ROWS, seed=0)
        evaluation = synthetic_rows(row["backbone"], EVALUATION_ROWS[self.device.type], seed=1)
        seeds = range(self.perf.together if row["side"] in TOGETHER else 1)
        models = [build(row["backbone"], row["embedding"], self.device, seed) for seed in seeds]
        work = Work(train, evaluation, row["batch_size"], self.steps, self.perf.repeats, self.device)
        self.side = make_side(row["side"], models, work)
        row["start_seconds"] = time.perf_counter() - begun
        row |= {"runs": self.side.runs, "dtype": self.side.dtype, "fallback": self.side.fallback}
        self.train()
        if on_gpu:
            row["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device) - held

    def train(self) -> None:
        """Measure the training once."""
        row, examples = self.row, self.row["runs"] * self.row["batch_size"] * self.steps
        row["examples_per_second"].append(examples / self.side.train())
        rate = statistics.median(row["examples_per_second"])
        row["matrix_flops_per_second"] = rate * flops_per_row(row["backbone"])

    def evaluate(self) -> None:
        """Measure the evaluation once."""
        seconds = self.side.evaluate()
        if seconds is not None:
            self.row["eval_examples_per_second"].append(EVALUATION_ROWS[self.device.type] / seconds)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Write an error to the row instead of raising it."""
        try:
            yield
        except Exception as error:
            self.row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            log.exception("perf | %s %s", self.row["backbone"], self.row["side"])


def _measure_cell(
    cell: Cell, perf: PerfConfig, device: torch.device, rows: list[dict[str, Any]], write: Callable[[], None]
) -> None:
    """Measure the cell's sides by turns, so that a card that slows down slows all of them alike."""
    contestants = [Contestant(cell, embedding, name, perf, device) for embedding, name in cell.contestants]
    rows += [contestant.row for contestant in contestants]
    turns = [
        Contestant.start,
        *[Contestant.train] * (perf.repeats - 1),
        *[Contestant.evaluate] * perf.repeats,
    ]
    for turn in turns:
        for contestant in contestants:
            if contestant.row["error"] is None:
                with contestant.guarded():
                    turn(contestant)
                write()
    contestants.clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
