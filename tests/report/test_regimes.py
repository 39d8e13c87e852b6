"""Models pretrained here in the report: a section of their own, seeds of both kinds, and the same table swapped in beside it."""

import pandas as pd
import pytest

from bench.report import write_report
from bench.report.regimes import PRETRAINED, RECOVERED, SWAPPED, beside
from bench.report.runs import to_frame
from bench.report.scores import score_table
from tests.report.factory import index, record, results

SCORES = {  # (model, method) -> score; a table in a finished model loses 20 points, pretrained with it 4
    ("little", "dense"): 0.7,
    ("little", "contextual"): 0.66,
    ("little", "pq8"): 0.69,
    ("minilm", "dense"): 0.8,
    ("minilm", "contextual"): 0.6,
}
TASKS = ("mrpc", "rte")


def pretrained(method: str, task: str, seed: int, value: float, own_seed: int = 0, **changes: object):
    part = {"name": "masked_lm", "steps": 9, "seed": own_seed, "corpus": "c" * 64}
    made = record(
        method,
        task,
        seed,
        value,
        model="little",
        changes={"model.weights": "none", "embedding.init": "random", "pretraining": part, **changes},
    )
    facts = {"validation_loss": 2.5, "perplexity": 12.2, "tokens": 10**6, "tokens_per_second": 5e5}
    return {**made, "pretraining": {**part, **facts, "sha256": "e" * 64, "peak_memory_bytes": None}}


@pytest.fixture
def records():
    made = []
    for (model, method), score in SCORES.items():
        for task in TASKS:
            for seed in range(3):
                value = round(score + 0.002 * seed, 4)
                swapped = model == "minilm"
                one = record(method, task, seed, value) if swapped else pretrained(method, task, seed, value)
                made.append(one)
    return made


def table(records) -> pd.DataFrame:
    return beside(score_table(to_frame(records), 1.0))


def test_a_table_pretrained_with_stands_beside_the_same_table_swapped_in(records):
    scores = table(records)
    lines = scores[(scores.model == "little") & scores.main].set_index("configuration").regimes
    contextual = {part["regime"]: part for part in lines["contextual f=3 Q=32"]}
    assert set(contextual) == {PRETRAINED, SWAPPED}
    assert contextual[PRETRAINED]["difference"] == pytest.approx(-4)
    assert contextual[SWAPPED]["difference"] == pytest.approx(-20) and contextual[SWAPPED]["of"] == "minilm"
    assert contextual[SWAPPED]["tasks"] == "mrpc, rte" and contextual[SWAPPED]["seeds"] == 3
    (alone,) = lines["pq f=8 Q=64"]  # which no finished model has
    assert alone["regime"] == PRETRAINED and alone["difference"] == pytest.approx(-1)
    assert scores[scores.model == "minilm"].regimes.isna().all()


def test_only_common_tasks_are_compared_and_recovered_tables_apart(records):
    recovered = [
        record("contextual", "mrpc", seed, 0.75, changes={"recovery": {"name": "distil", "steps": 9}})
        for seed in range(3)
    ]
    lines = table([*records, *recovered])
    line = lines[(lines.configuration == "contextual f=3 Q=32") & (lines.model == "little") & lines.main]
    found = {part["regime"]: part for part in line.regimes.iloc[0]}
    assert {part["tasks"] for part in found.values()} == {"mrpc"}
    assert found[RECOVERED]["difference"] == pytest.approx(100 * (0.75 - 0.802))


def test_seeds_of_pretraining_and_fine_tuning_are_paired(records):
    more = [
        pretrained(method, task, seed, SCORES["little", method] - 0.1 * (method != "dense"), own_seed=1)
        for method in ("dense", "contextual")
        for task in TASKS
        for seed in range(3)
    ]
    lines = table([*records, *more])
    line = lines[(lines.configuration == "contextual f=3 Q=32") & (lines.model == "little") & lines.main]
    assert line.seeds.iloc[0] == "0 1 2 1000 1001 1002" and line.paired_seeds.iloc[0] == 6
    assert line.difference_to_dense.iloc[0] == pytest.approx((-4 - 14) / 2)


def test_the_report_has_a_section_and_a_figure_of_models_pretrained_here(records, tmp_path):
    untrained = [
        record(task=task, value=0.5, model="little", changes={"model.weights": "none"}) for task in TASKS
    ]
    write_report([*records, *untrained], [], tmp_path)
    page = index(tmp_path)
    assert "little (pretrained here) on glue" in page and "little (no pretraining) on glue" in page
    assert "little: pretrained here" in page and "random init" not in page
    assert results(tmp_path).loc[("contextual f=3 Q=32", "mrpc")].model.tolist() == [
        "little (pretrained here)",
        "minilm",
    ]
    (drawn,) = (tmp_path / "figures").glob("regimes--*.csv")
    assert drawn.with_suffix(".png").exists()
    points = pd.read_csv(drawn).set_index(["configuration", "regime"])
    assert points.difference["contextual f=3 Q=32", SWAPPED] == pytest.approx(-20)
    assert points.perplexity["contextual f=3 Q=32", PRETRAINED] == pytest.approx(12.2)
    assert "contextual f=3 Q=32: 4.0 points lost pretrained with it, 20.0 swapped in" in page


def test_a_single_seed_has_no_interval_and_is_drawn(records, tmp_path):
    write_report([one for one in records if one["config"]["seed"] == 0], [], tmp_path)
    (drawn,) = (tmp_path / "figures").glob("regimes--*.csv")
    assert pd.read_csv(drawn).low.isna().all()


def test_reports_without_such_models_have_no_such_figure(records, tmp_path):
    write_report([one for one in records if one["config"]["model"]["name"] == "minilm"], [], tmp_path)
    assert not list((tmp_path / "figures").glob("regimes--*"))
