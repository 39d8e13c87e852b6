"""A run's identity: its configuration checked, resolved and in canonical form, with an id. Loads no weights."""

import json
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

import bench.assignment
from bench.embeddings import assignment_of, method
from bench.errors import ConfigError, unknown
from bench.models import location, pretrained
from bench.models.body import FORMS
from bench.settings.assignments import ClusteredConfig, SeededConfig
from bench.settings.choices import CHOICES
from bench.settings.compose import compose_config
from bench.settings.embeddings import TablesConfig
from bench.settings.numbers import check_numbers
from bench.settings.pretrainings import MaskedLmPretrainingConfig
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import ModelConfig, RunConfig, SamplingConfig, TrainingConfig
from bench.store import digest
from bench.tasks import corpora
from bench.tasks import data as task_data
from bench.tasks.scoring import check_metrics
from bench.training import VERSIONS, pretraining
from bench.training.precision import DTYPES

TEACHERS = ("none", "dense")
# Keys of TrainingConfig that change a result by rounding at most, and those that mean nothing without a teacher.
NOT_IDENTITY = {"eval_batch_tokens", "device_batch"}
TEACHING = {"teacher", "teacher_weight"}
# Keys of TaskConfig that only describe the task.
DESCRIPTIVE = {"official_rows", "chance", "majority", "average", "notes", "higher_is_better"}


@dataclass(frozen=True)
class Prepared:
    """A run that can start: `config` is resolved, `canonical` decides the result, `run_id` is its digest."""

    config: RunConfig
    canonical: dict[str, Any]
    run_id: str
    name: str  # <model>/<task>/<method-slug>/s<seed>
    vocab_size: int
    width: int
    source: str  # of the data


def prepare(config: RunConfig, training_version: int | None = None) -> Prepared:
    """Return the checked and resolved run; raises ConfigError or DataError before any weights are loaded.

    `training_version` is given only for the identity of an older record.
    """
    _check(config)
    config = without_weights(config)

    # Look at the model: its identity, the shape of its table, the longest sequence.
    masked_lm = config.recovery.needs_masked_lm_head
    model_identity, (vocab_size, width), longest = _model(_frozen(config.model), masked_lm)
    _check_lengths(config, longest)

    # Resolve the embedding, and keep the keys that decide it and all that comes before the task.
    chosen, used = method(config.embedding.name), assignment_of(config)
    kind = None if used is None else bench.assignment.kind(used.name)
    embedding = chosen.resolve(config.embedding, vocab_size, width, kind)
    if used is not None:
        bench.assignment.check(used, vocab_size, *chosen.codes(embedding))
    config = replace(config, embedding=embedding)
    parts = _before_the_task(config)
    named = _by_content(parts, config)

    # Bring all that decides the result into one form.
    # A table that is not trained has no rate.
    training = config.training if chosen.trained else replace(config.training, table_factor=1.0)
    source = task_data.resolve_source(config.task, config.data)
    roles = ["train", *config.task.evaluate, *config.task.predict]
    canonical: dict[str, Any] = parts | {
        "model": model_identity,
        "task": {k: v for k, v in asdict(config.task).items() if k not in DESCRIPTIVE}
        | {"splits": {role: config.task.splits.get(role) for role in roles}},
        "training": _training(training, training_version or VERSIONS[training.engine]),
        "data": {"source": source, "sha256": task_data.data_identity(config.task, config.data, roles)},
        "seed": config.seed,
    }
    words = [slug(canonical["embedding"], canonical["assignment"])]
    if named and config.sampling != SamplingConfig():
        canonical["sampling"] = asdict(config.sampling)
    if isinstance(config.pretraining, MaskedLmPretrainingConfig):
        words.append(f"pretrained{config.pretraining.seed}")
    if config.body != "fp32":
        canonical["body"] = config.body
        words.append(f"{config.body}-body")
    name = f"{config.model.name}/{config.task.name}/{'-'.join(words)}/s{config.seed}"
    resolved = _with_its_seed(replace(config, training=training), canonical)
    return Prepared(resolved, canonical, run_id(canonical), name, vocab_size, width, source)


def _check_lengths(config: RunConfig, longest: int | None) -> None:
    """Raise ConfigError for sequences longer than the model's positions, where it has a limit."""
    lengths = {"training.max_length": config.training.max_length}
    if isinstance(config.pretraining, MaskedLmPretrainingConfig):
        lengths["pretraining.length"] = config.pretraining.length
    for key, length in lengths.items():
        if longest is not None and length > longest:
            raise ConfigError(
                f"{key} ({length}) is more than the {longest} positions of the model '{config.model.name}': "
                f"use {key}={longest} or less."
            )


def _before_the_task(config: RunConfig) -> dict[str, Any]:
    """Return the keys that decide embedding, assignment (None without codes), recovery and, if there is one, pretraining."""
    chosen, used = method(config.embedding.name), assignment_of(config)
    parts: dict[str, Any] = {"embedding": chosen.identity(config.embedding), "assignment": None}
    if chosen.needs_counts(config.embedding):
        parts["embedding"]["corpus"] = config.assignment.corpus
    if used is not None:
        parts["assignment"] = bench.assignment.identity(used)
        if isinstance(used, ClusteredConfig) and used.model is not None:
            parts["assignment"]["model"] = location.identity(compose_config([f"model={used.model}"]).model)
    parts["recovery"] = asdict(config.recovery)
    if isinstance(config.recovery, TrainedRecoveryConfig):
        parts["recovery"]["frozen_steps"] = 0  # a former key: records hold its default
    if isinstance(config.pretraining, MaskedLmPretrainingConfig):
        parts["pretraining"] = asdict(config.pretraining) | {"version": pretraining.VERSION}
    return parts


def _by_content(parts: dict[str, Any], config: RunConfig) -> bool:
    """Put the identity of its content in the place of each corpus; return whether one is another text than the task's."""
    named = False
    for group, part in parts.items():
        if part and "corpus" in part:
            key = "assignment.corpus" if group == "embedding" else f"{group}.corpus"
            part["corpus"] = corpora.identity(part["corpus"], config, key)
            named |= part["corpus"] != "task"
    return named


def _training(config: TrainingConfig, version: int) -> dict[str, Any]:
    """Return the canonical recipe. What the first records lack is left out at the value that it had then."""
    unused = NOT_IDENTITY | (TEACHING if config.teacher == "none" else set())
    if config.table_factor == 1:
        unused |= {"table_factor"}
    # Engines fuse and pad differently, so that dropout and roundings differ.
    if config.engine == "auto" or version == 1:
        unused |= {"engine"}
    recipe = {key: value for key, value in asdict(config).items() if key not in unused}
    return recipe | ({"version": version} if version > 1 else {})


def with_seed(run: Prepared, seed: int) -> Prepared:
    """Return the run with another seed; raises ConfigError for a seed that the random generators refuse."""
    config = _with_its_seed(replace(run.config, seed=seed), run.canonical)
    check_numbers(config)
    canonical = run.canonical | {"seed": seed}
    name = f"{run.name.rpartition('/')[0]}/s{seed}"
    return replace(run, config=config, canonical=canonical, run_id=run_id(canonical), name=name)


def _with_its_seed(config: RunConfig, canonical: dict[str, Any]) -> RunConfig:
    """Return the configuration with the run's seed for an assignment and a recovery whose canonical seed is null."""
    following = {
        group: replace(getattr(config, group), seed=config.seed)
        for group in ("assignment", "recovery")
        if (canonical[group] or {}).get("seed", 0) is None
    }
    return replace(config, **following)


def run_id(canonical: dict[str, Any]) -> str:
    """Return the first 12 hex digits of the SHA-256 of a canonical configuration."""
    return digest(canonical)


def slug(embedding: dict[str, Any], assignment: dict[str, Any] | None) -> str:
    """Return a short folder name of the method, for people: it need not be unique, as ids are."""
    keys = fields(CHOICES["embedding"][embedding["name"]])
    always = [key.name for key in keys if key.name in embedding and not key.metadata.get("option")]
    options = [key.name for key in keys if key.name in embedding and key.metadata.get("option")]
    if assignment is None or method(embedding["name"]).fixed_assignment:
        words = [embedding["name"], *(f"{key}{embedding[key]}" for key in always if key != "name")]
    else:
        words = [
            *(embedding["name"], embedding["compose"], f"f{embedding['subspaces']}"),
            *(f"q{embedding['rows']}", assignment["name"], embedding["init"]),
        ]
    return "-".join([*words, *(f"{key}{embedding[key]}" for key in options)]).replace("_", "-")


def _frozen(model: ModelConfig) -> str:
    return json.dumps(asdict(model), sort_keys=True)


@cache  # a plan reads the same few models thousands of times
def _model(text: str, masked_lm: bool) -> tuple[dict[str, Any], tuple[int, int], int | None]:
    """Return the model's identity, its table's shape (V, d) and the longest sequence; raises ConfigError as its checks do."""
    model = ModelConfig(**json.loads(text))
    if masked_lm and model.source != "hub":  # the node that plans may lack a hub's files
        pretrained.check_masked_lm_head(model)
    if model.source == "local":
        pretrained.check_classifier(model)
    return location.identity(model), pretrained.shape(model), pretrained.positions(model)


def without_weights(config: RunConfig) -> RunConfig:
    """Return the configuration with what follows from a model without weights; all others as they are.

    Its tables are drawn, as there is nothing to fit them to. With a pretraining, the corpus "task" of an assignment is the
    pretraining's, and the pretraining's seed stands for a null: one pretrained model serves every task and seed. Raises
    ConfigError for what needs weights, for a pretraining of a model that has some, and for one without text.
    """
    model, pretrained_by, assignment = config.model, config.pretraining, config.assignment
    if not model.architecture:
        if isinstance(pretrained_by, MaskedLmPretrainingConfig):
            raise ConfigError(
                f"pretraining={pretrained_by.name} starts from random weights, but model={model.name} has its own: use a model "
                "with an architecture alone, such as model=bert-small-6x384, or recovery=masked_lm."
            )
        return config

    # Refuse what a finished dense model would give.
    if isinstance(config.recovery, TrainedRecoveryConfig) or config.training.teacher != "none":
        key = "training.teacher" if config.training.teacher != "none" else "recovery"
        raise ConfigError(
            f"{key} needs a finished dense model, and model={model.name} has no weights: leave it out."
        )
    used = assignment_of(config)
    if used is not None and bench.assignment.vectors_of(used) and getattr(used, "model", None) is None:
        raise ConfigError(
            f"assignment={used.name} clusters a finished model's vectors, and model={model.name} has no weights: name one with "
            "the same vocabulary, as in assignment.model=all-minilm-l6-v2."
        )

    # Draw the tables.
    if not method(config.embedding.name).trained:
        raise ConfigError(
            f"embedding={config.embedding.name} is never trained, and model={model.name} has no weights to store in it: use another."
        )
    if isinstance(config.embedding, TablesConfig):
        config = replace(config, embedding=replace(config.embedding, init="random"))
    if not isinstance(pretrained_by, MaskedLmPretrainingConfig):
        return config

    # Let nothing depend on the run's task or seed.
    if pretrained_by.corpus is None:
        raise ConfigError(
            "pretraining.corpus is not set: name text files, folders of them or splits of tasks, joined by '+'."
        )
    if assignment.corpus == "task":
        assignment = replace(assignment, corpus=pretrained_by.corpus)
    if isinstance(assignment, SeededConfig) and assignment.seed is None:
        assignment = replace(assignment, seed=pretrained_by.seed)
    return replace(config, assignment=assignment)


def _check_trimmed(config: RunConfig) -> None:
    """Raise ConfigError for a recovery or a pretraining that needs tokens which the embedding removes."""
    if config.recovery.needs_masked_lm_head:
        raise ConfigError(
            f"recovery={config.recovery.name} predicts all tokens of the pretrained model, and embedding={config.embedding.name} removes "
            "some: use recovery=distil."
        )
    if isinstance(config.pretraining, MaskedLmPretrainingConfig):
        raise ConfigError(
            f"embedding={config.embedding.name} removes tokens, and pretraining={config.pretraining.name} reads text that has them: use "
            "another embedding, or the tokenizer of a smaller vocabulary."
        )


def _check(config: RunConfig) -> None:
    """Raise ConfigError for a bad name, an unknown choice, or a task that cannot be scored."""
    for key, name in (("model.name", config.model.name), ("task.name", config.task.name)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(
                f"{key} ({name}) may hold letters, digits, '.', '_' and '-' only: it becomes a folder's name."
            )
    for key, value, allowed in (
        ("training.dtype", config.training.dtype, DTYPES),
        ("training.engine", config.training.engine, tuple(VERSIONS)),
        ("training.teacher", config.training.teacher, TEACHERS),
        ("body", config.body, FORMS),
        ("device", config.device, ("auto", "cpu", "cuda")),
    ):
        if value not in allowed:
            raise ConfigError(unknown(key, value, allowed))
    if method(config.embedding.name).trims_tokenizer:
        _check_trimmed(config)
    task = config.task
    if not task.evaluate:
        raise ConfigError(
            "task.evaluate ([]) names no role: name one to score, as in task.evaluate=[validation]."
        )
    for role in ("train", *task.evaluate, *task.predict):
        if role not in task.splits:
            raise ConfigError(
                f"task.splits ({', '.join(task.splits) or 'empty'}) has no '{role}', which the run "
                f"{'trains on' if role == 'train' else 'scores or predicts'}: name its split, as in +task.splits.{role}=<split>."
            )
    check_metrics(task)
