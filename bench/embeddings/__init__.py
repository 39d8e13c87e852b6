"""Embedding methods by name.

A method is the `METHOD` of `bench/embeddings/<name>.py`, and a class with its keys in bench/settings/embeddings.py.
"""

from functools import cache
from importlib import import_module
from typing import Any, cast

from bench.embeddings.base import EmbeddingMethod
from bench.errors import ConfigError, unknown
from bench.settings.assignments import AssignmentConfig
from bench.settings.choices import CHOICES, named
from bench.settings.schema import RunConfig


@cache
def method(name: str) -> EmbeddingMethod[Any]:
    """Return the method called `name`; raises ConfigError with the nearest name if there is none."""
    if name not in CHOICES["embedding"]:
        raise ConfigError(unknown("embedding", name, CHOICES["embedding"]))
    return cast(EmbeddingMethod[Any], import_module(f"bench.embeddings.{name}").METHOD)


def assignment_of(config: RunConfig) -> AssignmentConfig | None:
    """Return the embedding's assignment: the configured one, the method's fixed one, or None."""
    chosen = method(config.embedding.name)
    if not chosen.assigned:
        return None
    fixed = chosen.fixed_assignment
    if fixed is None:
        return config.assignment
    return cast(AssignmentConfig, named("assignment", vars(config.assignment) | {"name": fixed}))
