"""Cost in use: the interval of a ratio, the files, the records and the report that it goes to, settings that make no sense."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from bench import store
from bench.cli.main import main
from bench.probes.latency import latency_of
from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.sweep.plan import make


def test_a_ratio_is_the_median_over_rounds_with_an_interval_by_order_statistics():
    rng = np.random.default_rng(0)
    dense = rng.uniform(1, 5, 41)  # rounds differ much more than the embeddings do
    ratios = rng.normal(0.9, 0.01, 41)
    line = latency_of(8, 64, dense * ratios, dense)
    assert line["ratio_to_dense"] == pytest.approx(np.median(ratios))
    place = int(binom.ppf(0.025, 41, 0.5))
    assert line["ratio_low"] == pytest.approx(np.sort(ratios)[place - 1]) and line[
        "ratio_high"
    ] == pytest.approx(np.sort(ratios)[-place])
    assert line["rows_per_second"] == pytest.approx(8 * 41 / (dense * ratios).sum()) and line["rounds"] == 41
    assert (
        line["p50_ms"] == pytest.approx(1000 * np.median(dense * ratios)) and line["p95_ms"] > line["p50_ms"]
    )
    assert latency_of(8, 64, dense, None)["ratio_to_dense"] is None
    six = latency_of(1, 16, np.arange(1.0, 7.0), np.ones(6))
    assert (six["ratio_low"], six["ratio_high"]) == (1, 6), "of six rounds the interval is all of them"


def test_the_command_writes_its_files_the_matching_records_and_the_report(tiny, tmp_path, capsys):
    sweep = [*(o for o in tiny if not o.startswith("task=")), "sweep=smoke"]
    plan = make(sweep)
    compressed = next(run for run in plan.runs if run.config.embedding.name == "subspace")
    execute(compressed)
    execute(
        prepare(replace(compressed.config, body="int8"))
    )  # its file is another one, so that it takes no part
    path = plan.path(compressed)
    older = json.loads(path.read_text())
    del older["cost"]["profiles"]
    path.write_text(json.dumps(older))
    assert store.read(path)["cost"]["profiles"] is None, "a record from before there were profiles loads"
    small = ["profile.batch_sizes=[1,2]", "profile.lengths=[8]", "profile.rounds=6", "profile.starts=1"]
    assert main(["latency", *sweep, *small, "device=cpu"]) == 0
    assert "`make report` shows it" in capsys.readouterr().out and json.loads(path.read_text()) == older
    [measured] = (tmp_path / "results/latency").glob("tiny--cpu--*.json")
    report = json.loads(measured.read_text())
    dense, other = (row["profile"] for row in report["rows"])
    assert report["rows"][0]["config"]["embedding"]["name"] == "dense"
    saved = report["rows"][0]["embedding_bytes"] - report["rows"][1]["embedding_bytes"]
    assert dense["file_bytes"] - other["file_bytes"] == pytest.approx(saved, rel=0.01)
    assert [(cell["batch"], cell["tokens"], cell["rounds"]) for cell in other["latency"]] == [
        (1, 8, 6),
        (2, 8, 6),
    ]
    assert all(cell["ratio_low"] <= cell["ratio_to_dense"] <= cell["ratio_high"] for cell in other["latency"])
    for one in (dense, other):
        assert (
            one["cold_start_seconds"] > one["load_seconds"] > 0
            and one["peak_bytes"] >= one["resident_bytes"] > one["before_bytes"]
        )
    [with_profile] = store.with_profiles([store.read(path)], tmp_path / "results")
    assert with_profile["cost"]["profiles"] == {"cpu": other}
    assert str(tmp_path) not in measured.read_text()
    assert main(["report", f"results_dir={tmp_path}/results"]) == 0
    page = (tmp_path / "results/INDEX.md").read_text()
    (line,) = [
        line for line in page.partition("Cost in use")[2].splitlines() if line.startswith("| sequential")
    ]
    assert (
        f"{other['latency'][0]['p50_ms']:.2f}" in line
        and f"{other['cold_start_seconds']:.2f}" in line
        and f"{other['file_bytes']:,}" in line
    )

    # A broken file is named.
    measured.write_text('{"rows": [{}]}')
    capsys.readouterr()
    assert main(["report", f"results_dir={tmp_path}/results"]) != 0
    assert f"{measured} cannot be read (KeyError" in capsys.readouterr().err


def test_the_codes_of_every_seed_get_the_profiles_of_all_devices(tiny, tmp_path):
    runs = [
        prepare(compose_config([*tiny, "assignment=random", f"assignment.seed={codes}", f"seed={seed}"]))
        for codes, seed in (("null", 0), ("null", 1), (7, 0))
    ]
    for run in runs[:2]:
        execute(run)
    records, _ = store.read_all(tmp_path / "results")
    records[0]["cost"]["profiles"] = {"phone": {"dtype": "int8"}}
    (tmp_path / "results/latency").mkdir()
    for number, (device, dtype, date) in enumerate(
        (("cpu", "fp32", "02"), ("cuda", "bf16", "02"), ("cpu", "old", "01"))
    ):
        rows = [{"config": runs[2].canonical, "profile": {"dtype": dtype}}]
        report = {"device": device, "created_at": f"2026-12-{date}", "rows": rows}
        (tmp_path / f"results/latency/tiny--{number}.json").write_text(json.dumps(report))
    first, second = store.with_profiles(records, tmp_path / "results")
    measured = {"cpu": {"dtype": "fp32"}, "cuda": {"dtype": "bf16"}}
    assert first["cost"]["profiles"] == measured | {"phone": {"dtype": "int8"}}
    assert second["cost"]["profiles"] == measured


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("profile.lengths=[600]", "profile.lengths (600) exceeds the 512 positions"),
        ("profile.rounds=5", "profile.rounds (5) must be 6"),
        ("profile.batch_sizes=[]", "profile.batch_sizes ([])"),
        ("profile.batch_sizes=[0]", "profile.batch_sizes ([0])"),
        ("profile.starts=0", "profile.starts (0)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, words, tiny, capsys):
    assert main(["latency", *(o for o in tiny if not o.startswith("task=")), "sweep=smoke", change]) == 2
    assert words in capsys.readouterr().err
