"""The tidy table: what it is called, and that a line holds what its record does."""

import pandas as pd
import pytest

from bench.report import tables
from bench.report.runs import to_frame
from bench.report.scores import score_table
from tests.report.factory import record


def test_what_is_known_of_a_configuration_is_called_as_in_its_record() -> None:
    made = record("pq8", value=0.7)
    made["fit"] = {"relative_error": 0.25, "distinct_codes": 9, "codes_sha256": "c"}
    frame = to_frame([made, record(), record("pq16", status="failed")])
    table = score_table(frame, 1.0).set_index("configuration")
    line = table.loc["pq f=8 Q=64"]
    assert made["size"]
    assert {key: line[f"size.{key}"] for key in made["size"]} == made["size"]
    assert (line["fit.relative_error"], line["config.embedding.subspaces"]) == (0.25, 8)
    assert table.loc["pq f=16 Q=60", ["size.embedding_bytes", "mean"]].isna().all()
    runs = frame.set_index("configuration")
    assert runs.loc["pq f=8 Q=64", "metrics.validation.f1"] == 0.35


def test_a_column_is_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", [*tables.RESULTS, "size.file_bytes"])
    monkeypatch.setattr(tables, "RUNS", [*tables.RUNS, "training.epochs"])
    frame = to_frame([record(), record("pq8")])
    assert tables.results(score_table(frame, 1.0))["size.file_bytes"].notna().all()
    assert list(tables.runs(frame)["training.epochs"]) == [3.0, 3.0]


def test_a_section_has_a_line_for_each_configuration_and_column_and_one_main_column() -> None:
    records = [record(method, task) for method in ("dense", "pq8") for task in ("mrpc", "rte")]
    table = score_table(to_frame([*records, record(task="entailment")]), 1.0)
    glue = table[table.suite == "glue"]
    assert list(glue.configuration) == ["dense"] * 3 + ["pq f=8 Q=64"] * 3
    assert list(glue.column) == ["mrpc", "rte", "mean of mrpc, rte"] * 2
    assert list(glue[glue.main].column) == ["mean of mrpc, rte"] * 2
    alone = table[table.suite == "lexical"]
    assert len(alone) == 1 and alone.main.all() and pd.isna(alone.difference_to_dense.item())


def test_records_of_an_older_training_stand_beside_the_new_ones_each_with_its_own_dense() -> None:
    new = {"training.version": 2}
    records = [record(m, value=v) for m, v in (("dense", 0.8), ("pq8", 0.7))]
    records += [record(m, value=v, changes=new) for m, v in (("dense", 0.9), ("pq8", 0.87))]
    found = score_table(to_frame(records), 1.0).set_index("configuration").difference_to_dense
    assert found["pq f=8 Q=64 (version=1)"] == pytest.approx(-10)
    assert found["pq f=8 Q=64 (version=2)"] == pytest.approx(-3)
