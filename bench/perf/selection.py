"""What a `bench perf` measures, and in which order."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from bench.errors import ConfigError, unknown
from bench.models.architectures import ARCHITECTURES, EMBEDDINGS
from bench.perf.sides import SIDES, TOGETHER
from bench.settings.schema import PerfConfig


@dataclass(frozen=True)
class Cell:
    """Sides that are measured by turns on a backbone with a batch size; a contestant is an embedding and a side's name."""

    backbone: str
    batch_size: int
    contestants: list[tuple[str, str]]


def resolve(perf: PerfConfig, on_gpu: bool) -> PerfConfig:
    """Return `perf` with its nulls filled in for the device; raises ConfigError for an unknown name or a number below 1."""
    whole = replace(
        perf,
        backbones=perf.backbones or (["bert-base", "minilm", "xlm-r-base"] if on_gpu else ["minilm"]),
        batch_sizes=perf.batch_sizes or ([32, 128] if on_gpu else [32]),
        sides=perf.sides or (list(SIDES) if on_gpu else ["trainer", "trainer_tuned", "eager"]),
        examples=perf.examples or (1600 if on_gpu else 64),
    )
    available: dict[str, Collection[str]] = {
        "backbones": ARCHITECTURES,
        "embeddings": EMBEDDINGS,
        "sides": SIDES,
    }
    for key, names in available.items():
        for name in getattr(whole, key):
            if name not in names:
                raise ConfigError(unknown(f"perf.{key}", name, names))
    numbers = {"batch_sizes": whole.batch_sizes, "examples": [whole.examples], "repeats": [whole.repeats]}
    for key, values in numbers.items():
        if any(value is None or value < 1 for value in values or ()):
            raise ConfigError(f"perf.{key} ({values}) must be at least 1.")
    if whole.together < 2:
        raise ConfigError(
            f"perf.together ({whole.together}) must be at least 2: it is the number of models that train side by side."
        )
    return whole


def cells(perf: PerfConfig) -> list[Cell]:
    """Return the cells, small batches first.

    The Trainer trains the dense model only. Sides of several models train at the smallest batch size, which leaves most of a
    card idle, and in separate cells: a card does not hold them beside all other sides.
    """
    sizes, backbones, sides = sorted(perf.batch_sizes or []), perf.backbones or [], perf.sides or []
    alone = [side for side in sides if side not in TOGETHER]
    several = [side for side in sides if side in TOGETHER]
    singles = [
        (embedding, side)
        for embedding in perf.embeddings
        for side in alone
        if embedding == "dense" or "trainer" not in side
    ]
    result = [Cell(backbone, sizes[0], singles) for backbone in backbones]
    result += [
        Cell(backbone, sizes[0], [(embedding, side) for side in several])
        for backbone in backbones
        for embedding in perf.embeddings
    ]
    result += [Cell(backbone, size, singles) for size in sizes[1:] for backbone in backbones]
    return [cell for cell in result if cell.contestants]
