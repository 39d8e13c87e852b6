"""What one `bench perf` measures, and in which order."""

from dataclasses import dataclass

from bench.config import PerfConfig
from bench.errors import ConfigError, unknown
from bench.perf.sides import SIDES
from bench.perf.workload import ARCHITECTURES, EMBEDDINGS


@dataclass(frozen=True)
class Cell:
    """Sides that are measured by turns on one backbone with one batch size; each is an embedding and a side's name."""

    backbone: str
    batch_size: int
    contestants: list[tuple[str, str]]


def resolve(perf: PerfConfig, on_gpu: bool) -> PerfConfig:
    """Return `perf` with its nulls filled in for the device; raises ConfigError for an unknown name or a number below 1."""
    whole = PerfConfig(
        backbones=perf.backbones or (["bert-base", "minilm", "xlm-r-base"] if on_gpu else ["minilm"]),
        embeddings=perf.embeddings, batch_sizes=perf.batch_sizes or ([32, 128] if on_gpu else [32]),
        sides=perf.sides or (list(SIDES) if on_gpu else ["trainer", "trainer_tuned", "eager"]),
        examples=perf.examples or (1600 if on_gpu else 64), repeats=perf.repeats, together=perf.together, startup=perf.startup, layers=perf.layers)
    for key, names, available in (("backbones", whole.backbones, ARCHITECTURES), ("embeddings", whole.embeddings, EMBEDDINGS),
                                  ("sides", whole.sides, SIDES)):
        for name in names or ():
            if name not in available:
                raise ConfigError(unknown(f"perf.{key}", name, available))
    for key, values in (("batch_sizes", whole.batch_sizes), ("examples", [whole.examples]), ("repeats", [whole.repeats])):
        if any(value is None or value < 1 for value in values or ()):
            raise ConfigError(f"perf.{key} ({values}) must be at least 1.")
    if whole.together < 2:
        raise ConfigError(f"perf.together ({whole.together}) must be at least 2: it is the number of models that train side by side.")
    return whole


def cells(perf: PerfConfig) -> list[Cell]:
    """Return the cells in the order of their weight: small batches first, compiling (a minute for each) last.

    The Trainer trains the compressed model at the smallest batch size only.
    """
    backbones, sizes, sides = perf.backbones or [], sorted(perf.batch_sizes or []), perf.sides or []
    result = []
    for size in sizes:
        contestants = [(embedding, side) for embedding in perf.embeddings for side in sides
                       if side != "compile" and (size == sizes[0] or embedding == "dense" or "trainer" not in side)]
        result += [Cell(backbone, size, contestants) for backbone in backbones]
    if "compile" in sides:
        result += [Cell(backbone, sizes[0], [(perf.embeddings[0], "compile")]) for backbone in backbones]
    return result
