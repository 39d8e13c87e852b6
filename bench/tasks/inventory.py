"""What data is there: every task's splits, rows found against rows in the official release."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.errors import DataError, MissingData
from bench.settings.schema import DataConfig, TaskConfig
from bench.tasks import data as task_data
from bench.tasks import parquet, sources


def inventory(data: DataConfig, names: Sequence[str]) -> pd.DataFrame:
    """Return one line a split: task, source, split, languages (found of all), rows (of each language), official_rows, note.

    Splits that the release does not have (subsets) are listed where they are found. What is wrong with one split
    is its note, and the others are listed all the same. Raises DataError only for a root that is no folder.
    """
    if data.root is not None:
        sources.checked_root(Path(data.root))
    lines = []
    for task in map(task_data.read_task, names):
        source = task_data.resolve_source(task, data)
        for split in _splits(task, source, data):
            found = _rows(task, data, split, source)
            rows = sorted({rows for rows in found.values() if isinstance(rows, int)})
            errors = [reason for reason in found.values() if isinstance(reason, str)]
            official = task.official_rows.get(split)
            lines.append(
                {
                    "task": task.name,
                    "source": source,
                    "split": split,
                    "languages": f"{len(found) - len(errors)} of {len(found)}" if task.languages else "",
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
    """Return the official splits, then others that the task names or the folder holds."""
    own = [split for split in task.splits.values() if split.isidentifier()]
    there = (
        parquet.splits(task, Path(data.root), task.train_language)
        if source == "parquet" and data.root
        else []
    )
    return list(dict.fromkeys([*task.official_rows, *own, *there]))


def _rows(task: TaskConfig, data: DataConfig, split: str, source: str) -> dict[str | None, int | str]:
    """Return language -> number of rows, or the reason why they cannot be read."""
    asked = replace(task, splits={"test": split}, evaluate=["test"])
    found: dict[str | None, int | str] = {}
    for language in task_data.languages_of(asked, "test"):
        try:
            wanted, _ = task_data.locate_split(asked, data, "test", language)
            found[language] = sources.read(wanted).table.num_rows
        except MissingData:
            found[language] = "missing"
        except DataError as error:
            found[language] = str(error) if source != "hub" else f"not fetched: make fetch TASKS={task.name}"
    return found
