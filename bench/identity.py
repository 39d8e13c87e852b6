"""What a run is: its configuration checked, resolved, in canonical form, with an id. Loads no weights."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

import bench.assignment
from bench import backbones
from bench.assignment import corpus
from bench.config import EmbeddingConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from bench.embeddings import method
from bench.errors import ConfigError, unknown
from bench.tasks import data as task_data
from bench.training.engine import ENGINES
from bench.training.precision import DTYPES

RECOVERIES = ("none",)
NOT_IDENTITY = {"eval_batch_size", "engine"}  # of TrainingConfig: cannot change the result
DESCRIPTIVE = {"official_rows", "chance", "majority", "average", "notes", "higher_is_better"}  # of TaskConfig


@dataclass(frozen=True)
class Prepared:
    """A run that can start: `config` is resolved, `canonical` is what decides the result, `run_id` its digest."""

    config: RunConfig
    canonical: dict[str, Any]
    run_id: str
    name: str  # <model>/<task>/<method-slug>/s<seed>
    vocab_size: int
    width: int
    source: str  # of the data


def prepare(config: RunConfig) -> Prepared:
    """Return the checked and resolved run. Raises ConfigError or DataError before anything is loaded."""
    _check_numbers(config)
    for key, name in (("model.name", config.model.name), ("task.name", config.task.name)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(f"{key} ({name}) may hold letters, digits, '.', '_' and '-' only: it becomes a folder's name.")
    if config.recovery.name not in RECOVERIES:
        raise ConfigError(unknown("recovery", config.recovery.name, RECOVERIES))
    model_identity, (vocab_size, width) = _model(_frozen(config.model))
    chosen = method(config.embedding.name)
    embedding = chosen.resolve(config.embedding, vocab_size, width)
    assignment = None
    if chosen.assigned:
        bench.assignment.check(config.assignment, vocab_size, embedding.subspaces, embedding.rows or 0)
        assignment = bench.assignment.identity(config.assignment)
        if "corpus" in assignment:
            assignment["corpus"] = corpus.identity(config.assignment.corpus)
    source = task_data.resolve_source(config.task, config.data)
    roles = ["train", *config.task.evaluate, *config.task.predict]
    canonical = {
        "model": model_identity,
        "task": {k: v for k, v in asdict(config.task).items() if k not in DESCRIPTIVE}
        | {"splits": {role: config.task.splits.get(role) for role in roles}},
        "embedding": chosen.identity(embedding),
        "assignment": assignment,
        "recovery": asdict(config.recovery),
        "training": {k: v for k, v in asdict(config.training).items() if k not in NOT_IDENTITY},
        "data": {"source": source, "sha256": task_data.data_identity(config.task, config.data, roles)},
        "seed": config.seed,
    }
    name = f"{config.model.name}/{config.task.name}/{slug(embedding, assignment)}/s{config.seed}"
    return Prepared(replace(config, embedding=embedding), canonical, run_id(canonical), name, vocab_size, width, source)


def run_id(canonical: dict[str, Any]) -> str:
    """Return the first 12 hex digits of the SHA-256 of a canonical configuration."""
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:12]


def slug(embedding: EmbeddingConfig, assignment: dict[str, Any] | None) -> str:
    """Return a short folder name of the method, for people; runs are told apart by their id."""
    if assignment is None:
        return embedding.name
    return f"{embedding.name}-{embedding.compose}-f{embedding.subspaces}-q{embedding.rows}-{assignment['name']}-{embedding.init}"


def _frozen(model: ModelConfig) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, getattr(model, f.name)) for f in fields(model))


@cache  # a plan asks for the same few models thousands of times
def _model(items: tuple[tuple[str, Any], ...]) -> tuple[dict[str, Any], tuple[int, int]]:
    model = ModelConfig(**dict(items))
    return backbones.identity(model), backbones.shape(model)


def _check_numbers(config: RunConfig) -> None:
    training: TrainingConfig = config.training
    positive = ("epochs", "max_steps", "batch_size", "learning_rate", "max_grad_norm", "max_length", "max_train_examples",
                "eval_batch_size")
    for key in positive:
        value = getattr(training, key)
        if value is not None and not value > 0:
            raise ConfigError(f"training.{key} ({value}) must be greater than 0.")
    if not 0 <= training.warmup_fraction <= 1:
        raise ConfigError(f"training.warmup_fraction ({training.warmup_fraction}) must lie between 0 and 1.")
    for key, value, allowed in (("training.dtype", training.dtype, DTYPES), ("training.engine", training.engine, ENGINES),
                                ("device", config.device, ("auto", "cpu", "cuda"))):
        if value not in allowed:
            raise ConfigError(unknown(key, value, allowed))
    if config.seed < 0:
        raise ConfigError(f"seed ({config.seed}) must be 0 or greater.")
    task: TaskConfig = config.task
    for role in ("train", *task.evaluate, *task.predict):
        if role not in task.splits:
            raise ConfigError(f"task.evaluate names the role '{role}', but task.splits has only: {', '.join(task.splits)}.")
    if task.headline not in task.metrics:
        raise ConfigError(f"task.headline ({task.headline}) is not one of task.metrics: {', '.join(task.metrics)}.")
