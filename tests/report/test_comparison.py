"""Which tasks a mean is over, and which dense model a configuration is compared with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import write_report
from bench.report.runs import to_frame
from bench.report.scores import score_table, shared
from tests.report.factory import index, record, results


@pytest.mark.parametrize(
    ("with_cola", "second"), [(("dense", "pq8"), True), (("dense", "pq8", "random"), False)]
)
def test_a_task_that_most_configurations_lack_is_left_out_of_a_second_mean(
    tmp_path: Path, with_cola: tuple[str, ...], second: bool
) -> None:
    """Most: at most half of the configurations that share the other tasks have it."""
    made = [
        record(method, task, value=0.6)
        for method in ("dense", "pq8", "random", "sequential")
        for task in ("mrpc", "rte")
    ]
    write_report([*made, *(record(method, "cola", value=0.3) for method in with_cola)], [], tmp_path)
    table = results(tmp_path)
    whole = table.xs("mean of cola, mrpc, rte", level="task")
    assert {name: bool(mean > 0) for name, mean in whole["mean"].items()} == {
        "dense": True,
        "pq f=8 Q=64": True,
        "random f=3 Q=32": not second,
        "sequential f=3 Q=32": False,
    }
    assert (("dense", "mean of mrpc, rte") in table.index) == second
    drawn = pd.read_csv(tmp_path / "figures" / "score-bytes--minilm--glue.csv")
    assert (set(drawn.column), len(drawn)) == (
        {"mean of mrpc, rte"} if second else {"mean of cola, mrpc, rte"},
        4 if second else 3,
    )
    assert f"| cola | {len(with_cola)} of 4 | {len(with_cola)} of {len(with_cola)} |" in index(tmp_path)
    assert "Not complete" not in index(tmp_path), "what was never begun is counted, not listed"


def test_a_mean_that_nobody_has_is_none_of_several() -> None:
    everybody = {"a", "b", "c", "d", "e", "f"}
    assert shared({"mrpc": everybody, "rte": everybody, "cola": {"a"}, "stsb": {"b"}}) == [["mrpc", "rte"]]
    assert shared({"mrpc": {"a"}, "rte": {"b"}}) == [["mrpc", "rte"]], (
        "an unfinished sweep has the mean it will have"
    )


def test_what_is_recovered_or_taught_is_compared_with_the_plain_dense_model(tmp_path: Path) -> None:
    """That is what a reader would replace; the dense model with a teacher stands beside it."""
    taught = {"training.teacher": "dense"}
    write_report(
        [record(value=0.80), record(value=0.83, changes=taught), record("pq8", value=0.81, changes=taught)],
        [],
        tmp_path,
    )
    table = results(tmp_path)["difference_to_dense"]
    assert table[("dense + teacher", "mrpc")] == pytest.approx(3.0)
    assert table[("pq f=8 Q=64 + teacher", "mrpc")] == pytest.approx(1.0)


def test_plain_dense_at_its_only_rate_comes_before_a_recovered_one_at_the_same_rate(tmp_path: Path) -> None:
    recovered = {"training.learning_rate": 1e-4, "recovery": {"name": "distil"}}
    write_report(
        [
            record(value=0.80),
            record(value=0.90, changes=recovered),
            record("pq8", value=0.81, changes=recovered),
        ],
        [],
        tmp_path,
    )
    found = results(tmp_path)["difference_to_dense"]
    assert next(found[key] for key in found.index if key[0].startswith("pq f=8")) == pytest.approx(1.0)


def test_missing_dense_reference_is_said(tmp_path: Path) -> None:
    write_report(
        [record("pq8"), record("random"), record("dense", changes={"training.batch_size": 9})], [], tmp_path
    )
    table = results(tmp_path)
    assert table.loc[("pq f=8 Q=64", "mrpc"), "no_difference"] == "no dense reference"
    assert "| no dense reference |" in index(tmp_path)


def test_how_text_is_drawn_decides_no_dense_model_but_one_that_is_pretrained_on_it() -> None:
    def loss(**of_both: object) -> float:
        drawn = {"sampling": {"passages": 9}, "recovery": {"name": "distil", "corpus": "text"}}
        pair = [record(value=0.8, changes=of_both), record("pq8", value=0.7, changes=drawn | of_both)]
        return float(score_table(to_frame(pair), 1.0).difference_to_dense.iloc[-1])

    assert loss() == pytest.approx(-10.0)
    assert np.isnan(loss(pretraining={"name": "masked_lm", "seed": 0}))


@pytest.mark.parametrize(("rates", "expected"), [([5e-5], -10.0), ([5e-5, 1e-3], -5.0), ([5e-5, 2e-5], None)])
def test_a_method_with_a_learning_rate_of_its_own_is_compared_with_dense_at_its_only_rate(
    tmp_path: Path, rates: list[float], expected: float | None
) -> None:
    """Dense at the method's own rate comes first; between several others nobody chooses."""
    dense = [
        record(value=0.8 - 0.05 * (rate > 5e-5), changes={"training.learning_rate": rate}) for rate in rates
    ]
    write_report([*dense, record("pq8", value=0.7, changes={"training.learning_rate": 1e-3})], [], tmp_path)
    cell = results(tmp_path).loc[("pq f=8 Q=64", "mrpc")]
    found = None if cell["no_difference"] == "no dense reference" else cell["difference_to_dense"]
    assert found == (None if expected is None else pytest.approx(expected))
