"""A cell's sides, measured by turns, and the report's row of each."""

import gc
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench.models.architectures import build
from bench.perf.engines import PredictionSide, distillation_side, pretraining_side, training_side
from bench.perf.selection import STORED, TOGETHER, Cell
from bench.perf.sides import Side, Work
from bench.perf.trainers import (
    BestTrainerSide,
    EvaluatingTrainerSide,
    MaskedLmTrainerSide,
    TrainerSide,
    TunedTrainerSide,
)
from bench.perf.workload import FORWARD_PASSES, flops_per_row, synthetic_rows
from bench.settings.schema import PerfConfig

log = logging.getLogger("bench")
TRAINER_SIDES: dict[tuple[str, str], type[TrainerSide]] = {
    ("training", "trainer"): TrainerSide,
    ("training", "trainer_tuned"): TunedTrainerSide,
    ("training", "trainer_best"): BestTrainerSide,
    ("evaluation", "trainer_best"): EvaluatingTrainerSide,
    ("pretraining", "trainer_mlm"): MaskedLmTrainerSide,
}
# Rows of each kind of work: as many as MRPC trains on, 100 batches of a recovery, XNLI's test, 100 batches of a pretraining; on a
# CPU few.
ROWS = {
    "cuda": {"training": 3668, "distillation": 25_600, "evaluation": 75_150, "pretraining": 25_600},
    "cpu": {"training": 3668, "distillation": 64, "evaluation": 128, "pretraining": 16},
}
EXAMPLES = {"cuda": 1600, "cpu": 64}  # trained in each repeat unless perf.examples says otherwise


class Contestant:
    """A side on a cell, and the report's row with its numbers."""

    side: Side

    def __init__(self, cell: Cell, embedding: str, name: str, perf: PerfConfig, device: torch.device) -> None:
        self.name, self.device = name, device

        # The rows, and those of them that one measurement of one model goes through.
        available = ROWS[device.type][cell.work]
        rows = synthetic_rows(cell.backbone, cell.work, available)
        asked = (perf.examples or EXAMPLES[device.type]) if cell.work == "training" else available
        steps = max(1, asked // cell.batch_size)
        self.work = Work(rows, cell.batch_size, steps, perf.repeats, device)
        self.measured_rows = available if cell.work == "evaluation" else steps * cell.batch_size
        passes = FORWARD_PASSES[cell.work] - (name in STORED)
        self.flops = flops_per_row(cell.backbone, passes, rows.lengths)

        self.row: dict[str, Any] = {
            "work": cell.work,
            "backbone": cell.backbone,
            "embedding": embedding,
            "batch_size": cell.batch_size,
            "side": name,
            "runs": perf.together if name.endswith("together") else 1,
            "rows": self.measured_rows,
            "dtype": None,
            "examples_per_second": [],
            "matrix_flops_per_second": None,
            "peak_memory_bytes": None,
            "start_seconds": None,
            "fallback": None,
            "error": None,
        }

    def start(self) -> None:
        """Build the side and measure it for the first time. The peak of memory covers both, above what other sides hold."""
        row, on_gpu = self.row, self.device.type == "cuda"

        # Memory that other sides hold.
        gc.collect()
        held = torch.cuda.memory_allocated(self.device) if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

        # The start, and a first measurement.
        begun = time.perf_counter()
        self.side = self._make()
        row["start_seconds"] = time.perf_counter() - begun
        row |= {"dtype": self.side.dtype, "fallback": self.side.fallback}
        self.measure()
        if on_gpu:
            row["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device) - held

    def _make(self) -> Side:
        """Return the side on models with random weights."""
        row = self.row
        models = [build(row["backbone"], row["embedding"], self.device, seed) for seed in range(row["runs"])]
        if trainer := TRAINER_SIDES.get((row["work"], self.name)):
            return trainer(models[0], self.work)
        if row["work"] == "evaluation":
            return PredictionSide(models[0], self.work)
        if row["work"] == "distillation":
            teacher = build(row["backbone"], "dense", self.device)
            stored = self.name in STORED
            choice = STORED.get(self.name, self.name)
            return distillation_side(choice, models, teacher, stored, self.work)
        if row["work"] == "pretraining":
            return pretraining_side(self.name, models[0], self.work)
        return training_side(TOGETHER.get(self.name, self.name), models, self.work)

    def measure(self) -> None:
        """Measure once."""
        rates = self.row["examples_per_second"]
        rates.append(self.row["runs"] * self.measured_rows / self.side.measure())
        self.row["matrix_flops_per_second"] = statistics.median(rates) * self.flops

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Write an error to the row instead of raising it."""
        try:
            yield
        except Exception as error:
            self.row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            log.exception("perf | %s %s", self.row["backbone"], self.row["side"])


def measure_cell(
    cell: Cell, perf: PerfConfig, device: torch.device, rows: list[dict[str, Any]], write: Callable[[], None]
) -> None:
    """Measure the cell's sides by turns, so that a card that slows down slows all of them alike; their rows go to `rows`."""
    contestants = [Contestant(cell, embedding, name, perf, device) for embedding, name in cell.contestants]
    rows += [contestant.row for contestant in contestants]
    for turn in [Contestant.start, *[Contestant.measure] * (perf.repeats - 1)]:
        for contestant in contestants:
            if contestant.row["error"] is None:
                with contestant.guarded():
                    turn(contestant)
                write()
    contestants.clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measured(cell: Cell, perf: PerfConfig, rows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the cell's rows if each has all its repeats or an error, else None."""
    wanted = [(cell.work, cell.backbone, cell.batch_size, *contestant) for contestant in cell.contestants]
    keys = ("work", "backbone", "batch_size", "embedding", "side")
    found = [row for row in rows if tuple(row[key] for key in keys) in wanted]
    whole = all(row["error"] or len(row["examples_per_second"]) == perf.repeats for row in found)
    return found if whole and len(found) == len(wanted) else None
