"""Models and data downloaded once, so that every later command works without the hub, as on a cluster's nodes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ConfigError, EnvironmentBroken, unknown
from bench.models import pretrained
from bench.settings.compose import choices, compose_config
from bench.settings.schema import DataConfig
from bench.tasks import data as task_data
from bench.tasks import sources
from bench.tasks.specs import read_task

# What a model is loaded from; a repository's other frameworks and pickled weights stay there.
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class Fetched:
    """One model or data set: where it is and how large."""

    name: str
    bytes: int
    folder: Path


def fetch(models: Sequence[str], tasks: Sequence[str]) -> Iterable[Fetched]:
    """Yield each model and each task's data as soon as it is on disk, at the pinned revision.

    Raises ConfigError for an unknown name before anything is downloaded, EnvironmentBroken or DataError where the hub cannot be
    reached. What was fetched before is not downloaded again.
    """
    for key, names in (("model", models), ("task", tasks)):
        for name in names:
            if name not in choices(key):
                raise ConfigError(unknown(key, name, choices(key)))
    for name in models:
        yield _model(name)
    asked = {(owner, language): None for task in tasks for owner, language in _parts(task)}
    for owner, language in asked:
        yield _data(owner, language)


def _model(name: str) -> Fetched:
    config = compose_config([f"model={name}"]).model
    where, _ = pretrained.locate(config)
    if config.source == "hub":
        from huggingface_hub import snapshot_download

        try:
            where = snapshot_download(
                where, revision=config.revision, allow_patterns=MODEL_FILES, ignore_patterns=["*/*"]
            )
        except Exception as error:  # huggingface_hub and httpx have no base class in common
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EnvironmentBroken(
                f"model={name}: {config.path} cannot be fetched ({reason}): try again where the hub can be "
                "reached, or set model.source=local and model.path to a folder with the model."
            ) from error
    folder = Path(where)
    if not any(folder.glob("*.safetensors")):
        raise EnvironmentBroken(
            f"model={name}: {config.path} at revision {config.revision} has no safetensors file, and pickled "
            "weights are not read: set model.revision to a commit that has one."
        )
    return Fetched(name, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), folder)


def _parts(name: str) -> Iterable[tuple[str, str | None]]:
    """Yield (task, language) for all that a task reads: its own data, and that of tasks whose splits it borrows."""
    task = read_task(name)
    for role in dict.fromkeys(["train", *task.splits]):
        for language in task_data.languages_of(task, role):
            wanted, _ = task_data.locate_split(task, DataConfig(), role, language)
            yield wanted.task.name, wanted.language


def _data(name: str, language: str | None) -> Fetched:
    task = read_task(name)
    shown = name if language is None else f"{name}/{language}"
    if task_data.resolve_source(task, DataConfig()) == "generated":
        return Fetched(f"{shown} (made by the package)", 0, Path(sources.__file__).parent)
    splits = sources.hub_splits(name, task.hub, task.revision, language or task.hub_config)
    files = [Path(file["filename"]) for split in splits.values() for file in split.cache_files]
    return Fetched(shown, sum(path.stat().st_size for path in files), files[0].parent)
