"""Metrics computed again from stored predictions, without training: after a metric was added, corrected or renamed."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bench import store
from bench.errors import BenchError
from bench.runs.identity import run_id
from bench.settings.schema import DataConfig, TaskConfig
from bench.store import Record
from bench.tasks import data as task_data
from bench.tasks.scoring import check_scoring, score_split

SAME = (
    "columns",
    "label_column",
    "labels",
    "label_range",
    "hub",
    "revision",
)  # or the stored answers mean something else
RENEWED = ("task_version", "metrics", "headline")  # taken from the task's file as it is now


def rescore(record: Record, data: DataConfig, results_dir: Path) -> bool:
    """Score a trained run's stored answers by the task's file as it is now; return whether the record changed.

    A run whose own scoring failed becomes `ok` by it.
    The metrics are part of a run's identity: where they changed, the record and its predictions move to the new run_id.
    Raises BenchError where predictions or data are missing, or are not those of the run.
    """
    task = _task_now(record)
    check_scoring(task)
    data = replace(data, source=record["config"]["data"]["source"])
    roles = ["train", *task.evaluate, *task.predict]
    if task_data.data_identity(task, data, roles) != record["config"]["data"]["sha256"]:
        raise BenchError(f"data.root ({data.root}) does not hold the rows that {record['name']} was run on.")
    folder = store.predictions_folder(results_dir, record["name"], record["run_id"])
    metrics: dict[str, dict[str, float]] = {}
    for role in task.evaluate:
        split = task.splits[role]
        metrics |= score_split(
            task,
            split,
            [
                (
                    language,
                    store.read_predictions(folder, store.split_name(split, language)),
                    task_data.load_split(task, data, role, language),
                )
                for language in task_data.languages_of(task, role)
            ],
        )
    config = record["config"] | {
        "task": record["config"]["task"] | {key: getattr(task, key) for key in RENEWED}
    }
    if (metrics, config) == (record["metrics"], record["config"]):
        return False
    reported = task.splits[task.evaluate[0]]
    new: dict[str, Any] = record | {
        "run_id": run_id(config),
        "config": config,
        "status": "ok",
        "error": None,
        "metrics": metrics,
        "task": dict(record["task"] or {}) | {"version": task.task_version},
        "headline": {
            "split": reported,
            "metric": task.headline,
            "value": metrics[reported][task.headline],
            "higher_is_better": task.higher_is_better,
        },
    }
    store.write(new, results_dir)  # type: ignore[arg-type]
    if new["run_id"] != record["run_id"]:
        shutil.move(folder, store.predictions_folder(results_dir, record["name"], new["run_id"]))
        store.path_of(results_dir, record["name"], record["run_id"]).unlink()
    return True


def _task_now(record: Record) -> TaskConfig:
    """Return the record's task with the metrics of its file; raises BenchError where the file has become another task."""
    then = record["config"]["task"]
    now = task_data.read_task(record.get("chosen", {}).get("task", then["name"]))
    for key in SAME:
        if then[key] != getattr(now, key):
            raise BenchError(
                f"task.{key} of {now.name} was {then[key]} for {record['name']} and is {getattr(now, key)} now: "
                "the run must be trained again."
            )
    names = {field.name for field in fields(TaskConfig)} - {*RENEWED}
    return replace(now, **{key: value for key, value in then.items() if key in names})
