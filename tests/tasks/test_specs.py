"""Each task file says what is true of its task."""

import numpy as np
import pytest

from bench.errors import DataError
from bench.settings.compose import compose_config
from bench.settings.schema import DataConfig
from bench.tasks.data import load_split
from bench.tasks.metrics import METRICS
from bench.tasks.scoring import score
from bench.tasks.specs import read_task, task_names

GLUE = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
# Headline metrics as the GLUE and XNLI papers name them.
HEADLINE = {"cola": "matthews", "ax": "matthews", "stsb": "pearson_spearman_mean"}
TASKS = sorted(GLUE | {"ax", "xnli"})


@pytest.mark.parametrize("name", TASKS)
def test_task_file_is_complete(name: str) -> None:
    task = read_task(name)
    assert task.name == name and task.hub and len(str(task.revision)) == 40 and task.task_version >= 1
    assert 1 <= len(task.columns) <= 2 and task.headline == HEADLINE.get(name, "accuracy")
    assert task.headline in task.metrics and set(task.metrics) <= set(METRICS)
    assert {"train", *task.evaluate, *task.predict} <= task.splits.keys()
    assert task.official_rows.keys() == {split for split in task.splits.values() if ":" not in split} | (
        {"train"} if name == "xnli" else set()
    )
    assert (task.labels is None) == (task.label_range is not None) == (name == "stsb")
    uniform = 0.0 if task.headline != "accuracy" else 1 / len(task.labels or [])
    assert task.chance == pytest.approx(uniform, abs=1e-4)
    assert (task.average, bool(task.notes)) == (True, task.notes is not None) or name in {"wnli", "ax"}


def test_files_and_hydra_agree() -> None:
    assert set(TASKS) <= set(task_names())
    for name in TASKS:
        assert compose_config([f"task={name}"]).task == read_task(name)


def test_what_the_suite_leaves_out_and_keeps_apart() -> None:
    assert {name for name in TASKS if not read_task(name).average} == {"wnli", "ax"}
    mnli = read_task("mnli")
    assert (mnli.splits["validation"], mnli.splits["mismatched"]) == (
        "validation_matched",
        "validation_mismatched",
    )
    xnli = read_task("xnli")
    assert " ".join(xnli.languages) == "ar bg de el en es fr hi ru sw th tr ur vi zh"
    assert (xnli.evaluate, xnli.train_language, xnli.splits["train"]) == (["test"], "en", "mnli:train")


def test_unknown_task_says_what_was_meant() -> None:
    with pytest.raises(DataError, match="Did you mean 'mrpc'"):
        read_task("mrcp")


@pytest.mark.parametrize("name", sorted(GLUE - {"qqp"}))
def test_majority_is_that_of_the_real_validation_split(name: str, real: DataConfig) -> None:
    task = read_task(name)
    labels = np.asarray(load_split(task, real, "validation")["label"])
    constant = np.full(len(labels), 2.5 if task.labels is None else np.bincount(labels).argmax())
    assert score(task, constant, labels)[task.headline] == pytest.approx(task.majority, abs=5e-5)
