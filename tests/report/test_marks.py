"""What is not official, synthetic, without meaning or collapsed is named as such wherever it is shown."""

import re
from pathlib import Path

import pandas as pd
import pytest

from bench.report import write_report
from bench.settings.schema import ReportConfig, RunConfig
from tests.report.factory import index, record, results


def test_subset_and_limit_never_share_the_official_name(tmp_path: Path) -> None:
    subset = {"task.splits": {"train": "train_subset", "validation": "validation"}}
    write_report(
        [record(task="qnli", changes=subset), record(task="mrpc", limit=1000), record(task="mrpc", seed=1)],
        [],
        tmp_path,
    )
    text = index(tmp_path)
    assert "qnli<br>accuracy (%) on validation<br>not official: train_subset (10,474 of 104,743 rows)" in text
    assert "mrpc<br>accuracy (%) on validation<br>not official: train (1,000 of 3,668 rows) |" in text
    assert "mrpc<br>accuracy (%) on validation |" in text  # the official one, in a column of its own
    assert "No average over tasks: a task was run on several selections of its data." in text
    for line in (tmp_path / "figures" / "score-bytes--minilm--glue.csv").read_text().splitlines():
        assert "qnli" not in line or "train_subset (10,474 of 104,743 rows)" in line


def test_split_under_another_name_is_marked_though_no_row_is_missing(tmp_path: Path) -> None:
    odd = record(changes={"task.splits": {"train": "train", "validation": "train_subset"}})
    assert odd["task"]
    odd["task"]["splits"]["validation"] = {"split": "train[90%:]", "rows": 367, "official_rows": 367}
    write_report([odd], [], tmp_path)
    assert "not official: evaluated on train\\[90%:\\] (367 of 367 rows)" in index(tmp_path)


def test_failed_run_of_a_limited_task_stays_in_its_column(tmp_path: Path) -> None:
    write_report([record(limit=1000), record("pq8", limit=1000, status="oom")], [], tmp_path)
    coverage = pd.read_csv(tmp_path / "tables" / "completeness.csv")
    assert set(coverage.task) == {"mrpc [not official: train (1,000 of 3,668 rows)]"}
    assert set(coverage.suite) == {"glue"}
    assert set(coverage.configuration) == {"dense", "pq f=8 Q=64"}


def test_limit_above_the_rows_there_are_is_no_limit(tmp_path: Path) -> None:
    write_report([record(limit=5000)], [], tmp_path)
    assert "not official" not in index(tmp_path).replace("## What is not official", "")


def test_synthetic_data_is_marked(tmp_path: Path) -> None:
    write_report([record(task="entailment")], [], tmp_path)
    assert "entailment<br>accuracy (%) on validation<br>not official: synthetic" in index(tmp_path)


def test_scores_of_random_weights_are_never_shown(tmp_path: Path) -> None:
    paths = write_report([record(value=0.7531, changes={"model.weights": "random"})], [], tmp_path)
    assert not [path for path in paths if path.suffix in (".png", ".svg")]
    for path in paths:
        assert "0.7531" not in path.read_text() and "75.3" not in path.read_text()
    assert "| random weights |" in index(tmp_path)


def test_scores_of_rounded_weights_are_named_so(tmp_path: Path) -> None:
    write_report([record(value=0.7531, changes={"model.weights": "4-bit"})], [], tmp_path)
    assert "75.3" in index(tmp_path) and "minilm (all-minilm-l6-v2): 4-bit weights" in index(tmp_path)
    assert "(4-bit weights)" in (tmp_path / "brief.html").read_text()


def test_collapsed_runs_are_counted(tmp_path: Path) -> None:
    runs = [record(seed=0), record(seed=1)]
    assert runs[0]["training"]
    runs[0]["training"]["collapsed"] = True
    write_report(runs, [], tmp_path)
    assert "| 2 | 80.0† |" in index(tmp_path)
    write_report([*runs, record(task="rte", seed=0), record(task="rte", seed=1)], [], tmp_path)
    assert "| 2 | 80.0† | 80.0 | 80.0† |" in index(tmp_path), "a mean is marked for a run of any of its tasks"
    assert results(tmp_path).collapsed.to_dict() == {
        ("dense", "mrpc"): 1,
        ("dense", "rte"): 0,
        ("dense", "mean of mrpc, rte"): 1,
    }


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_task_that_the_encoder_was_trained_on_is_named_in_table_and_brief_and_no_other(
    language: str, tmp_path: Path
) -> None:
    runs = [record(method, task) for method in ("dense", "pq8") for task in ("qnli", "mrpc")]
    write_report(runs, [], tmp_path, config=RunConfig(report=ReportConfig(language=language)))
    table = (tmp_path / "tables" / "results--minilm--glue.md").read_text(encoding="utf-8")
    brief = (tmp_path / "brief.html").read_text(encoding="utf-8")
    for shown in (table, brief):
        assert "SQuAD 2.0" in shown
        assert "MultiNLI" not in shown and "Quora" not in shown, "tasks of other sections"


def test_a_model_with_a_former_name_is_shown_with_its_present_one(tmp_path: Path) -> None:
    write_report([record(), record("pq8"), record(model="other")], [], tmp_path)
    assert "### minilm (all-minilm-l6-v2) on glue" in index(tmp_path)
    assert "### other on glue" in index(tmp_path)
    assert "minilm (all-minilm-l6-v2)" in (tmp_path / "brief.html").read_text(encoding="utf-8")
    assert set(pd.read_csv(tmp_path / "tables" / "results.csv").model) == {"minilm", "other"}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_runs_of_one_model_that_versions_of_the_training_share_say_so(language: str, tmp_path: Path) -> None:
    new, failed = {"training.version": 5}, {"training.version": 7}
    runs = [record(), record("pq8"), record(changes=new), record("pq8", changes=new)]
    runs += [
        record("pq16", status="oom", changes=failed),
        record(task="rte"),
        record(model="other", changes=failed),
    ]
    ask = ReportConfig(language=language, model="minilm")
    write_report(runs, [], tmp_path, config=RunConfig(report=ask))
    (line,) = [line for line in index(tmp_path).splitlines() if "trained by versions" in line]
    assert line.startswith("- minilm (all-minilm-l6-v2) on mrpc: trained by versions 1, 5 of the code; a run")
    brief = (tmp_path / "brief.html").read_text(encoding="utf-8")
    assert {"en": "trained by versions 1, 5 of the code", "ja": "学習コードの版 1、5 の結果"}[
        language
    ] in brief


def test_today_in_the_brief_is_the_newest_training_of_plain_dense(tmp_path: Path) -> None:
    new = {"training.version": 5}
    values = {"dense": 0.701, "pq8": 0.69}
    runs = [record(method, value=value, changes=new) for method, value in values.items()]
    runs += [record(method, value=value + 0.1) for method, value in values.items()]
    runs += [record(value=0.999, changes=new | {"training.teacher": "dense"})]
    write_report(runs, [], tmp_path)
    (row,) = re.findall(
        r"<tr[^>]*>\s*<th[^>]*>Mean score.*?</tr>", (tmp_path / "brief.html").read_text(), re.S
    )
    first = re.sub(r"<[^>]+>|\s+", " ", row).split("100", 1)[1].split()[0]
    assert first == "70.1"
