"""Download models and data once. Every later command then works without the hub, as on a cluster's nodes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from bench.errors import EnvironmentBroken
from bench.models import location
from bench.settings.choices import unknown_choice
from bench.settings.compose import choices, compose_config
from bench.settings.schema import DataConfig
from bench.tasks import data as task_data
from bench.tasks import sources
from bench.tasks.specs import read_task

# The files that a model is loaded from. Pickled weights and those of other frameworks are not downloaded.
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class Fetched:
    """A model or data set on disk, and its size."""

    name: str
    bytes: int
    folder: Path


def fetch(models: Sequence[str], tasks: Sequence[str]) -> Iterable[Fetched]:
    """Yield each model and each task's data as soon as it is on disk, at the pinned revision.

    Files that are on disk are not downloaded again. Raises ConfigError for an unknown name before any download,
    EnvironmentBroken or DataError if the hub cannot be reached.
    """
    for key, names in (("model", models), ("task", tasks)):
        for name in names:
            if name not in choices(key):
                raise unknown_choice(key, name, choices(key))
    for name in models:
        yield _model(name)
    for owner, language in dict.fromkeys(part for task in tasks for part in _parts(task)):
        yield _data(owner, language)


def _model(name: str) -> Fetched:
    config = compose_config([f"model={name}"]).model
    path, _ = location.locate(config)
    if config.source == "hub":
        try:
            # config.json says which class a tokenizer is of.
            tokenizer = ["config.json", *(f"{name}*" for name in location.TOKENIZER)]
            files = tokenizer if config.architecture else MODEL_FILES
            path = snapshot_download(
                path, revision=config.revision, allow_patterns=files, ignore_patterns=["*/*"]
            )
        except Exception as error:  # huggingface_hub and httpx have no base class in common
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EnvironmentBroken(
                f"model={name}: {config.path} cannot be downloaded ({reason}): try again with access to the hub, "
                "or set model.source=local and model.path to a folder with the model."
            ) from error
    folder = Path(path)
    if not (config.architecture or any(folder.glob("*.safetensors"))):
        raise EnvironmentBroken(
            f"model={name}: {config.path} at revision {config.revision} has no safetensors file, and pickled "
            "weights are not read: set model.revision to a commit that has one."
        )
    return Fetched(name, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), folder)


def _parts(name: str) -> Iterable[tuple[str, str | None]]:
    """Yield (task, language) of all data that a task reads, including the splits that it borrows from other tasks."""
    task = read_task(name)
    for role in dict.fromkeys(["train", *task.splits]):
        for language in task_data.languages_of(task, role):
            split, _ = task_data.locate_split(task, DataConfig(), role, language)
            yield split.task.name, split.language


def _data(name: str, language: str | None) -> Fetched:
    task = read_task(name)
    label = name if language is None else f"{name}/{language}"
    if task_data.resolve_source(task, DataConfig()) == "generated":
        return Fetched(f"{label} (made by the package)", 0, Path(sources.__file__).parent)
    splits = sources.hub_splits(name, task.hub, task.revision, language or task.hub_config)
    files = [Path(file["filename"]) for split in splits.values() for file in split.cache_files]
    return Fetched(label, sum(path.stat().st_size for path in files), files[0].parent)
