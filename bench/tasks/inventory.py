"""Which data are there: every task's splits, with their rows beside those of the official release."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.errors import DataError, MissingData
from bench.settings.schema import DataConfig, TaskConfig
from bench.tasks import data as task_data
from bench.tasks import parquet, sources
from bench.tasks.specs import read_task


def inventory(data: DataConfig, names: Sequence[str]) -> pd.DataFrame:
    """Return a line for each split: task, source, split, languages, rows (of each language), official_rows, note.

    Subsets, which the release does not have, are listed where their files exist. An error in a split becomes its note.
    Raises DataError only if the root is not a folder.
    """
    if data.root is not None:
        sources.checked_root(Path(data.root))
    lines = []
    for task in map(read_task, names):
        source = task_data.resolve_source(task, data)
        for split in _splits(task, source, data):
            counts = _rows(task, data, split, source)
            rows = sorted({count for count in counts.values() if isinstance(count, int)})
            errors = [reason for reason in counts.values() if isinstance(reason, str)]
            official = task.official_rows.get(split)
            lines.append(
                {
                    "task": task.name,
                    "source": source,
                    "split": split,
                    "languages": f"{len(counts) - len(errors)} of {len(counts)}" if task.languages else "",
                    "rows": " or ".join(f"{count:,}" for count in rows),
                    "official_rows": "" if official is None else f"{official:,}",
                    "note": errors[0] if errors else _note(rows, official, source),
                }
            )
    return pd.DataFrame(lines)


def _note(rows: list[int], official: int | None, source: str) -> str:
    if source == "generated":
        return "synthetic"
    if official is None:
        return "not an official split"
    return "" if rows == [official] else f"{rows[0] - official:+,} rows"


def _splits(task: TaskConfig, source: str, data: DataConfig) -> list[str]:
    """Return the official splits, then others that the task names or the folder contains."""
    splits = [*task.official_rows, *(split for split in task.splits.values() if split.isidentifier())]
    if source == "parquet" and data.root:
        splits += parquet.splits(task, Path(data.root), task.train_language)
    return list(dict.fromkeys(splits))


def _rows(task: TaskConfig, data: DataConfig, split: str, source: str) -> dict[str | None, int | str]:
    """Return language -> number of rows, or the reason why it cannot be read."""
    probe = replace(task, splits={"test": split}, evaluate=["test"])
    counts: dict[str | None, int | str] = {}
    for language in task_data.languages_of(probe, "test"):
        try:
            request, _ = task_data.locate_split(probe, data, "test", language)
            counts[language] = sources.read(request).table.num_rows
        except MissingData:
            counts[language] = "missing"
        except DataError as error:
            counts[language] = str(error) if source != "hub" else f"not fetched: make fetch TASKS={task.name}"
    return counts
