"""Assignment of codes to tokens: a code names a row in each sub-table. Codes that take long to compute are cached.

`assignment=<name>` chooses `ASSIGNMENT` of bench/assignment/<name>.py; its keys are a class in bench/settings/assignments.py.
"""

import logging
import time
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bench import store
from bench.assignment.base import VECTORS, Assignment, Request
from bench.assignment.digits import integer_root
from bench.assignment.rows import first_rows
from bench.assignment.vectors import LAYER, TokenVectors
from bench.errors import BenchError, ConfigError, unknown
from bench.settings.assignments import AssignmentConfig, ClusteredConfig, SeededConfig
from bench.settings.choices import CHOICES

log = logging.getLogger("bench")
VERSION = 2  # of the algorithms; raised whenever a change alters codes
WORTH_A_LINE = 5  # seconds that finding codes takes, in the log
SOURCES = {"static": "pretrained embedding table", "context": "matrix of token vectors"}


@dataclass(frozen=True, eq=False)
class Codes:
    """A code for each token. `stored` is False where they are computed from the token id and cost no bytes."""

    codes: np.ndarray  # (V, f) int32, in 0..Q-1
    stored: bool
    injective: bool  # the assignment guarantees that all differ
    device: str | None  # cpu | cuda: where clusters were found; None: nothing was clustered

    @cached_property
    def sha256(self) -> str:
        """Return the digest over shape and contents as little-endian int32."""
        return store.array_sha256(self.codes.astype("<i4", copy=False))

    @cached_property
    def distinct(self) -> int:
        """Return the number of different codes."""
        return len(first_rows(self.codes))


@cache
def kind(name: str) -> Assignment:
    """Return the assignment called `name`; raises ConfigError with the nearest name if there is none."""
    if name not in CHOICES["assignment"]:
        raise ConfigError(unknown("assignment", name, CHOICES["assignment"]))
    return cast(Assignment, import_module(f"bench.assignment.{name}").ASSIGNMENT)


def vectors_of(config: AssignmentConfig) -> str | None:
    """Return the kind of vectors that stand for the tokens (of VECTORS), or None where the codes need none."""
    chosen = config.vectors if isinstance(config, ClusteredConfig) else None
    return chosen or kind(config.name).vectors


def check(config: AssignmentConfig, vocab_size: int, subspaces: int, rows: int) -> None:
    """Raise ConfigError for an assignment that no codes can satisfy; needs no weights."""
    if isinstance(config, ClusteredConfig) and config.vectors not in (None, *VECTORS):
        raise ConfigError(unknown("assignment.vectors", config.vectors, VECTORS))
    for key, value, least, most in (
        ("embedding.subspaces", subspaces, 1, 2**16),
        ("embedding.rows", rows, 2, 2**31),  # codes are int32
    ):
        if not least <= value <= most:
            raise ConfigError(f"{key} ({value}) must be from {least} to {most}.")
    if kind(config.name).injective and rows**subspaces < vocab_size:
        raise ConfigError(
            f"embedding.rows ({rows}) ** embedding.subspaces ({subspaces}) = {rows**subspaces:,} codes are too few for "
            f"the {vocab_size:,} tokens of an injective assignment: use "
            f"embedding.rows={integer_root(vocab_size, subspaces)} or more, or assignment=pq."
        )


def identity(config: AssignmentConfig) -> dict[str, Any]:
    """Return the name and the settings that decide the codes: what belongs to a run's identity."""
    chosen, vectors = kind(config.name), vectors_of(config)
    decides = {"name": config.name, **chosen.constants}
    if isinstance(config, SeededConfig):
        decides["seed"] = config.seed
    if vectors != chosen.vectors:
        decides["vectors"] = vectors
    if vectors in ("context", "both"):
        decides |= {"corpus": config.corpus, "layer": LAYER}
    if isinstance(config, ClusteredConfig) and config.frequency_power:
        decides |= {"frequency_power": config.frequency_power, "corpus": config.corpus}
    return decides


def _seed(config: AssignmentConfig) -> int:
    return cast(int, config.seed) if isinstance(config, SeededConfig) else 0


def computed(config: AssignmentConfig, vocab_size: int, subspaces: int, rows: int) -> np.ndarray:
    """Return the codes (V, f) of an assignment that computes them from the token ids."""
    return kind(config.name).build(Request(vocab_size, subspaces, rows, _seed(config)))


def assign(
    config: AssignmentConfig,
    *,
    vocab_size: int,
    subspaces: int,
    rows: int,
    table: np.ndarray | None,
    vectors: TokenVectors | None,
    cache_dir: Path,
    weights: np.ndarray | None = None,
    device: torch.device | None = None,
) -> Codes:
    """Return the codes, (V, f), from `cache_dir/codes` if they are there.

    `table` (V, d) is the pretrained matrix as the embedding cuts it, `vectors` are the tokens' in context; which of them
    are needed: `vectors_of`. `weights` (V,) is what each token's error counts. `device`, if any, finds the
    clusters in fp64: its codes can differ from the CPU's (None), so the cache holds them apart; without room on it the CPU
    finds them. Raises ConfigError as `check` does, BenchError for values that are not finite, EnvironmentBroken for a cache
    that cannot be written.
    """
    check(config, vocab_size, subspaces, rows)
    chosen, needed = kind(config.name), _needed(config, table, vectors)
    if not needed:  # nothing to cluster
        weights = device = None

    def cached(device: torch.device | None) -> np.ndarray:
        sources, found_on = [part.key for part in needed.values()], [device.type] if device else []
        digest = store.key(
            VERSION, identity(config), vocab_size, subspaces, rows, sources, weights, *found_on
        )
        request = Request(vocab_size, subspaces, rows, _seed(config), weights=weights, device=device)
        path, narrow = cache_dir / "codes" / f"{digest}.safetensors", np.min_scalar_type(rows - 1)
        codes = store.cached_array(path, lambda: _built(config.name, request, needed).astype(narrow))
        return codes.astype(np.int32, copy=False)

    # The codes, cached where they take long.
    full = False
    try:
        codes = cached(device) if chosen.stored else computed(config, vocab_size, subspaces, rows)
    except torch.cuda.OutOfMemoryError:
        full = True
    if full:  # not in the handler, as the error keeps alive what lies on the GPU
        log.warning(
            "assignment=%s: the GPU has no room for the tokens' vectors, the CPU clusters", config.name
        )
        torch.cuda.empty_cache()
        codes, device = cached(None), None
    found_on = (device or torch.device("cpu")).type if needed else None
    return Codes(codes, chosen.stored, chosen.injective, found_on)


def _needed(
    config: AssignmentConfig, table: np.ndarray | None, vectors: TokenVectors | None
) -> dict[str, TokenVectors]:
    """Return the vectors that stand for the tokens, by their source; raises ValueError where they are not given."""
    static = None if table is None else TokenVectors(store.array_sha256(table), lambda: table)
    kinds, needed = vectors_of(config), {}
    for source, given in (("static", static), ("context", vectors)):
        if kinds in (source, "both"):
            if given is None:
                raise ValueError(f"this assignment needs the {SOURCES[source]}")
            needed[source] = given
    return needed


def _built(name: str, request: Request, needed: dict[str, TokenVectors]) -> np.ndarray:
    """Return the codes (V, f) of an assignment for a request, whose points these vectors are."""
    points = [
        _checked(part.compute(), request.vocab_size, request.subspaces, SOURCES[source])
        for source, part in needed.items()
    ]
    # A row for every token: no clusters to find, and no error.
    if points and request.rows >= request.vocab_size:
        return np.arange(request.vocab_size, dtype=np.int32)[:, None].repeat(request.subspaces, axis=1)
    joined = _side_by_side(points, request.subspaces) if len(points) > 1 else next(iter(points), None)
    began = time.perf_counter()
    codes = kind(name).build(replace(request, points=joined))
    if (seconds := time.perf_counter() - began) > WORTH_A_LINE:
        tokens, where = f"{request.vocab_size:,}", request.device or "cpu"
        log.info("assignment=%s: codes of %s tokens found in %.0f s on %s", name, tokens, seconds, where)
    return codes


def _side_by_side(both: list[np.ndarray], subspaces: int) -> np.ndarray:
    """Return points (V, d1 + d2) whose f-th parts are cut from both kinds of vectors, at equal mean square."""
    scaled = [points / np.sqrt(np.square(points, dtype=np.float64).mean()) for points in both]
    parts = [np.array_split(points.astype(np.float32), subspaces, axis=1) for points in scaled]
    return np.concatenate([part for pair in zip(*parts, strict=True) for part in pair], axis=1)


def _checked(points: np.ndarray, vocab_size: int, subspaces: int, source: str) -> np.ndarray:
    """Return the points as float32; raises BenchError where they are not finite or their number is not V."""
    if len(points) != vocab_size:
        raise BenchError(f"The {source} has {len(points):,} rows, but there are {vocab_size:,} tokens.")
    if subspaces > points.shape[1]:
        raise ConfigError(
            f"embedding.subspaces ({subspaces}) exceeds the {source}'s width: at most {points.shape[1]}."
        )
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad:
        raise BenchError(f"The {source} has NaN or infinite values in {bad:,} of its {vocab_size:,} rows.")
    return points.astype(np.float32, copy=False)
