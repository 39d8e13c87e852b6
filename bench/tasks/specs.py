"""A task's definition, read from its file in conf/task/."""

import copy
from functools import cache
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.errors import DataError, unknown
from bench.settings.compose import explain
from bench.settings.misfits import misfit
from bench.settings.schema import TaskConfig

TASK_FILES = Path(__file__).resolve().parents[2] / "conf" / "task"


def task_names() -> list[str]:
    """Return the names of all tasks, one file each."""
    return sorted(path.stem for path in TASK_FILES.glob("*.yaml"))


def read_task(name: str) -> TaskConfig:
    """Return the task of conf/task/<name>.yaml, without overrides.

    Raises DataError for an unknown name, and ConfigError for a file that is no YAML or has a key or a value that no task has.
    """
    return copy.deepcopy(_parsed(TASK_FILES / f"{name}.yaml"))


@cache
def languages_of_tasks() -> list[str]:
    """Return the codes of all languages that a task of conf/task/ has."""
    return sorted({language for name in task_names() for language in read_task(name).languages})


@cache  # a plan reads the same few tasks thousands of times
def _parsed(path: Path) -> TaskConfig:
    if not path.is_file():
        raise DataError(unknown("task", path.stem, task_names()))
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TaskConfig), OmegaConf.load(path))
        return cast(TaskConfig, OmegaConf.to_object(merged))
    except YAMLError as error:
        raise explain(error, ()) from error
    except OmegaConfBaseException as error:
        raise misfit(path, TaskConfig) or DataError(f"conf/task/{path.name}: {error}") from error
