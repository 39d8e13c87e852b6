"""Metrics computed again from stored predictions, after a metric was added, corrected or renamed."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import store
from bench.errors import BenchError
from bench.runs.identity import run_id
from bench.settings.schema import DataConfig, TaskConfig
from bench.store import Record
from bench.tasks import data as task_data
from bench.tasks.data import Rows
from bench.tasks.scoring import check_scoring, headline_of, score_split
from bench.tasks.specs import read_task

# Keys that must not change: otherwise the stored predictions mean something else.
SAME = ("columns", "label_column", "labels", "label_range", "hub", "revision")
RENEWED = ("task_version", "metrics", "headline")  # taken from the task's file as it is now


def rescore(record: Record, data: DataConfig, results_dir: Path) -> bool:
    """Score a run's stored predictions with the task's current file; return whether the record changed.

    Where only packed predictions are there, they are unpacked into the run's folder first.

    A run whose scoring failed becomes `ok`. The metrics are part of a run's identity: where they changed, the record and
    its predictions move to the new run_id. Raises BenchError where predictions or data are missing or belong to another
    run.
    """
    task, rows = evaluated_rows(record, data)
    check_scoring(task)
    folder = store.predictions_folder(results_dir, record["name"], record["run_id"])
    if not folder.exists():
        store.unpack(results_dir, record["name"], record["run_id"], labels_of(task, rows))
    metrics: dict[str, dict[str, float]] = {}
    for role, by_language in rows.items():
        split = task.splits[role]
        metrics |= score_split(
            task,
            split,
            [
                (language, store.read_predictions(folder, store.split_name(split, language)), part)
                for language, part in by_language.items()
            ],
        )
    renewed = record["config"]["task"] | {key: getattr(task, key) for key in RENEWED}
    config = record["config"] | {"task": renewed}
    if (metrics, config) == (record["metrics"], record["config"]):
        return False
    new: dict[str, Any] = record | {
        "run_id": run_id(config),
        "config": config,
        "status": "ok",
        "error": None,
        "metrics": metrics,
        "task": dict(record["task"] or {}) | {"version": task.task_version},
        "headline": headline_of(task, metrics),
    }
    moves = new["run_id"] != record["run_id"]
    path = store.path_of(results_dir, record["name"], new["run_id"])
    if moves and _finished(path):
        raise BenchError(
            f"{record['name']} was run again with the metrics of today ({path.name}): delete the older record "
            f"{record['run_id']}."
        )
    store.write(new, results_dir)  # type: ignore[arg-type]
    if moves:
        shutil.move(folder, store.predictions_folder(results_dir, record["name"], new["run_id"]))
        store.path_of(results_dir, record["name"], record["run_id"]).unlink()
    return True


def _finished(path: Path) -> bool:
    """Return whether the path holds the record of a run that finished."""
    try:
        return store.read(path)["status"] == "ok"
    except (OSError, ValueError):
        return False


def evaluated_rows(record: Record, data: DataConfig) -> tuple[TaskConfig, dict[str, dict[str | None, Rows]]]:
    """Return a record's task with its file's current metrics, and role -> language -> rows of what it evaluates.

    Raises BenchError where the data are not those that the run was made on.
    """
    task, data = _task_now(record), replace(data, source=record["config"]["data"]["source"])
    roles = ["train", *task.evaluate, *task.predict]
    if task_data.data_identity(task, data, roles) != record["config"]["data"]["sha256"]:
        raise BenchError(f"data.root ({data.root}) does not hold the rows that {record['name']} was run on.")
    return task, {
        role: {
            language: task_data.load_split(task, data, role, language)
            for language in task_data.languages_of(task, role)
        }
        for role in task.evaluate
    }


def labels_of(task: TaskConfig, rows: dict[str, dict[str | None, Rows]]) -> dict[str, np.ndarray]:
    """Return the name of a split's predictions -> its labels (rows,), from the rows of `evaluated_rows`."""
    return {
        store.split_name(task.splits[role], language): np.asarray(part["label"])
        for role, by_language in rows.items()
        for language, part in by_language.items()
    }


def _task_now(record: Record) -> TaskConfig:
    """Return the record's task with the metrics of its current file; raises BenchError where the task itself changed."""
    then = record["config"]["task"]
    now = read_task(record.get("chosen", {}).get("task", then["name"]))
    for key in SAME:
        if then[key] != getattr(now, key):
            raise BenchError(
                f"task.{key} of {now.name} was {then[key]} for {record['name']} and is {getattr(now, key)} now: "
                "the run must be trained again."
            )
    names = {field.name for field in fields(TaskConfig)} - {*RENEWED}
    return replace(now, **{key: value for key, value in then.items() if key in names})
