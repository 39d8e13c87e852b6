"""Embedding methods by name. A new method is one file here and one YAML file in `conf/embedding/`."""

from bench.embeddings.base import EmbeddingMethod
from bench.embeddings.dense import Dense
from bench.embeddings.subspace import Subspace
from bench.errors import ConfigError, unknown

METHODS: dict[str, EmbeddingMethod] = {"dense": Dense(), "subspace": Subspace()}


def method(name: str) -> EmbeddingMethod:
    """Return the method called `name`; raises ConfigError with the nearest name if there is none."""
    if name not in METHODS:
        raise ConfigError(unknown("embedding", name, METHODS))
    return METHODS[name]
