"""Real data where they are available, and small generated data."""

import os
from pathlib import Path

import pytest

from bench.settings.schema import DataConfig, TaskConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def real() -> DataConfig:
    folder = Path(os.environ.get("BENCH_DATA_ROOT", ROOT.parent / "shared" / "data"))
    if not (folder / "glue").is_dir():
        pytest.skip("no real GLUE data: set BENCH_DATA_ROOT to its folder")
    return DataConfig(root=str(folder))


@pytest.fixture(scope="session")
def pair_task() -> TaskConfig:
    """Return a task with two texts and two classes."""
    return TaskConfig(
        name="pairs",
        suite="glue",
        columns=["a", "b"],
        labels=["no", "yes"],
        metrics=["accuracy"],
        splits={"train": "train", "validation": "validation"},
        official_rows={"train": 4},
    )
