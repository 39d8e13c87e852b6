"""Which token shares which row of which sub-table: one registry of assignments, and a cache of their codes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import store
from bench.assignment.digits import hashed, integer_root, sequential, shuffled
from bench.assignment.vectors import LAYER, TokenVectors
from bench.errors import BenchError, ConfigError, unknown
from bench.settings.schema import AssignmentConfig

__all__ = ["ASSIGNMENTS", "Codes", "TokenVectors", "assign", "check", "identity", "integer_root"]

VERSION = 1  # of the algorithms; raised whenever a change alters codes
ITERATIONS = 4  # rounds of a contextual assignment
SOURCES = {"static": "pretrained embedding table", "context": "matrix of token vectors"}


@dataclass(frozen=True, eq=False)
class Codes:
    """A code for each token. `stored` is False where they are computed from the token id and cost no bytes."""

    codes: np.ndarray  # (V, f) int32, in 0..Q-1
    sha256: str  # over shape and contents as little-endian int32
    distinct: int  # tokens with different codes
    stored: bool
    injective: bool  # the assignment guarantees that all differ


@dataclass(frozen=True)
class Assignment:
    """How codes are made: `build(points, V, f, Q, config, weights)`; the points (V, d) are the tokens' vectors."""

    build: Callable[[np.ndarray, int, int, int, AssignmentConfig, np.ndarray | None], np.ndarray]
    settings: tuple[str, ...] = ()  # keys and constants that decide the codes
    # one of VECTORS: those that stand for the tokens unless `assignment.vectors` says otherwise
    vectors: str | None = None
    injective: bool = True
    stored: bool = True


def _contextual(
    x: np.ndarray, v: int, f: int, q: int, config: AssignmentConfig, weights: np.ndarray | None
) -> np.ndarray:
    # with joblib, which runs whose codes are cached or computed do not need
    from bench.assignment.contextual import contextual_codes

    return contextual_codes(x, f, q, ITERATIONS, config.seed, weights)


def _pq(
    x: np.ndarray, v: int, f: int, q: int, config: AssignmentConfig, weights: np.ndarray | None
) -> np.ndarray:
    from bench.assignment.clusters import product_quantisation  # as above

    return product_quantisation(x, f, q, config.seed, weights)


def _residual(
    x: np.ndarray, v: int, f: int, q: int, config: AssignmentConfig, weights: np.ndarray | None
) -> np.ndarray:
    from bench.assignment.clusters import residual_quantisation  # as above

    return residual_quantisation(x, f, q, config.seed, weights)


VECTORS = ("static", "context", "both")
ASSIGNMENTS = {
    "sequential": Assignment(lambda _, v, f, q, config, w: sequential(v, f, q), stored=False),
    "random": Assignment(lambda _, v, f, q, config, w: shuffled(v, f, q, config.seed), ("seed",)),
    "hash": Assignment(lambda _, v, f, q, config, w: hashed(v, f, q, config.seed), ("seed",), injective=False, stored=False),
    "contextual": Assignment(_contextual, ("corpus", "layer", "iterations", "seed"), "context"),
    "pq": Assignment(_pq, ("seed",), "static", injective=False),
    "residual": Assignment(_residual, ("seed",), "static", injective=False),
}  # fmt: skip


def kind(name: str) -> Assignment:
    """Return the assignment called `name`; raises ConfigError with the nearest name if there is none."""
    if name not in ASSIGNMENTS:
        raise ConfigError(unknown("assignment", name, ASSIGNMENTS))
    return ASSIGNMENTS[name]


def vectors_of(config: AssignmentConfig) -> str | None:
    """Return which vectors stand for the tokens (one of VECTORS), or None where none are needed."""
    default = ASSIGNMENTS[config.name].vectors
    return default and (config.vectors or default)


def check(config: AssignmentConfig, vocab_size: int, subspaces: int, rows: int) -> None:
    """Raise ConfigError where this assignment cannot be made; needs no weights."""
    kind(config.name)
    if config.vectors not in (None, *VECTORS):
        raise ConfigError(unknown("assignment.vectors", config.vectors, VECTORS))
    if not 0 <= config.frequency_power <= 2:
        raise ConfigError(f"assignment.frequency_power ({config.frequency_power}) must be from 0 to 2.")
    for key, value, least, most in (
        ("embedding.subspaces", subspaces, 1, 2**16),
        ("embedding.rows", rows, 2, 2**31),  # codes are int32
        (
            "assignment.seed",
            config.seed,
            0,
            2**32 - 1,
        ),  # what NumPy's old generator takes, as scikit-learn uses it
    ):
        if not least <= value <= most:
            raise ConfigError(f"{key} ({value}) must be from {least} to {most}.")
    if ASSIGNMENTS[config.name].injective and rows**subspaces < vocab_size:
        raise ConfigError(
            f"embedding.rows ({rows}) ** embedding.subspaces ({subspaces}) = {rows**subspaces:,} codes are too few for "
            f"the {vocab_size:,} tokens of an injective assignment: use "
            f"embedding.rows={integer_root(vocab_size, subspaces)} or more, or assignment=pq."
        )


def identity(config: AssignmentConfig) -> dict[str, Any]:
    """Return the name and the settings that decide the codes: what belongs to a run's identity."""
    chosen, vectors, keys = ASSIGNMENTS[config.name], vectors_of(config), set[str]()
    if vectors != chosen.vectors:
        keys |= {"vectors"} | ({"corpus", "layer"} if vectors != "static" else set())
    if chosen.vectors and config.frequency_power:
        keys |= {"frequency_power", "corpus"}
    former = {"layer": LAYER, "iterations": ITERATIONS}  # keys once, so that records hold them
    unused = {"corpus", "layer"} if vectors == "static" else set()
    return {"name": config.name} | {
        key: former[key] if key in former else getattr(config, key)
        for key in (*chosen.settings, *sorted(keys))
        if key not in unused - keys
    }


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
) -> Codes:
    """Return the codes, (V, f), from `cache_dir/codes` where the same were made before.

    `table` (V, d) is the pretrained matrix as the embedding cuts it, `vectors` are the tokens' in context; which of them
    are needed: `vectors_of`. `weights` (V,) is what each token's error counts. Raises ConfigError as `check` does,
    BenchError for values that are not finite, EnvironmentBroken for a cache that cannot be written.
    """
    check(config, vocab_size, subspaces, rows)
    chosen, wanted = ASSIGNMENTS[config.name], vectors_of(config)
    given = {
        "static": None if table is None else TokenVectors(store.array_sha256(table), lambda: table),
        "context": vectors,
    }
    needed = {name: given[name] for name in given if wanted in (name, "both")}
    weights = weights if wanted else None

    def build() -> np.ndarray:
        found = [
            _checked(_present(name, one).compute(), vocab_size, subspaces, SOURCES[name])
            for name, one in needed.items()
        ]
        if found and rows >= vocab_size:  # a row for every token: no clusters to find, and no error
            return sequential(vocab_size, 1, rows).repeat(subspaces, axis=1)
        points = (
            found[0] if len(found) == 1 else _side_by_side(found, subspaces) if found else np.empty((0, 0))
        )
        return chosen.build(points, vocab_size, subspaces, rows, config, weights)

    if chosen.stored:
        sources = [_present(name, one).key for name, one in needed.items()]
        digest = store.key(VERSION, identity(config), vocab_size, subspaces, rows, sources, weights)
        codes = store.cached_array(cache_dir / "codes" / f"{digest}.safetensors", build)
    else:
        codes = build()
    return described(codes, chosen.stored, chosen.injective)


def described(codes: np.ndarray, stored: bool, injective: bool) -> Codes:
    """Return the codes (V, f) with their digest and the number of distinct ones."""
    return Codes(
        codes, store.array_sha256(codes.astype("<i4")), len(np.unique(codes, axis=0)), stored, injective
    )


def _present(name: str, vectors: TokenVectors | None) -> TokenVectors:
    if vectors is None:
        raise ValueError(f"this assignment needs the {SOURCES[name]}")
    return vectors


def _side_by_side(both: list[np.ndarray], subspaces: int) -> np.ndarray:
    """Return points (V, d1 + d2) whose f-th parts are cut from one kind of vector and the other, at equal mean square."""
    scaled = [points / np.sqrt(np.square(points, dtype=np.float64).mean()) for points in both]
    parts = [np.array_split(points.astype(np.float32), subspaces, axis=1) for points in scaled]
    return np.concatenate([part for pair in zip(*parts, strict=True) for part in pair], axis=1)


def _checked(points: np.ndarray, vocab_size: int, subspaces: int, source: str) -> np.ndarray:
    """Return the points as float32; raises BenchError where they are not finite or not one a token."""
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
