"""What a `bench perf` measures, and in which order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.errors import ConfigError, unknown
from bench.models.architectures import ARCHITECTURES, EMBEDDINGS
from bench.settings.pretrainings import MaskedLmPretrainingConfig
from bench.settings.recoveries import DistilConfig
from bench.settings.schema import PerfConfig

TRAINERS = ("trainer", "trainer_tuned", "trainer_best")  # in a training; the last in an evaluation, too
TOGETHER = {
    "together": "auto",
    "compile_together": "compile",
}  # trainings of several models, and their engines
ENGINES = ("eager", "graph", "compile")
# Distillation from states that are computed once, of one student or of several side by side, and its engine.
STORED = {"compile_stored": "compile", "compile_stored_together": "compile"}
SIDES = {
    "training": (*TRAINERS, *ENGINES, *TOGETHER),
    "distillation": (*ENGINES, *STORED),
    "evaluation": ("trainer_best", "predict"),
    "pretraining": ("trainer_mlm", *ENGINES),
}


class Default(NamedTuple):
    """What is measured of a kind of work where nothing else is asked for."""

    backbones: tuple[str, ...]
    sides: tuple[str, ...]
    batch_size: int  # of an evaluation: the Trainer's


WHOLE = {
    "training": Default(
        ("e5-small", "xlm-r-base", "bert-base", "minilm"), (*TRAINERS, "compile", "compile_together"), 32
    ),
    "distillation": Default(("e5-small", "minilm"), ("graph", "compile", *STORED), DistilConfig().batch_size),
    "evaluation": Default(("e5-small", "bert-base"), SIDES["evaluation"], 1024),
    "pretraining": Default(
        ("minilm", "xlm-r-small"), ("trainer_mlm", "graph", "compile"), MaskedLmPretrainingConfig().batch_size
    ),
}
SMALL = {
    "training": Default(("minilm",), ("trainer", "trainer_tuned", "eager"), 32),
    "distillation": Default(("minilm",), ("eager",), 64),
    "evaluation": Default(("minilm",), SIDES["evaluation"], 32),
    "pretraining": Default(("minilm",), ("trainer_mlm", "eager"), 8),
}
# A whole run also measures these: the other engines on the backbone where they are cheap, and one backbone at a batch size
# that fills a card, compiled.
ALL_ENGINES, LARGE_BATCH = "minilm", ("bert-base", 128)


@dataclass(frozen=True)
class Cell:
    """Sides that are measured by turns on a backbone with a batch size; a contestant is an embedding and a side's name."""

    work: str  # training | distillation | evaluation | pretraining
    backbone: str
    batch_size: int
    contestants: list[tuple[str, str]]


def cells(perf: PerfConfig, on_gpu: bool) -> list[Cell]:
    """Return the cells in the order of their measurement; raises ConfigError for an unknown name or a number below 1."""
    _check(perf)
    defaults = WHOLE if on_gpu else SMALL
    found = [cell for work in perf.work or defaults for cell in _cells(work, perf, defaults[work])]
    return [cell for cell in found if cell.contestants]


def _training(perf: PerfConfig, default: Default) -> list[Cell]:
    """Return the cells of fine-tuning.

    The Trainer trains the dense model only. Sides of several models train at the smallest batch size, which leaves most of a
    card idle, and in separate cells: a card does not hold them beside all other sides.
    """
    whole = default == WHOLE["training"] and perf.sides is None
    smallest, *larger = sorted(perf.batch_sizes or [default.batch_size])
    found = []
    for backbone in perf.backbones or default.backbones:
        all_engines = whole and backbone == ALL_ENGINES
        sides = SIDES["training"] if all_engines else perf.sides or default.sides
        found.append(Cell("training", backbone, smallest, _alone(perf, sides)))
        several = [side for side in sides if side in TOGETHER]
        found += [
            Cell("training", backbone, smallest, [(embedding, side) for side in several])
            for embedding in perf.embeddings
        ]
    for size in larger:
        found += [
            Cell("training", backbone, size, _alone(perf, perf.sides or default.sides))
            for backbone in perf.backbones or default.backbones
        ]
    if whole and not perf.batch_sizes and LARGE_BATCH[0] in (perf.backbones or default.backbones):
        found.append(Cell("training", *LARGE_BATCH, _alone(perf, ["compile"])))
    return found


def _alone(perf: PerfConfig, sides: Sequence[str]) -> list[tuple[str, str]]:
    """Return the contestants of one model each."""
    return [
        (embedding, side)
        for embedding in perf.embeddings
        for side in sides
        if side in ENGINES or (side in TRAINERS and embedding == "dense")
    ]


def _cells(work: str, perf: PerfConfig, default: Default) -> list[Cell]:
    """Return the cells of a kind of work.

    A recovery's student has f=3 tables and its teacher the same body. An evaluation is of the dense model, and the Trainer
    pretrains the dense model only.
    """
    if work == "training":
        return _training(perf, default)
    sides, sizes = [side for side in perf.sides or default.sides if side in SIDES[work]], [default.batch_size]
    contestants = [("subspace" if work == "distillation" else "dense", side) for side in sides]
    if work == "pretraining":
        contestants = [("dense", side) for side in sides if side not in ENGINES]
        contestants += [
            (embedding, side) for embedding in perf.embeddings for side in sides if side in ENGINES
        ]
        sizes = perf.batch_sizes or sizes
    return [
        Cell(work, backbone, size, contestants)
        for size in sizes
        for backbone in perf.backbones or default.backbones
    ]


def _check(perf: PerfConfig) -> None:
    """Raise ConfigError for an unknown name or a number that is too small."""
    available: dict[str, Collection[str]] = {
        "work": SIDES,
        "backbones": ARCHITECTURES,
        "embeddings": EMBEDDINGS,
        "sides": list(dict.fromkeys(side for sides in SIDES.values() for side in sides)),
    }
    for key, names in available.items():
        for name in getattr(perf, key) or ():
            if name not in names:
                raise ConfigError(unknown(f"perf.{key}", name, names))
    numbers = {"batch_sizes": perf.batch_sizes, "examples": [perf.examples], "repeats": [perf.repeats]}
    for key, values in numbers.items():
        if any(value is not None and value < 1 for value in values or ()):
            raise ConfigError(f"perf.{key} ({values}) must be at least 1.")
    if perf.together < 2:
        raise ConfigError(
            f"perf.together ({perf.together}) must be at least 2: it is the number of models that train side by side."
        )
