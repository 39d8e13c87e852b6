"""The gate: limits that hold, that are broken and that cannot be checked; two stores compared."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import store
from bench.cli.main import main
from bench.errors import BenchError, ConfigError
from bench.report import gate
from bench.report.compare import compare, summary, write_comparison
from bench.report.names import embedding_id
from bench.report.runs import to_frame
from bench.report.scores import score_table
from bench.settings.compose import compose_config
from bench.store import Record, read_coverage
from tests.report.factory import record, xnli
from tests.report.test_brief import golden, noted
from tests.support.commands import call_bench

CHOSEN = ["gate.configuration='pq f=16 Q=60'", "gate.embedding_bytes=null"]


def checked(
    records: list[Record], *limits: str, folder: Path = Path("nowhere"), chosen: list[str] = CHOSEN
) -> dict[str, gate.Check]:
    frame = to_frame(records)
    found = gate.checks(
        frame, score_table(frame, 1.0), read_coverage(folder), compose_config([*chosen, *limits])
    )
    return {check.name: check for check in found}


@pytest.mark.parametrize(
    ("limit", "name", "measured", "held"),
    [
        ("+gate.loss.mrpc=0.54", "loss of mrpc", "0.53 points, paired seeds: 3", True),
        ("+gate.loss.mrpc=0.53", "loss of mrpc", "0.53 points, paired seeds: 3", False),  # 0.5333 in full
        ("+gate.loss.qnli=5", "loss of qnli", "no records", False),
        ("gate.embedding_bytes=458424", "embedding_bytes", "458,424", True),
        ("gate.embedding_bytes=458423", "embedding_bytes", "458,424", False),
        ("gate.total_bytes=40000000", "total_bytes", "43,978,424", False),
        (
            "+gate.latency_ms.batch1=12",
            "latency_ms.batch1",
            "12.00 ms (noted by the runs on CPU, without `bench latency`)",
            True,
        ),
        (
            "+gate.latency_ms.batch1=11.9",
            "latency_ms.batch1",
            "12.00 ms (noted by the runs on CPU, without `bench latency`)",
            False,
        ),
        ("+gate.latency_ms.batch32=99", "latency_ms.batch32", "not measured: run `bench latency`", False),
        ("+gate.latency_ms.batch8=99", "latency_ms.batch8", "not measured: run `bench latency`", False),
        (
            "+gate.coverage.notes.known=0.5",
            "coverage.notes.known",
            "not measured with this configuration",
            False,
        ),
    ],
)
def test_each_limit_names_itself_its_value_and_what_was_measured(
    limit: str, name: str, measured: str, held: bool
) -> None:
    found = checked(noted(batch1=12.0), limit)
    assert found["configuration"].held
    assert (found[name].measured, found[name].held) == (measured, held)


def profiled(slower: dict[str, float]) -> list[Record]:
    """Return the golden records, which noted 12 ms for one row on "CPU", with a profile of each device: so many ms a token."""
    runs = noted(batch1=12.0)
    for one in runs:
        profiles: Any = {
            device: {
                "peak_bytes": None,
                "latency": [
                    {
                        "batch": batch,
                        "tokens": tokens,
                        "rounds": 50,
                        "p50_ms": factor * batch * tokens,
                        "ratio_to_dense": 0.98,
                        "ratio_low": 0.95,
                        "ratio_high": 1.02,
                    }
                    for batch in (1, 8)
                    for tokens in (16, 128)
                ],
            }
            for device, factor in slower.items()
        }
        assert one["cost"] is not None
        one["cost"]["profiles"] = profiles
    return runs


@pytest.mark.parametrize(
    ("limits", "measured"),
    [
        # The slower device, the longest rows.
        (
            [],
            "12.80 ms (`bench latency` on cpu, 1 × 128 tokens, 50 rounds; ratio to dense 0.980 [0.950, 1.020])",
        ),
        (
            ["gate.tokens=16"],
            "1.60 ms (`bench latency` on cpu, 1 × 16 tokens, 50 rounds; ratio to dense 0.980 [0.950, 1.020])",
        ),
        (
            ["gate.device=nvidia-a"],
            "1.28 ms (`bench latency` on nvidia-a, 1 × 128 tokens, 50 rounds; ratio to dense 0.980 [0.950, 1.020])",
        ),
        (["gate.tokens=64"], "not measured: run `bench latency`"),
        (["gate.device=nvidia-b"], "not measured: run `bench latency`"),
    ],
)
def test_latency_is_that_of_the_measurement_where_there_is_one(limits: list[str], measured: str) -> None:
    found = checked(
        profiled({"cpu": 0.1, "nvidia-a": 0.01}), "+gate.latency_ms={batch1: 12.5, batch8: 1}", *limits
    )
    assert found["latency_ms.batch1"].measured == measured
    assert found["latency_ms.batch1"].held == (measured.startswith("1."))
    assert not found["latency_ms.batch8"].held


def test_what_runs_noted_counts_on_the_device_that_was_asked_for() -> None:
    runs = profiled({"nvidia-a": 0.01})
    one = checked(runs, "+gate.latency_ms.batch1=13", "gate.device=cpu")["latency_ms.batch1"]
    other = checked(runs, "+gate.latency_ms.batch32=13", "gate.device=nvidia-a")["latency_ms.batch32"]
    assert (
        one.measured.startswith("12.00 ms (noted by the runs on CPU")
        and other.measured == "not measured: run `bench latency`"
    )


def test_a_loss_without_a_reference_or_a_finished_run_is_broken() -> None:
    found = checked(
        [record("pq16"), record(task="rte"), record("pq16", "rte", status="oom")],
        "+gate.loss={mrpc: 9, rte: 9}",
    )
    assert {name: (check.measured, check.held) for name, check in found.items()} == {
        "configuration": ("pq f=16 Q=60: 1 finished runs", True),
        "loss of mrpc": ("no dense reference", False),
        "loss of rte": ("1 oom", False),
    }


def test_a_configuration_that_is_not_there_breaks_every_limit() -> None:
    found = checked(
        golden(), "+gate.loss.mrpc=99", "gate.total_bytes=999999999", chosen=["gate.configuration=other"]
    )
    assert len(found) == 4 and not any(check.held for check in found.values())


def test_a_configuration_that_is_almost_there_is_suggested() -> None:
    found = checked(golden(), chosen=["gate.configuration='pq f=16 Q=6'"])
    assert found["configuration"].measured == "pq f=16 Q=6: 0 finished runs; did you mean 'pq f=16 Q=60'?"


def test_what_is_recommended_is_not_mixed_with_another_recipe_of_its_name_on_another_suite() -> None:
    others = [record(method, "entailment", changes={"training.epochs": 9.0}) for method in ("dense", "pq8")]
    runs = [
        record(method, task, seed)
        for method in ("dense", "pq8")
        for task in ("mrpc", "rte")
        for seed in range(3)
    ]
    found = checked([*runs, *others], "+gate.loss.mrpc=1", chosen=["gate.embedding_bytes=null"])
    assert found["configuration"].measured == "pq f=8 Q=64: 6 finished runs"


@pytest.mark.parametrize(("others", "decides"), [(2, True), (9, False)])
def test_a_task_that_few_configurations_have_still_decides_unless_hardly_any_has_it(
    others: int, decides: bool
) -> None:
    """The chart's mean is over the other two tasks; a fifth of the configurations must have a task."""
    runs = [record("dense", task, value=0.8) for task in ("mrpc", "rte", "cola")]
    runs += [
        record("pq8", task, value=value) for task, value in (("mrpc", 0.79), ("rte", 0.79), ("cola", 0.4))
    ]
    runs += [
        record("random", task, value=0.5, changes={"embedding.rows": 40 + rows})
        for rows in range(others)
        for task in ("mrpc", "rte")
    ]
    assert (
        checked(runs, "report.tolerated_loss=2", chosen=["gate.embedding_bytes=1000000000"])[
            "configuration"
        ].held
        != decides
    )


def test_a_floor_is_never_recommended() -> None:
    runs = [record("dense", value=0.8), record("pq8", value=0.79, changes={"embedding.name": "hash_only"})]
    assert (
        checked(runs, "report.tolerated_loss=2", chosen=["gate.embedding_bytes=1000000000"])[
            "configuration"
        ].measured
        == "none"
    )


def test_without_a_name_the_recommended_configuration_is_checked() -> None:
    assert checked(golden(), chosen=[])["configuration"].measured == "pq f=48 Q=60: 6 finished runs"
    assert not checked(golden(), chosen=["report.tolerated_loss=0.1"])["configuration"].held


def test_a_task_in_languages_is_recommended_for_by_each_of_them_as_in_the_brief() -> None:
    """The mean over the 15 languages loses 0.7 points, Urdu 1.06."""
    by_language = checked(xnli(), chosen=["report.tolerated_loss=1"])["configuration"]
    assert not by_language.held
    by_mean = checked(xnli(), chosen=["report.tolerated_loss=1", "report.tasks=[xnli]"])["configuration"]
    assert by_mean.measured == "pq f=48 Q=60: 3 finished runs"


@pytest.mark.parametrize(
    ("rate", "embedding", "held"), [(0.02, "pq16", True), (0.2, "pq16", False), (0.02, "pq8", False)]
)
def test_coverage_counts_for_the_embedding_it_was_measured_with(
    rate: float, embedding: str, held: bool, tmp_path: Path
) -> None:
    facts = {"unknown_rate": rate, "badly_fitted_rate": 0.1}
    covered = {
        "corpus": "notes",
        "name": "x",
        "embedding_id": embedding_id(record(embedding)["config"]),
        "facts": facts,
    }
    store.write_atomically(tmp_path / "coverage" / "notes.json", json.dumps(covered))
    found = checked(golden(), "+gate.coverage.notes={known: 0.95, well_fitted: 0.9}", folder=tmp_path)
    assert found["coverage.notes.known"].held == held and found["coverage.notes.well_fitted"].held == (
        embedding == "pq16"
    )


def test_the_worst_text_of_a_name_decides_and_is_named(tmp_path: Path) -> None:
    for text, rate in (("notes.txt-01", 0.02), ("notes.md-02", 0.5)):
        covered = {
            "corpus": "notes",
            "name": "x",
            "embedding_id": embedding_id(record("pq16")["config"]),
            "facts": {"unknown_rate": rate, "badly_fitted_rate": 0.1},
            "text": text,
        }
        store.write_atomically(tmp_path / "coverage" / f"{text}.json", json.dumps(covered))
    found = checked(golden(), "+gate.coverage.notes={known: 0.95}", folder=tmp_path)["coverage.notes.known"]
    assert not found.held and found.measured == "0.5000 on notes.md-02, the worst of 2 texts"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (["gate.embedding_bytes=null"], "gate=default declares no limit"),
        (
            ["+gate.latency_ms.btach1=1"],
            "Unknown limit of gate.latency_ms 'btach1': name a batch by its rows, such as batch1",
        ),
        (["+gate.coverage.notes.knwon=1"], "Did you mean 'known'"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(limits: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked(golden(), *limits, chosen=[])
    assert words in str(error.value)


def test_a_name_of_two_models_asks_which() -> None:
    with pytest.raises(ConfigError, match=r"set gate\.model to bert or minilm"):
        checked([record("pq16"), record("pq16", model="bert")], "gate.total_bytes=1")


def write(records: list[Record], folder: Path) -> Path:
    for one in records:
        store.write(one, folder)
    return folder


def test_the_commands_exit_as_a_pipeline_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = write(noted(batch1=12.0)[:6], tmp_path / "now")
    before = write([record(value=0.9)], tmp_path / "before")
    gated = ["gate", f"results_dir={now}", "gate.configuration=dense"]
    assert main(gated) == 1
    shown = capsys.readouterr().out
    assert (
        "BROKEN  embedding_bytes: limit 5,000,000 at most; measured 46,881,792" in shown
        and "1 of 2 limits broken" in shown
    )
    assert main([*gated, "gate.embedding_bytes=50000000"]) == 0
    assert main(["gate", f"results_dir={tmp_path / 'none'}"]) == 1
    compared = call_bench("report", f"results_dir={now}", "--against", str(before))
    assert compared.returncode == 0 and "worse 1 | better 0" in compared.stdout, compared.stderr
    assert (now / "tables" / "compare.csv").exists() and (now / "brief.html").exists()
    assert main(["report", f"results_dir={now}", "--against"]) == 2


def test_two_stores_are_paired_by_configuration_task_and_seed() -> None:
    before = [record("pq8", seed=seed, value=value) for seed, value in enumerate([0.70, 0.72, 0.74])] + [
        record(),
        record("pq16"),
    ]
    now = [record("pq8", seed=seed, value=value) for seed, value in ((1, 0.70), (2, 0.71), (3, 0.99))] + [
        record(),
        record("pq48"),
    ]
    now += [record("pq8", seed=0, status="failed")]
    lines = compare(before, now).set_index("configuration")
    line = lines.loc["pq f=8 Q=64"]
    assert (line.verdict, line.paired_seeds, line.seeds_before, line.seeds_now) == (
        "worse",
        2,
        "0 1 2",
        "1 2 3",
    )
    assert line.difference == pytest.approx(-2.5) and (line.before, line.now) == (
        pytest.approx(73),
        pytest.approx(70.5),
    )
    assert dict(lines.verdict) == {
        "pq f=8 Q=64": "worse",
        "dense": "same",
        "pq f=16 Q=60": "only before",
        "pq f=48 Q=60": "only now",
    }
    shown = summary(lines.reset_index())
    assert shown[-1] == "worse 1 | better 0 | same 1 | no common seed 0 | only before 1 | only now 1"
    assert (
        shown[0].startswith("worse")
        and "-2.50 ±" in shown[0]
        and "seeds before: 0 1 2, now: 1 2 3, clear: no" in shown[0]
    )


@pytest.mark.parametrize(
    ("values", "verdict", "clear"),
    [
        ([0.81, 0.82, 0.83], "same", "no"),
        ([0.85, 0.86, 0.88], "better", "yes"),
        ([0.9], "better", "one seed"),
    ],
)
def test_a_change_is_clear_where_its_interval_does_not_hold_zero(
    values: list[float], verdict: str, clear: str
) -> None:
    before = [record(seed=seed, value=value) for seed, value in enumerate([0.81, 0.82, 0.83])]
    line = compare(before, [record(seed=seed, value=value) for seed, value in enumerate(values)]).iloc[0]
    assert (line.verdict, line.clear) == (verdict, clear)


def test_stores_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    other: Any = record("pq8")
    other["task"]["version"] = 2
    with pytest.raises(ConfigError, match="mixes task.version"):
        compare([record()], [other])
    with pytest.raises(BenchError, match="No records in the folder of --against"):
        write_comparison([], [record()], tmp_path)


def test_the_comparison_escapes_names(tmp_path: Path) -> None:
    write_comparison([record(model="<script>|", value=0.5)], [record(model="<script>|")], tmp_path)
    text = (tmp_path / "tables" / "compare.md").read_text(encoding="utf-8")
    assert "<script>" not in text and "&lt;script&gt;\\|" in text
    assert pd.read_csv(tmp_path / "tables" / "compare.csv").verdict.item() == "better"
