"""The decision brief: the answer and its numbers, no answer where there is none, nothing that a name could inject."""

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from bench.errors import ConfigError
from bench.report import brief, write_report
from bench.report.breakdown import breakdown_table
from bench.report.runs import to_frame
from bench.report.scores import score_table, sections
from bench.settings.compose import compose_config
from bench.settings.schema import PriceConfig, ReportConfig, RunConfig
from bench.store import Covered, Record
from tests.report.factory import record, xnli

SCORES = {  # three seeds each; pq16 holds 1 point on mrpc only, pq48 on both
    ("dense", "mrpc"): [0.81, 0.83, 0.82],
    ("dense", "rte"): [0.60, 0.60, 0.60],
    ("pq48", "mrpc"): [0.805, 0.826, 0.816],
    ("pq48", "rte"): [0.60, 0.61, 0.60],
    ("pq16", "mrpc"): [0.806, 0.825, 0.813],
    ("pq16", "rte"): [0.57, 0.58, 0.58],
    ("pq8", "mrpc"): [0.75, 0.78, 0.76],
    ("pq8", "rte"): [0.52, 0.55, 0.51],
    ("sequential", "mrpc"): [0.66, 0.69, 0.67],
    ("sequential", "rte"): [0.50, 0.50, 0.50],
}
RISKY = {  # the smaller one varies more
    "dense": [0.80, 0.81, 0.82],
    "pq48": [0.799, 0.8091, 0.8189],
    "pq16": [0.80, 0.79, 0.81],
}
PRICES = PriceConfig(
    name="example",
    example=True,
    currency="USD",
    price_per_gpu_hour=2.0,
    memory_gb=1.0,
    replicas=100,
    requests_per_day=1e6,
    utilisation=0.5,
    hours_per_month=700,
)


RESIDENT = {"dense": 125, "pq48": 82, "pq16": 80, "pq8": 79, "sequential": 78}  # MB


def profile(batch1: float, batch32: float, resident: float, ratio: float | None) -> Any:
    """Return what `bench latency` writes into a record, for rows of 128 tokens."""
    times = ((1, batch1), (32, batch32))
    cells = [{"batch": b, "tokens": 128, "p50_ms": p50, "ratio_to_dense": ratio} for b, p50 in times]
    return {"latency": cells, "resident_bytes": int(1e6 * resident), "peak_bytes": int(2e6 * resident)}


def golden(**latency: float) -> list[Record]:
    """Return the records of SCORES; with `batch1` and `batch32`, measured in use on a GPU with these times, and twice them on a CPU."""
    made = [
        record(method, task, seed, value)
        for (method, task), values in SCORES.items()
        for seed, value in enumerate(values)
    ]
    for one in made:
        method = one["name"].split("/")[2]
        ratio = None if method == "dense" else 1.0
        devices = {"cuda-a": 1.0, "cpu": 2.0} if latency else {}
        profiles = {
            name: profile(
                factor * latency["batch1"], factor * latency["batch32"], factor * RESIDENT[method], ratio
            )
            for name, factor in devices.items()
        }
        one["cost"] = {"peak_memory_bytes": 2 * 10**9, "latency_ms": None, "profiles": profiles or None}
    return made


def noted(**latency: float) -> list[Record]:
    """Return the records of SCORES with times that the runs noted beside their training."""
    made = golden()
    for one in made:
        assert one["cost"]
        one["cost"]["latency_ms"] = latency
    return made


def standard() -> list[Record]:
    """Return records of int8 and int4 rows, which ran on one of the two tasks."""
    rows = {"name": "quantised", "version": 1, "group": 32}
    return [
        record("dense", "mrpc", seed, value, changes={"embedding": rows | {"bits": bits}, "assignment": None})
        for bits, values in ((8, (0.81, 0.82)), (4, (0.80, 0.82)))
        for seed, value in enumerate(values)
    ]


def page(
    records: list[Record],
    problems: Sequence[tuple[str, str]] = (),
    price: PriceConfig = PRICES,
    **report: Any,
) -> str:
    """Return the page for the records."""
    frame = to_frame(records)
    return brief.page(
        frame, score_table(frame, 1.0), problems, [], RunConfig(report=ReportConfig(**report), price=price)
    )


def text(whole: str) -> str:
    """Return what a reader sees, without the data and the script, spaces as spaces."""
    seen = re.sub(r"<(script|style).*?</\1>", " ", whole, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", seen)).replace("\u00a0", " "))


def test_the_smallest_configuration_within_the_limit_is_recommended() -> None:
    seen = text(page(golden()))
    # 4 * 60 * 384 + 30522 * 48 * 6 / 8 of 46,881,792 bytes.
    assert "The model can become 50.5 % smaller: 44.7 MB instead of 90.4 MB." in seen
    assert "It loses 0.43 points at most, on mrpc. The configuration is called pq f=48 Q=60" in seen
    assert "it stores the embedding in 1.19 MB, 97.5 % less." in seen
    assert "if it may lose at most 1.00 points on any of these: mrpc, rte?" in seen


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"tasks": ["mrpc"]}, "The configuration is called pq f=16 Q=60;"),
        ({"tolerated_loss": 8.0}, "The configuration is called pq f=8 Q=64;"),
        (
            {"tolerated_loss": 0.1},
            "Nothing that was measured stays within 0.10 points. The nearest makes the model 50.5 % smaller",
        ),
    ],
)
def test_the_answer_follows_tasks_and_tolerance(asked: dict[str, Any], answer: str) -> None:
    assert answer in text(page(golden(), **asked))


def test_a_collapsed_run_disqualifies() -> None:
    runs = golden()
    for one in runs:
        if one["name"] == "minilm/rte/pq48/s1" and one["training"]:
            one["training"]["collapsed"] = True
    seen = text(page(runs))
    assert (
        "Nothing that was measured stays within 1.00 points without a run that predicts one class only."
        in seen
    )
    assert "one class 1/3" in seen


def test_the_risk_is_the_chance_that_a_limit_is_broken_by_student_t_over_seeds() -> None:
    def odds(tolerance: float) -> float:
        chance = 1.0
        for task in ("mrpc", "rte"):
            losses = 100 * (np.array(SCORES["dense", task]) - SCORES["pq48", task])
            error = losses.std(ddof=1) / math.sqrt(3)
            chance *= float(stats.t.cdf((tolerance - losses.mean().round(2)) / error, 2)) if error else 1.0
        return round(100 * chance)

    likely = text(page(golden()))
    assert f"Chance that every limit holds – {odds(1.0):.0f} %" in likely
    assert (
        f"at least one is broken is {100 - odds(1.0):.0f} %." in likely
        and "We would switch to pq f=48" in likely
    )
    assert "Student's t around its mean, independent of the others" in likely
    on_trial = text(page(golden(), tolerated_loss=0.5))
    assert "We would try it in a pilot, with today's model ready as a fallback: the risk" in on_trial
    assert f"is broken is {100 - odds(0.5):.0f} %." in on_trial
    single = text(page([one for one in golden() if one["config"]["seed"] == 0]))
    assert "so the risk has no number yet" in single and "mrpc, rte: a single seed" in single


def test_where_the_best_is_risky_the_safest_measured_is_named() -> None:
    runs = [record(m, "mrpc", s, v) for m, many in RISKY.items() for s, v in enumerate(many)]
    seen = text(page(runs))
    assert "We would not switch yet." in seen or "We would try it in a pilot" in seen
    assert "The safest measured is pq f=48 Q=60: 50.5 % smaller, risk 1 %." in seen


def test_where_the_best_probably_breaks_a_limit_the_smallest_that_probably_breaks_none_is_named() -> None:
    losses = {"dense": [0, 0, 0], "pq8": [0, 0.9, 1.8], "pq16": [0.3, 0.5, 0.7], "pq48": [0, 0, 0.01]}
    runs = [
        record(method, task, seed, 0.8 - loss / 100)
        for task in ("mrpc", "rte")
        for method, many in losses.items()
        for seed, loss in enumerate(many)
    ]
    error = 0.2 / math.sqrt(3)
    risk = 100 * (1 - stats.t.cdf(0.5 / error, 2) ** 2)
    seen = text(page(runs))
    assert "We would not switch yet." in seen and "called pq f=8 Q=64" in seen
    assert f"We would rather try pq f=16 Q=60 in a pilot: 51.4 % smaller, risk {risk:.0f} %." in seen
    assert "safest" not in seen


def test_the_saving_is_worked_out_from_prices_measured_memory_and_latency() -> None:
    seen = text(page(golden(batch1=12.0, batch32=64.0)))
    instances = [-(-100 // (1000 // memory)) for memory in (125, 82)]
    assert instances == [13, 9]  # more than the 2 that 0.56 hours of work need
    assert "1 GB ÷ memory of the running model on cuda-a 8 12" in seen
    assert f"Instances for 100 replicas {instances[0]} {instances[1]}" in seen
    assert "Hours of work a day: 1,000,000 requests × latency at batch of 32 ÷ 32 0.6 0.6" in seen
    assert "instances × USD 2.00 × 700 h USD 18,200 USD 12,600" in seen
    assert "Difference to today, a month – USD 5,600 (30.8 %) less" in seen
    assert "These prices and loads are examples" in seen
    assert (
        "Memory in use: 82.0 MB, today 125 MB. Cost a month (example prices): USD 12,600, today USD 18,200."
        in seen
    )


def test_size_memory_and_cost_come_first_on_every_device_and_names_second() -> None:
    seen = text(page(golden(batch1=12.0, batch32=64.0)))
    heads = [
        "Whole model, stored 90.4 MB 44.7 MB (−50.5 %)",
        "Memory of the running model, cuda-a 125 MB 82.0 MB",
        "Time for a batch of 1 × 128 tokens, on cuda-a 12.0 ms 12.0 ms",
        "Memory of the running model, CPU 250 MB 164 MB",
        "Time for a batch of 32 × 128 tokens, on CPU 128.0 ms 128.0 ms",
        "Cost a month (example prices) USD 18,200 USD 12,600",
        "Embedding, stored 46.9 MB 1.19 MB (−97.5 %)",
        "Embedding, in memory 46.9 MB 3.02 MB (−93.6 %)",
        "Mean score × 100",
    ]
    places = [seen.index(head) for head in heads]
    assert places == sorted(places) and "make latency" not in seen, "everything is measured"


def test_what_costs_more_is_not_called_a_saving() -> None:
    runs = golden(batch1=12.0, batch32=64.0)
    for one in runs:
        if one["config"]["embedding"]["name"] != "dense":
            for made in one["cost"]["profiles"].values():  # type: ignore[index]
                for cell in made["latency"]:
                    cell["ratio_to_dense"] = (
                        10.0  # 15 instances for the work, where dense needs 13 for its memory
                    )
    seen = text(page(runs, price=replace(PRICES, requests_per_day=32.4e6)))
    assert "USD 2,800 (15.4 %) more" in seen


def test_what_was_not_measured_is_said_with_the_command_that_measures_it() -> None:
    runs = golden()
    runs[0]["provenance"]["command"] = "python -m bench sweep data.root=.../data sweep=reference device=cuda"
    seen = text(page(runs, problems=[("runs/half.json", "cut in half")]))
    assert "Memory of the running model, CPU not measured not measured" in seen
    assert "Where it says “not measured”" in seen and "make latency SWEEP=reference" in seen
    assert "Memory, time and cost in use are not measured yet" in seen and "today not measured" not in seen
    assert "Instances for this work, 50 % busy at most not measured" in seen
    assert "Tasks of glue without a score to compare: ax, cola, mnli, qnli" in seen
    assert "Records that could not be read: 1. The first: runs/half.json: cut in half." in seen


def test_a_measurement_of_its_own_comes_before_what_runs_noted() -> None:
    runs = golden(batch1=12.8, batch32=102.4)
    for one in runs:
        assert one["cost"]
        one["cost"]["latency_ms"] = {"batch1": 99.0, "batch32": 999.0}
        if one["config"]["embedding"]["name"] != "dense":
            # The machine was busy while a compressed embedding and the dense model of the same rounds were measured.
            for cell in one["cost"]["profiles"]["cuda-a"]["latency"]:  # type: ignore[index]
                cell["p50_ms"], cell["ratio_to_dense"] = 3 * cell["p50_ms"], 0.5
    seen = text(page(runs))
    assert "Time for a batch of 1 × 128 tokens, on cuda-a 12.8 ms 6.4 ms" in seen
    assert "Time for a batch of 32 × 128 tokens, on cuda-a 102.4 ms 51.2 ms" in seen
    assert "its median ratio to dense within a round" in seen and "99.0 ms" not in seen
    assert "in use, on any device." not in seen and "latency at batch of 32 ÷ 32 0.9 0.4" in seen


def test_times_that_runs_noted_beside_their_training_are_not_taken_for_measurements() -> None:
    seen = text(page(noted(batch1=12.0, batch32=64.0)))
    assert "Time for a batch of 1, on CPU not measured" in seen and "12.0 ms" not in seen
    assert "Memory and time of a model in use, on any device." in seen


def test_int8_and_int4_stand_beside_the_best_and_fewer_tasks_are_said_not_hidden() -> None:
    shown = page([*golden(), *standard()])
    labels = re.findall(r'<span class="label">([^<]*)</span>', shown)
    assert labels[:2] == ["pq f=48 Q=60", "pq f=16 Q=60"] and set(labels[2:]) == {
        "quantised int8 group 32",
        "quantised int4 group 32",
    }
    seen = text(shown)
    assert "Measured on 2 of 2 2 of 2 2 of 2 1 of 2 (not: rte) 1 of 2 (not: rte)" in seen
    assert "not measured (not run)" in seen
    partial = [
        use for use in chart(shown).findall(".//g[@id='points']/use") if "partial" in use.get("class", "")
    ]
    assert len(partial) == 2 and all(
        use.get("hidden") is None and "front" not in use.get("class", "") for use in partial
    )


def test_a_task_in_15_languages_is_decided_language_by_language() -> None:
    frame = to_frame(xnli())
    table, spoken = score_table(frame, 1.0), sections(breakdown_table(frame, 1.0))

    def seen(language: str = "en", **asked: Any) -> str:
        config = RunConfig(report=ReportConfig(language=language, **asked), price=PRICES)
        return text(brief.page(frame, table, [], [], config, spoken))

    english = seen(tolerated_loss=1.5)
    assert "may lose at most 1.50 points on any of these: 15 languages?" in english
    assert "The configuration is called pq f=48 Q=60" in english and "at most, on Urdu" in english
    assert (
        "Languages of one model rise and fall together" in english
        and "Languages that matter Arabic Bulgarian" in english
    )
    assert "The configuration is called pq f=8" in seen(tolerated_loss=16)
    few = seen(tasks=["en", "fr", "de"], tolerated_loss=1.7)
    assert "on any of these: German, English, French?" in few and "is called pq f=16 Q=60" in few
    assert "on any of these: xnli?" in seen(tasks=["xnli"]), "or by the mean over languages, as before"
    japanese = seen("ja", tolerated_loss=1.5)
    assert "対象: 15 言語" in japanese and "ウルドゥー語" in japanese
    assert set(re.findall(r"\d+\.\d+", english)) == set(re.findall(r"\d+\.\d+", japanese))


def test_the_brief_is_about_the_model_of_the_newest_run_and_says_what_its_weights_are() -> None:
    newer: Any = xnli()
    for made in newer:
        made["created_at"] = "2026-02-02T00:00:00Z"
        made["model"]["weights"] = "4-bit"
    records = [*golden(), *(record("pq8", task="rte", seed=seed) for seed in range(40)), *newer]
    frame = to_frame(records)
    table, spoken = score_table(frame, 1.0), sections(breakdown_table(frame, 1.0))

    def seen(**asked: Any) -> str:
        config = RunConfig(report=ReportConfig(**asked), price=PRICES)
        return text(brief.page(frame, table, [], [], config, spoken))

    newest = seen()
    assert "How small can multilingual-e5-small become?" in newest
    assert "the original's rounded to 4-bit" in newest
    assert "xnli: the encoder itself was trained on data of this task" in newest
    other = seen(model="minilm")
    assert "How small can minilm (all-minilm-l6-v2) become?" in other and "rounded to" not in other


def test_without_a_price_list_there_are_no_amounts() -> None:
    seen = text(page(golden(), price=PriceConfig()))
    assert "No price list is set" in seen and "USD" not in seen and "Cost a month no price set" in seen


def test_a_model_that_no_instance_holds_has_no_bill() -> None:
    small = replace(PRICES, memory_gb=0.1)  # dense needs 125 MB, pq f=48 Q=60 needs 82 MB
    seen = text(page(golden(batch1=12.0, batch32=64.0), price=small))
    assert "h too large for an instance USD 140,000" in seen
    assert "a month – today's memory is not measured or too large" in seen


@pytest.mark.parametrize(
    ("records", "asked", "why"),
    [
        ([record("pq8"), record("pq16")], {}, "The dense model has no finished run here"),
        ([record()], {}, "Only the dense model has finished runs"),
        (
            [record("pq8"), record("pq16", task="rte"), record(task="rte")],
            {},
            "No configuration has finished runs on every task that matters.",
        ),
        ([record(status="failed"), record("pq8", status="oom")], {}, "No run has finished with a score."),
        (
            [record(), record("pq8")],
            {"tasks": ["mrpc", "qnli"]},
            "These tasks matter, but have no finished run: qnli.",
        ),
        (
            [record(changes={"model.weights": "random"}), record("pq8", changes={"model.weights": "random"})],
            {},
            "are random",
        ),
    ],
)
def test_no_answer_says_why(records: list[Record], asked: dict[str, Any], why: str) -> None:
    seen = text(page(records, **asked))
    assert "No answer can be given." in seen and why in seen
    assert "The model can become" not in seen


def test_a_task_that_nothing_was_measured_on_leaves_no_answer_but_its_reason() -> None:
    runs = [
        record(),
        record(task="rte"),
        record("pq8"),
        record("pq8", "rte", status="failed"),
        record("pq16"),
    ]
    seen = text(page(runs))
    assert "No answer: no configuration was measured on everything that matters." in seen
    assert "not measured (1 failed) not measured (not run)" in seen
    assert "rte accuracy (%) · validation" in seen
    assert "We would not decide yet: no smaller model was measured on all of this: mrpc, rte." in seen


def test_the_coverage_of_a_domain_stands_with_the_risks() -> None:
    frame = to_frame(golden())
    covered = [Covered("notes", "minilm/pq", "0" * 12, {"unknown_rate": 0.031, "badly_fitted_rate": 0.25})]
    seen = text(brief.page(frame, score_table(frame, 1.0), [], covered, RunConfig()))
    assert (
        "Measured on the text “notes” with minilm/pq: 3.1 % of words unknown, 25.0 % of tokens badly fitted."
        in seen
    )


def test_texts_of_one_name_are_told_apart_with_the_risks() -> None:
    frame, facts = to_frame(golden()), {"unknown_rate": 0.0, "badly_fitted_rate": 0.0}
    covered = [
        Covered(name, "minilm/pq", "0" * 12, facts, text)
        for name, text in (("notes", "notes.txt-01"), ("notes", "notes.md-02"), ("other", "other.txt-03"))
    ]
    seen = text(brief.page(frame, score_table(frame, 1.0), [], covered, RunConfig()))
    for shown in ("notes.txt-01", "notes.md-02", "other"):
        assert f"Measured on the text “{shown}” with minilm/pq" in seen


def test_names_and_errors_are_text_only() -> None:
    bad = "<script>alert(1)</script>"
    runs = [
        record(model=bad),
        record("pq8", model=bad, changes={"embedding.compose": bad}),
        record("pq16", model=bad, status="failed", message=bad),
    ]
    shown = page(runs, problems=[(f"{bad}.json", bad)])
    assert shown.count("<script") == 2 and "<script>alert" not in shown
    assert text(shown).count(bad) > 4
    data = re.search(r'id="data">(.*?)</script>', shown, re.S)
    assert data and bad in json.loads(data[1])["items"][0]["values"]["label"]


def test_each_candidates_trainings_are_counted() -> None:
    runs = [one for one in golden() if one["name"] != "minilm/rte/pq16/s2"]
    assert len(runs) == len(golden()) - 1
    # Today's, pq48, pq16, pq8, sequential.
    assert "Trainings with different seeds 3 3 2 to 3 3 3 " in text(page(runs))
    assert "Trainings with different seeds 3 3 3 3 3 " in text(page(runs, tasks=["mrpc"]))


def test_data_that_is_not_official_is_named_beside_the_numbers() -> None:
    runs = [record(method, "entailment") for method in ("dense", "pq8")]
    seen = text(page(runs))
    assert "entailment: synthetic data, made for tests" in seen and "· not official: synthetic data" in seen
    limited = text(page([record(method, limit=1000) for method in ("dense", "pq8")]))
    assert (
        "mrpc: trained or tested on other rows than the official ones (train (1,000 of 3,668 rows))"
        in limited
    )


def test_both_languages_say_the_same_things() -> None:
    english, japanese = (page(golden(), language=language) for language in ("en", "ja"))
    assert '<html lang="ja">' in japanese and "モデルは 50.5 % 小さくなります（90.4 MB → 44.7 MB）。" in text(
        japanese
    )
    numbers = [set(re.findall(r"\d[\d.,]*\d", text(shown))) for shown in (english, japanese)]
    assert numbers[0] == numbers[1]
    assert "{" not in text(english) + text(japanese)


def test_equal_records_give_equal_bytes_and_nothing_is_loaded_from_elsewhere() -> None:
    first = page(golden())
    assert first == page(golden()[::-1])
    assert not re.findall(
        r"""(?:src|href)=["'](?!data:|#)|url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)""", first
    )


def test_the_page_grows_by_less_than_800_bytes_a_configuration() -> None:
    rates = [{"training.learning_rate": (1 + k) * 1e-6} for k in range(200)]
    few, many = (
        [record(method, changes=rate) for method in ("dense", "pq8") for rate in chosen]
        for chosen in (rates[:2], rates)
    )
    assert len(page(many).encode()) - len(page(few).encode()) < 198 * 800  # 2,000 of them stay below 1.7 MB


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["report.language=fr"], "Unknown report.language 'fr'"),
        (["report.tolerated_loss=-1"], "report.tolerated_loss (-1) must be 0 or greater"),
        (["report.model=bert"], "Unknown report.model 'bert'"),
        (["price.replicas=0"], "price.replicas (0) must be greater than 0"),
        (["price.utilisation=2"], "price.utilisation (2.0) must be at most 1"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        write_report(golden(), [], tmp_path, config=compose_config(overrides))
    assert words in str(error.value)


def test_the_report_writes_the_page(tmp_path: Path) -> None:
    assert tmp_path / "brief.html" in write_report(golden()[:7], [], tmp_path)
    assert "No price list is set" in text((tmp_path / "brief.html").read_text(encoding="utf-8"))


def test_a_task_outside_the_mean_is_shown_and_does_not_matter_unless_asked(tmp_path: Path) -> None:
    wnli = [record(method, "rte", value=value) for method, value in (("dense", 0.6), ("pq8", 0.3))]
    for one in wnli:
        assert one["task"]
        one["config"]["task"]["name"] = one["task"]["name"] = "wnli"
        one["task"]["average"] = False
    records = [*wnli, *[record(method, task) for method in ("dense", "pq8") for task in ("mrpc", "rte")]]
    write_report(records, [], tmp_path)
    page = (tmp_path / "brief.html").read_text()
    assert "on any of these: mrpc, rte?" in page and "wnli" in page
    write_report(records, [], tmp_path, config=RunConfig(report=ReportConfig(tasks=["wnli"])))
    assert "on any of these: wnli?" in (tmp_path / "brief.html").read_text()


def test_a_task_that_matters_and_that_nobody_knows_is_refused() -> None:
    assert "have no finished run: wnli." in text(page(golden(), tasks=["mrpc", "wnli"]))
    with pytest.raises(ConfigError, match="Unknown task in report.tasks 'mrcp'. Did you mean 'mrpc'"):
        page(golden(), tasks=["mrcp"])


def test_runs_that_read_other_data_are_a_caution() -> None:
    records = golden()
    assert "sources or versions of its data" not in text(page(records))
    changed = next(one for one in records if one["config"]["task"]["name"] == "mrpc" and one["task"])
    changed["task"] = {**(changed["task"] or {}), "data_sha256": "e" * 64}  # type: ignore[typeddict-item]
    assert "mrpc: the runs read 2 different sources or versions of its data" in text(page(records))
    subset = record("pq8", "mrpc", limit=100)
    subset["task"] = {**(subset["task"] or {}), "data_sha256": "e" * 64}  # type: ignore[typeddict-item]
    assert "sources or versions of its data" not in text(page([*golden(), subset])), "in a column of its own"


def chart(shown: str) -> ElementTree.Element:
    """Return the page's chart."""
    found = re.search(r"<svg.*?</svg>", shown, re.S)
    assert found
    return ElementTree.fromstring(found[0].replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def test_the_chart_has_a_point_for_each_configuration_and_letters_at_the_candidates() -> None:
    unmeasured = [
        record("random", "cola", 0, 0.7),
        record("dense", "cola", 0, 0.8),
    ]  # random has no task that matters
    shown = page([*golden(), *unmeasured], tasks=["mrpc", "rte"])
    points = chart(shown).findall(".//g[@id='points']/use")
    data = re.search(r'id="data">(.*?)</script>', shown, re.S)
    assert data
    items = json.loads(data[1])["items"]
    assert [point.get("data-place") for point in points] == [str(place) for place in range(len(items))]
    hidden = [
        items[place]["values"]["label"]
        for place, point in enumerate(points)
        if point.get("hidden") is not None
    ]
    assert hidden == ["random f=3 Q=32"]
    best = next(
        point for place, point in enumerate(points) if items[place]["values"]["label"] == "pq f=48 Q=60"
    )
    letters = chart(shown).findall(".//text[@class='letter']")
    assert [letter.text for letter in letters] == ["A", "B", "C", "D"]
    assert (letters[0].get("x"), letters[0].get("y")) == (best.get("x"), best.get("y"))
    heights = {float(point.get("y", "")) for point in points if point.get("hidden") is None}
    top, bottom = (float(chart(shown).get(f"data-{end}", "")) for end in ("top", "bottom"))
    assert top <= min(heights) < max(heights) <= bottom, "in the axes, whose numbers are round"
    levels = [text.text for text in chart(shown).findall(".//g[@id='levels']/text")]
    assert levels == ["−15", "−10", "−5", "0", "5", "10"]
