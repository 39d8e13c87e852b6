"""The whole report on records made here: numbers, marks, gaps, nasty names, determinism."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench import store
from bench.cli.main import main
from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.report import write_report
from bench.settings.schema import ReportConfig, RunConfig
from bench.store import Record
from tests.report.factory import METHODS, index, record, results

SCORES = {
    ("dense", "mrpc"): [0.81, 0.83, 0.82],
    ("dense", "rte"): [0.58, 0.60, 0.59],
    ("pq8", "mrpc"): [0.75, 0.78, 0.76],
    ("pq8", "rte"): [0.52, 0.55, 0.51],
    ("sequential", "mrpc"): [0.66, 0.69],
}


def golden() -> list[Record]:
    return [record(m, t, seed, v) for (m, t), values in SCORES.items() for seed, v in enumerate(values)]


def test_means_differences_and_average(tmp_path: Path) -> None:
    write_report(golden(), [], tmp_path)
    table = results(tmp_path)
    dense, pq = (100 * np.array(SCORES[m, "mrpc"]) for m in ("dense", "pq8"))
    row = table.loc[("pq f=8 Q=64", "mrpc")]
    assert row["mean"] == pytest.approx(pq.mean())
    assert row["sd"] == pytest.approx(pq.std(ddof=1))
    assert row["difference_to_dense"] == pytest.approx((pq - dense).mean())
    assert row["difference_sd"] == pytest.approx((pq - dense).std(ddof=1))
    paired = table.loc[("sequential f=3 Q=32", "mrpc")]  # only two of dense's three seeds
    assert (paired["paired_seeds"], paired["difference_to_dense"]) == (2, pytest.approx(67.5 - 82.0))
    average = table.loc[("pq f=8 Q=64", "mean of mrpc, rte")]
    by_seed = np.mean([SCORES["pq8", "mrpc"], SCORES["pq8", "rte"]], axis=0) * 100
    assert (average["mean"], average["sd"]) == (
        pytest.approx(by_seed.mean()),
        pytest.approx(by_seed.std(ddof=1)),
    )
    assert table.loc[("sequential f=3 Q=32", "mean of mrpc, rte")]["no_score"] == "not every task"
    text = index(tmp_path)
    low, high = stats.t.interval(0.95, 2, loc=(pq - dense).mean(), scale=stats.sem(pq - dense))
    assert (row["difference_ci95_low"], row["difference_ci95_high"]) == pytest.approx((low, high))
    assert row["p_noninferiority"] == pytest.approx(
        stats.t.cdf(-1, 2, loc=(pq - dense).mean(), scale=stats.sem(pq - dense))
    )
    assert row["percent_of_dense"] == pytest.approx(100 * pq.mean() / dense.mean())
    assert row["percent_ci95_low"] < row["percent_of_dense"] < row["percent_ci95_high"]
    assert row["difference_ci95_is"] == "Student's t over 3 seeds"
    assert average["ci95_is"] == "Welch's t over 2 tasks and 3 seeds"
    half = stats.t.ppf(0.975, 2) * stats.sem(pq)
    assert f"| 76.3 ± {half:.1f}\\* |" in text, "the interval of its difference does not hold 0"
    assert re.search(r"\| 82\.0 ± \d\.\d \|", text), "dense is compared with nothing"
    average_half = (average["difference_ci95_high"] - average["difference_ci95_low"]) / 2
    assert f"| −{-average['difference_to_dense']:.1f} ± {average_half:.1f} |" in text


def test_rows_go_from_dense_to_the_smallest(tmp_path: Path) -> None:
    write_report([record(method) for method in reversed(METHODS)], [], tmp_path)
    table = results(tmp_path)
    assert table.index[0][0] == "dense"
    assert list(table["size.embedding_bytes"]) == sorted(table["size.embedding_bytes"], reverse=True)
    assert "| 46,881,792 (0.00 %) | 32 | 46,881,792 (0.00 %) | 11,720,448 + 0 |" in index(tmp_path)
    memory = 4 * 24_576 + 2 * 8 * 30_522  # fp32 tables, codes of two bytes
    saved = 100 * (1 - memory / 46_881_792)
    assert f"| 281,436 (99.40 %) | 0.192 | {memory:,} ({saved:.2f} %) | 24,576 + 1,465,056 |" in index(
        tmp_path
    )


def test_parameters_of_older_records_follow_the_rule_of_today(tmp_path: Path) -> None:
    int4 = record("dense", value=0.79, changes={"embedding": {"name": "quantised", "version": 1, "bits": 4}})
    assert int4["size"]
    int4["size"] |= {
        "embedding_bytes": 6_592_752,
        "byte_saving": 0.859375,
    }  # its 11,720,448 integers are "parameters"
    write_report([record(), int4], [], tmp_path)
    row = results(tmp_path).loc[("quantised int4", "mrpc")]
    assert (row["size.embedding_params"], row["size.param_saving"]) == (0, 1)
    assert row["size.code_bits"] == 8 * 6_592_752 and row["size.memory_bytes"] == 6_592_752
    assert row["size.bits_per_entry"] == 4.5


def test_long_table_has_every_metric_of_every_run(tmp_path: Path) -> None:
    write_report(golden(), [], tmp_path)
    runs = pd.read_csv(tmp_path / "tables" / "runs.csv")
    assert len(runs) == len(golden())
    one = runs[(runs.configuration == "dense") & (runs.task == "rte") & (runs.seed == 1)].iloc[0]
    assert (one["metrics.validation.accuracy"], one["metrics.validation.f1"]) == (0.60, 0.30)


def test_one_seed_is_named(tmp_path: Path) -> None:
    write_report([record(), record("pq8", value=0.7)], [], tmp_path)
    low, high = (100 * end for end in stats.binomtest(800, 1000).proportion_ci(method="wilson"))
    assert re.search(rf"\| 1 \| 80\.0 ± {(high - low) / 2:.1f} \|", index(tmp_path))
    table = results(tmp_path)
    assert table.loc[("dense", "mrpc"), "ci95_is"] == "Wilson over 1,000 rows, 1 seed"
    assert table.loc[("pq f=8 Q=64", "mrpc"), "difference_ci95_is"] == "Newcombe over 1,000 rows, 1 seed"


def test_the_mean_of_one_seed_has_an_interval_where_every_task_has_one(tmp_path: Path) -> None:
    runs = [
        record(method, task, seed, value)
        for method, task, seed, value in (
            ("dense", "mrpc", 0, 0.8),
            ("dense", "rte", 0, 0.6),
            ("dense", "rte", 1, 0.9),
            ("pq8", "mrpc", 0, 0.7),
            ("pq8", "rte", 0, 0.5),
        )
    ]
    write_report(runs, [], tmp_path / "shares")
    line = results(tmp_path / "shares").loc[("pq f=8 Q=64", "mean of mrpc, rte")]
    assert (line["mean"], line["difference_to_dense"], line["seeds"]) == (
        pytest.approx(60),
        pytest.approx(-10),
        "0",
    )
    assert (
        line["ci95_is"]
        == line["difference_ci95_is"]
        == "MOVER over 2 tasks: sampling of the evaluation rows, one seed"
    )
    ends = [stats.binomtest(right, 1000).proportion_ci(method="wilson") for right in (700, 500)]
    assert line["ci95_low"] == pytest.approx(60 - 50 * np.hypot(0.7 - ends[0].low, 0.5 - ends[1].low))
    assert (
        line["difference_ci95_low"] < -10 < line["difference_ci95_high"] < -7
        and line["p_noninferiority"] > 0.99
    )
    assert "has no interval" not in index(tmp_path / "shares")
    write_report(
        [*runs, record(task="cola", value=0.5), record("pq8", "cola", value=0.4)],
        [],
        tmp_path / "correlation",
    )
    line = results(tmp_path / "correlation").loc[("pq f=8 Q=64", "mean of cola, mrpc, rte")]
    assert pd.isna(line["ci95_is"]) and pd.isna(line["ci95_low"]) and pd.isna(line["p_noninferiority"])
    assert "The mean of one seed has no interval, because these tasks have none: cola (matthews)." in index(
        tmp_path / "correlation"
    )


def test_coverage_names_seeds_failures_and_unreadable_records(tmp_path: Path) -> None:
    runs = [record(seed=seed) for seed in range(3)]
    runs += [
        record("pq8", seed=0),
        record("pq8", seed=1, status="oom", message="CUDA out of memory\nsecond line"),
    ]
    runs += [record(task="rte"), record("random", task="rte", seed=0, status="interrupted")]
    write_report(runs, [(tmp_path / "runs" / "half.json", "cut in half")], tmp_path)
    lines = pd.read_csv(tmp_path / "tables" / "completeness.csv", dtype=str, keep_default_na=False)
    table = lines.set_index(["configuration", "task"])
    assert table.loc[("dense", "mrpc"), "ok"] == "0 1 2"
    assert tuple(table.loc[("pq f=8 Q=64", "mrpc"), ["ok", "oom", "missing"]]) == ("0", "1", "2")
    assert table.loc[("random f=3 Q=32", "mrpc"), "missing"] == "0 1 2"
    assert table.loc[("random f=3 Q=32", "rte"), "interrupted"] == "0"
    text = index(tmp_path)
    assert "CUDA out of memory |" in text and "second line" not in text
    assert "- runs/half.json: cut in half" in text
    assert text.index(
        "Runs: 5 finished, 2 did not; seeds that only other configurations have: 1."
    ) < text.index("Records that cannot be read: 1.")
    assert text.index("## Best for their size") < text.index("## Scores") < text.index("## Completeness")
    seeds = (tmp_path / "tables" / "completeness.md").read_text(encoding="utf-8")
    assert seeds.index("## Not complete") < seeds.index("| pq f=8 Q=64 | 0 |") < seeds.index("## All")


def test_only_failed_records_give_a_page_without_figures(tmp_path: Path) -> None:
    paths = write_report([record(status="failed"), record("pq8", status="diverged")], [], tmp_path)
    assert not [path for path in paths if "figures" in path.parts]
    assert "1 failed" in index(tmp_path) and "1 diverged" in index(tmp_path)


def test_no_records_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=rf"{re.escape(str(tmp_path / 'runs'))}.*cut in half.*make sweep"):
        write_report([], [(tmp_path / "runs" / "a.json", "cut in half")], tmp_path)


@pytest.mark.parametrize("part", ["task", "schema", "headline"])
def test_mixed_versions_are_refused_naming_both(tmp_path: Path, part: str) -> None:
    old, new = record(), record("pq8")
    assert new["task"] and new["headline"]
    if part == "task":
        new["task"]["version"] = 2
    elif part == "schema":
        new["schema_version"] = 2
    else:
        new["headline"]["metric"] = "f1"
    with pytest.raises(ConfigError, match=part) as caught:
        write_report([old, new], [], tmp_path)
    assert old["run_id"] in str(caught.value) and new["run_id"] in str(caught.value)


def test_labels_name_what_differs(tmp_path: Path) -> None:
    changed = [
        {"training.learning_rate": 1e-3},
        {"training.table_factor": 10.0},
        {"embedding.compose": "sum", "embedding.sub_dim": 384},
        {"embedding.sub_dim": 64},
        {"embedding.init": "random"},
        {"recovery": {"name": "distil"}},
        {},
    ]
    write_report([record("pq8", changes=change) for change in changed], [], tmp_path)
    assert set(results(tmp_path).reset_index().configuration) == {
        "pq f=8 Q=64 (learning_rate=0.001, table_factor=1)",
        "pq f=8 Q=64 (learning_rate=5e-05, table_factor=10)",
        "pq f=8 Q=64 (learning_rate=5e-05, table_factor=1)",
        "pq f=8 Q=64 sum",
        "pq f=8 Q=64 s=64",
        "pq f=8 Q=64 random init",
        "pq f=8 Q=64 + distil",
    }


def test_labels_name_the_steps_of_recoveries_where_these_differ_in_the_section(tmp_path: Path) -> None:
    def recovered(method: str, steps: int, model: str = "minilm") -> Record:
        changes = {"recovery": {"name": "distil", "steps": steps}}
        return record(method, model=model, changes=changes)

    same = [recovered("pq8", 10, "other"), recovered("pq16", 10, "other")]
    write_report([record("pq8"), recovered("pq8", 10), recovered("pq16", 20), *same], [], tmp_path)
    assert set(results(tmp_path).reset_index().configuration) == {
        "pq f=8 Q=64",
        "pq f=8 Q=64 + distil (steps=10)",
        "pq f=16 Q=60 + distil (steps=20)",
        "pq f=8 Q=64 + distil",
        "pq f=16 Q=60 + distil",
    }


def test_the_same_text_for_all_is_named_once_and_by_the_start_of_its_digest(tmp_path: Path) -> None:
    def read(assignment: str, recovery: str | None) -> Record:
        changes = {"assignment.corpus": assignment, "recovery": {"name": "distil"}}
        return record("pq8", changes=changes | ({"recovery.corpus": recovery} if recovery else {}))

    one, other = "1f30b2c5" * 8, "d983ddee" * 8
    for texts, said in (
        ([(one, one), (other, other)], {"corpus=1f30b2c5", "corpus=d983ddee"}),
        ([(one, one), (one, None)], {"corpus=1f30b2c5", "corpus=None"}),
        (
            [(one, other), (other, one)],
            {
                "assignment.corpus=1f30b2c5, recovery.corpus=d983ddee",
                "assignment.corpus=d983ddee, recovery.corpus=1f30b2c5",
            },
        ),
    ):
        write_report([record(), *(read(*pair) for pair in texts)], [], tmp_path)
        labels = {label for label, _ in results(tmp_path).index if "distil" in label}
        assert labels == {f"pq f=8 Q=64 + distil ({words})" for words in said}


def test_names_tell_recipes_apart_within_a_suite_only(tmp_path: Path) -> None:
    other = {"training.epochs": 9.0}
    write_report(
        [
            record("pq8", "mrpc"),
            record("pq8", "rte"),
            record("pq8", "rte", changes=other),
            record("random", "mrpc"),
            record("random", "entailment", changes=other),
        ],
        [],
        tmp_path,
    )
    assert {name for name, task in results(tmp_path).index if " of " not in task} == {
        "pq f=8 Q=64 (epochs=3)",
        "pq f=8 Q=64 (epochs=9)",
        "random f=3 Q=32",
    }


def test_same_run_made_twice_counts_once(tmp_path: Path) -> None:
    old, new = record(value=0.5), record(value=0.9, changes={"data.source": "hub"})
    new["created_at"] = "2026-02-01T00:00:00Z"
    write_report([new, old], [], tmp_path)
    assert results(tmp_path).loc[("dense", "mrpc"), "mean"] == pytest.approx(90)
    assert "1 older run(s)" in index(tmp_path)


def test_nasty_names_neither_break_tables_nor_leave_the_folder(tmp_path: Path) -> None:
    name = "../../a|b `c` <img src=x onerror=alert(1)>\n# $x$ &"
    runs = [
        record(model=name),
        record("contextual", model=name),
        record("pq8", model=name, status="failed", message="<script>|\nno"),
    ]
    paths = write_report(runs, [(Path("x|<b>.json"), "bad `reason`")], tmp_path / "out")
    assert all(path.parent.parent == tmp_path / "out" or path.parent == tmp_path / "out" for path in paths)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) and path.exists() for path in paths)
    text = index(tmp_path / "out")
    assert "<img" not in text and "<script" not in text and "<b>" not in text and "\n# $" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    images = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert len({*images}) == 2 and all((tmp_path / "out" / image).exists() for image in images)


def test_figures_plot_the_table_and_mark_the_front(tmp_path: Path) -> None:
    paths = write_report(golden(), [], tmp_path)
    names = {path.name for path in paths if path.parent.name == "figures"}
    stems = ["score-bytes", "score-memory", "tasks-bytes"]
    assert names == {
        f"{stem}--minilm--glue.{kind}" for stem in stems for kind in ("png", "svg", "pdf", "csv")
    }
    table = results(tmp_path)
    shown = {
        "score": ["mean", "ci95_low", "ci95_high"],
        "tasks": ["difference_to_dense", "difference_ci95_low"],
    }
    for name, keys in shown.items():
        lines = pd.read_csv(tmp_path / "figures" / f"{name}-bytes--minilm--glue.csv")
        rows = table.loc[list(zip(lines.configuration, lines.column, strict=True))]
        for key in [*keys, "size.embedding_bytes"]:
            assert list(lines[key]) == pytest.approx(list(rows[key]), nan_ok=True), (name, key)
        assert len(lines) == (2 if name == "score" else 3), "on the mean, or on either task"
        assert name == "tasks" or lines.on_front.all()


def test_what_an_earlier_report_drew_and_this_one_cannot_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_report([record(), record("sequential"), record("contextual")], [], tmp_path)
    own = tmp_path / "figures" / "drawn by hand.png"
    own.write_bytes(b"")
    assert (tmp_path / "figures" / "assignments--minilm--glue.png").exists()
    paths = write_report([record(), record("sequential")], [], tmp_path)
    assert {*paths, own} == {path for path in tmp_path.rglob("*") if path.is_file()}


def test_dominated_point_is_not_on_the_front(tmp_path: Path) -> None:
    write_report([record(value=0.8), record("pq48", value=0.6), record("pq8", value=0.7)], [], tmp_path)
    points = pd.read_csv(tmp_path / "figures" / "score-bytes--minilm--glue.csv").set_index("configuration")
    assert dict(points.on_front) == {"dense": True, "pq f=48 Q=60": False, "pq f=8 Q=64": True}


def test_same_records_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    runs = [record(m, t, s, 0.5 + s / 10) for m in METHODS for t in ("mrpc", "cola") for s in range(2)]
    first = write_report(runs, [], tmp_path / "a")
    second = write_report(runs[::-1], [], tmp_path / "b")
    assert [p.relative_to(tmp_path / "a") for p in first] == [p.relative_to(tmp_path / "b") for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_provenance_follows_the_record_ids(tmp_path: Path) -> None:
    write_report([record(seed=0)], [], tmp_path / "a")
    write_report([record(seed=1)], [], tmp_path / "b")
    lines = [
        re.search(
            r"1 records, SHA-256 of their ids (\w{64}); commits: 0123abc; devices: CPU", index(tmp_path / x)
        )
        for x in "ab"
    ]
    assert lines[0] and lines[1] and lines[0][1] != lines[1][1]


def test_a_demo_leaves_the_figures_the_tables_and_the_decision_about_others_as_they_are(
    tmp_path: Path,
) -> None:
    reference = [record(method, seed=seed) for method in ("dense", "pq8", "pq48") for seed in range(2)]
    for made in reference:
        assert made["metrics"]
        made["metrics"] |= {f"validation/{language}": {"accuracy": 0.7} for language in ("en", "de")}
    demo = [record("pq8", "entailment"), record("random", "entailment", status="failed")]
    for made in demo:
        made["created_at"] = "2026-02-02T00:00:00Z"
        made["provenance"] |= {"commit": "fedcba9", "dirty": True, "device": "cuda B"}

    contents: list[dict[str, list[str]]] = []
    for records in (reference, [*demo, *reference]):
        write_report(records, [], tmp_path)
        files = (path for path in tmp_path.rglob("*.*") if path.is_file())
        contents.append(
            {str(path.relative_to(tmp_path)): path.read_text("latin-1").splitlines() for path in files}
        )

    before, after = contents
    assert any("mrpc" in name for name in before), "a task's languages are a section, too"
    new = after.keys() - before.keys()
    assert new and all(name.partition(".")[0].endswith("--lexical") for name in new)
    lists = ["completeness.csv", "completeness.md", "failures.csv", "results.csv", "runs.csv"]
    changed = {name for name, lines in before.items() if after[name] != lines}
    assert changed == {"INDEX.md", "brief.html", *(f"tables/{name}" for name in lists)}
    lost = {name: [line for line in before[name] if line not in after[name]] for name in changed}
    assert {name: lines for name, lines in lost.items() if lines} == {
        # what the page is made from, since it shows every record, and what is not official
        "INDEX.md": [
            line
            for line in before["INDEX.md"]
            if line.startswith(("The question and an answer ", "6 records, ", "- Nothing: "))
        ]
    }
    (gained,) = (line for line in after["brief.html"] if line not in before["brief.html"])
    assert "Also in the records, but not on this page: minilm (all-minilm-l6-v2) (lexical)" in gained


def test_folder_that_cannot_be_written_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(EnvironmentBroken, match="results_dir"):
        write_report([record()], [], tmp_path / "results")


def test_reporting_needs_no_torch() -> None:
    code = "import sys, bench.report; print('torch' in sys.modules, 'transformers' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


def store_with(tmp_path: Path) -> tuple[Path, Path]:
    """Return a results folder with two good records, and the file of one of them."""
    paths = []
    for seed in range(2):
        made = record(seed=seed)
        made["name"] = f"minilm/mrpc/dense/s{seed}"
        paths.append(store.write(made, tmp_path))
    return tmp_path, paths[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: r["headline"].update(value=0.99),
            r"headline.value \(0.99\) is not metrics.validation.accuracy \(0.8\)",
        ),
        (lambda r: r["config"]["training"].update(epochs=9.0), "configuration was changed by hand"),
        (lambda r: r.update(size=None), "has no headline, metrics, size or task"),
        (lambda r: r["config"].pop("embedding"), "configuration was changed by hand"),
        (lambda r: r["metrics"]["validation"].update(f1="high"), "is not a number"),
        (lambda r: r["task"].pop("splits"), "a part is missing or has another form"),
        (None, "Unterminated string|Expecting"),
    ],
)
def test_a_record_cut_or_changed_by_hand_is_named_and_left_out(
    tmp_path: Path, change: Callable[[Any], object] | None, said: str
) -> None:
    folder, path = store_with(tmp_path)
    made = json.loads(path.read_text())
    if change:
        change(made)
    path.write_text(json.dumps(made) if change else path.read_text()[:500])
    assert main(["report", f"results_dir={folder}"]) == 1
    assert re.search(f"{path.name}.*({said})", index(folder))
    assert list(pd.read_csv(folder / "tables" / "runs.csv").seed) == [0]


def test_a_threshold_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report.tolerated_loss \(-1\)"):
        write_report([record()], [], tmp_path, config=RunConfig(report=ReportConfig(tolerated_loss=-1)))


def test_the_threshold_of_the_command_reaches_the_tables(tmp_path: Path) -> None:
    folder, _ = store_with(tmp_path)
    made = record("pq8", value=0.79)
    made["name"] = "minilm/mrpc/pq/s0"
    store.write(made, folder)
    assert main(["report", f"results_dir={folder}", "report.tolerated_loss=3"]) == 0
    row = results(folder).loc[("pq f=8 Q=64", "mrpc")]
    wanted = stats.norm.cdf((-0.03 + 0.01) / np.sqrt((0.8 * 0.2 + 0.79 * 0.21) / 1000))
    assert (row["margin"], row["p_noninferiority"]) == (3, pytest.approx(wanted))
