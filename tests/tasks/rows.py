"""Small generated parquet files."""

from pathlib import Path
from typing import Any

import datasets

from bench.settings.schema import TaskConfig


def write_split(
    root: Path, task: TaskConfig, split: str, columns: dict[str, list[Any]], names: list[str] | None = None
) -> Path:
    """Return the parquet file of a split, with class names in its metadata where `names` are given."""
    path = root / task.suite / (task.hub_config or task.name) / f"{split}.parquet"
    dataset = datasets.Dataset.from_dict(columns)
    if names:
        dataset = dataset.cast_column(task.label_column, datasets.ClassLabel(names=names))
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_parquet(path)
    return path
