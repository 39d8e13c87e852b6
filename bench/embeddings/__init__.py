"""Embedding methods by name. A new method is one file here and one YAML file in `conf/embedding/`."""

from dataclasses import replace

from bench.embeddings.base import EmbeddingMethod
from bench.embeddings.codebook import Codebook
from bench.embeddings.dense import Dense
from bench.embeddings.hash_only import HashOnly
from bench.embeddings.hashing import Hashing
from bench.embeddings.low_rank import LowRank
from bench.embeddings.mean import Mean
from bench.embeddings.quantised import Quantised
from bench.embeddings.quotient_remainder import QuotientRemainder
from bench.embeddings.residual import Residual
from bench.embeddings.subspace import Subspace
from bench.embeddings.trimmed import Trimmed
from bench.embeddings.truncated import Truncated
from bench.errors import ConfigError, unknown
from bench.settings.schema import AssignmentConfig, RunConfig

METHODS: dict[str, EmbeddingMethod] = {
    "dense": Dense(), "subspace": Subspace(), "codebook": Codebook(), "residual": Residual(), "hashing": Hashing(),
    "quotient_remainder": QuotientRemainder(), "low_rank": LowRank(), "truncated": Truncated(), "trimmed": Trimmed(),
    "quantised": Quantised(), "mean": Mean(), "hash_only": HashOnly(),
}  # fmt: skip


def method(name: str) -> EmbeddingMethod:
    """Return the method called `name`; raises ConfigError with the nearest name if there is none."""
    if name not in METHODS:
        raise ConfigError(unknown("embedding", name, METHODS))
    return METHODS[name]


def assignment_of(config: RunConfig) -> AssignmentConfig | None:
    """Return the assignment that the embedding uses: the configured one, the method's own, or none."""
    chosen = method(config.embedding.name)
    if not chosen.assigned:
        return None
    return (
        replace(config.assignment, name=chosen.own_assignment) if chosen.own_assignment else config.assignment
    )
