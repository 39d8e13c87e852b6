"""Intervals over seeds and rows in the report: where all predictions are packed, and only there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from bench import statistics, store
from bench.errors import ConfigError
from bench.report import write_report
from bench.store import Packed, Record
from bench.tasks.metrics import METRICS
from tests.report.factory import TASKS, record, results

LABELS = {
    "mrpc": np.sort(np.arange(400) % 2).astype(np.int8),
    "stsb": np.linspace(0, 5, 300, dtype=np.float32),
}
METHODS = ("dense", "pq8", "pq16")


def answers(task: str, method: str, seed: int) -> np.ndarray:
    """Return predictions in the order of the labels; the methods find the same rows hard."""
    rng = np.random.default_rng([seed, METHODS.index(method)])
    hard = np.random.default_rng(9).random(len(LABELS[task]))
    if task == "stsb":
        return (LABELS[task] + 2 * hard + rng.normal(0, 1 + METHODS.index(method) / 4, 300)).astype(
            np.float32
        )
    wrong = hard + rng.normal(0, 0.1, 400) > 0.8 - 0.02 * METHODS.index(method)
    return np.where(wrong, 1 - LABELS[task], LABELS[task]).astype(np.int8)


def packed_store(folder: Path, left_out: str = "") -> list[Record]:
    """Write the packed predictions of three seeds of each method on each task, but of one method; return the records."""
    records = []
    for task, labels in LABELS.items():
        lines = []
        for method in METHODS:
            for seed in range(3):
                predictions = answers(task, method, seed)
                right = (
                    pearsonr(predictions, labels).statistic
                    if task == "stsb"
                    else np.mean(predictions == labels)
                )
                records.append(record(method, task, seed, float(right)))
                if method != left_out:
                    lines.append(Packed(records[-1]["run_id"], "validation", predictions, labels))
        store.write_packed(store.packed_file(folder, records[-1]["name"]), lines)
    return records


def test_intervals_and_tests_are_over_seeds_and_rows(tmp_path: Path) -> None:
    write_report(packed_store(tmp_path), [], tmp_path)
    table = results(tmp_path)
    over = {
        "mrpc": "Student's t over",
        "stsb": "Student's t over",
        "mean of mrpc, stsb": "Welch's t over 2 tasks and",
    }
    replicates, values = {}, {}
    for task, labels in LABELS.items():
        metric = METRICS[TASKS[task]["metric"]]
        drawn = {
            method: np.array(
                [
                    metric.weighted(answers(task, method, seed), labels, statistics.row_draws(len(labels)))
                    for seed in range(3)
                ]
            )
            for method in METHODS
        }
        replicates[task] = 100 * (drawn["pq8"] - drawn["dense"])
        values[task] = [
            100
            * (
                metric.compute(answers(task, "pq8", seed), labels)
                - metric.compute(answers(task, "dense", seed), labels)
            )
            for seed in range(3)
        ]
    for column, name in over.items():
        row = table.loc[("pq f=8 Q=64", column)]
        tasks = [task for task in LABELS if task in column]
        parts = np.array([values[task] for task in tasks]), np.array([replicates[task] for task in tasks])
        wanted = statistics.summarise(*parts)
        assert (
            row["difference_ci95_is"]
            == f"{name} 3 seeds, bootstrap over rows"
            == row["ci95_is"]
            == row["percent_ci95_is"]
        )
        assert (row["difference_ci95_low"], row["difference_ci95_high"]) == pytest.approx(
            (wanted.low, wanted.high), abs=1e-4
        )
        assert row["p_noninferiority"] == pytest.approx(
            statistics.p_noninferiority(parts[0], 1, parts[1]), abs=1e-4
        )
    on_mrpc = table.xs("mrpc", level="task").dropna(subset=["p_noninferiority"])
    assert len(on_mrpc) == 2
    assert list(on_mrpc.p_holm) == pytest.approx(list(statistics.holm(on_mrpc.p_noninferiority)))


def test_a_comparison_with_runs_that_are_not_packed_is_over_seeds(tmp_path: Path) -> None:
    write_report(packed_store(tmp_path, left_out="pq8"), [], tmp_path)
    table = results(tmp_path)
    assert table.loc[("pq f=8 Q=64", "mrpc")]["difference_ci95_is"] == "Student's t over 3 seeds"
    assert (
        table.loc[("pq f=16 Q=60", "mrpc")]["difference_ci95_is"]
        == "Student's t over 3 seeds, bootstrap over rows"
    )
    dense = table.loc[("dense", "mrpc")]
    assert dense["ci95_is"].endswith("bootstrap over rows") and pd.isna(dense["difference_ci95_is"])


def test_predictions_that_do_not_give_the_record_s_score_are_refused(tmp_path: Path) -> None:
    records = packed_store(tmp_path)
    path = store.packed_file(tmp_path, records[0]["name"])
    lines = store.read_packed(path)
    store.write_packed(path, [lines[0]._replace(predictions=1 - lines[0].predictions), *lines[1:]])
    with pytest.raises(ConfigError, match=r"packed predictions of minilm/mrpc/.* its record says"):
        write_report(records, [], tmp_path)


def test_a_split_in_several_languages_has_its_interval_over_rows_and_its_languages_have_theirs_over_seeds(
    tmp_path: Path,
) -> None:
    labels, records, lines, drawn = LABELS["mrpc"], [], [], {}
    for method in METHODS[:2]:
        for seed in range(3):
            languages = {"en": answers("mrpc", method, seed), "sw": answers("mrpc", method, seed + 3)}
            right = {f"validation/{name}": float(np.mean(part == labels)) for name, part in languages.items()}
            made = record(method, "mrpc", seed, float(np.mean([*right.values()])))
            assert made["metrics"] is not None
            made["metrics"] |= {split: {"accuracy": value} for split, value in right.items()}
            records.append(made)
            lines += [
                Packed(made["run_id"], f"validation/{name}", part, labels) for name, part in languages.items()
            ]
            draws = [
                METRICS["accuracy"].weighted(part, labels, statistics.row_draws(400))
                for part in languages.values()
            ]
            drawn[method, seed] = 100 * np.mean(draws, axis=0)
    store.write_packed(store.packed_file(tmp_path, records[0]["name"]), lines)
    write_report(records, [], tmp_path)
    row = results(tmp_path).loc[("pq f=8 Q=64", "mrpc")]
    scores = np.array([one["headline"]["value"] for one in records if one["headline"]]) * 100
    lost = np.array([drawn["pq8", seed] - drawn["dense", seed] for seed in range(3)])[None]
    wanted = statistics.summarise(scores[3:] - scores[:3], lost)
    assert (row["difference_ci95_low"], row["difference_ci95_high"]) == pytest.approx(
        (wanted.low, wanted.high), abs=1e-4
    )
    parts = pd.read_csv(tmp_path / "tables" / "breakdown.csv").set_index(["configuration", "task"])
    assert parts.loc[("pq f=8 Q=64", "all")]["difference_ci95_low"] == pytest.approx(wanted.low, abs=1e-4)
    assert parts.loc[("pq f=8 Q=64", "sw")]["difference_ci95_is"] == "Student's t over 3 seeds"
