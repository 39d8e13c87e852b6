"""`bench perf` is cut off: what is measured is kept, and the same command goes on with the rest."""

import json
from pathlib import Path

import pytest
import torch

from bench.perf.engines import EngineSide
from bench.perf.measure import measure
from tests.perf.conftest import config

CPU = torch.device("cpu")


def cut_off(folder, monkeypatch, after):
    """Measure until the process is interrupted before measurement `after` of an engine; return the file."""
    done, measured = [], EngineSide.measure

    def interrupted(side):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(side)
        return measured(side)

    with monkeypatch.context() as patch:
        patch.setattr(EngineSide, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure(config(folder, "perf.sides=[eager,together]"), CPU)
    (path,) = Path(folder, "perf").glob("*.json")
    return path


def test_what_is_measured_is_kept_when_the_measurement_is_cut_off_and_the_next_one_goes_on(
    tmp_path, monkeypatch
):
    """The first cell holds four measurements, two each of two contestants; the second is cut off in its second."""
    path = cut_off(tmp_path, monkeypatch, 5)
    before = json.loads(path.read_text())
    assert not before["complete"]
    assert [len(row["examples_per_second"]) for row in before["rows"]] == [2, 2, 1]
    assert "cut off" in path.with_suffix(".md").read_text()

    assert measure(config(tmp_path, "perf.sides=[eager,together]"), CPU) == path
    after = json.loads(path.read_text())
    assert after["complete"] and after["sittings"] == 2
    assert after["rows"][:2] == before["rows"][:2], "the cell that was whole is not measured again"
    assert [(row["embedding"], row["side"]) for row in after["rows"][2:]] == [
        ("dense", "together"),
        ("subspace", "together"),
    ]
    assert [len(row["examples_per_second"]) for row in after["rows"]] == [2] * 4
    assert after["rows"][2]["examples_per_second"] != before["rows"][2]["examples_per_second"]
    table = path.with_suffix(".md").read_text()
    assert "Measured in 2 sittings" in table and "rows are missing" not in table


@pytest.mark.parametrize("changed", ["commit", "code", "settings", "device"])
def test_a_measurement_of_something_else_begins_anew(tmp_path, monkeypatch, changed):
    path = cut_off(tmp_path, monkeypatch, 3)
    report = json.loads(path.read_text())
    (report if changed in report else report["provenance"])[changed] = "another"
    path.write_text(json.dumps(report))
    cut_off(tmp_path, monkeypatch, 1)
    after = json.loads(path.read_text())
    assert after["sittings"] == 1 and len(after["rows"][0]["examples_per_second"]) == 1


def test_a_whole_measurement_begins_anew(tmp_path):
    first, second = (
        json.loads(measure(config(tmp_path, "perf.sides=[eager]"), CPU).read_text()) for _ in range(2)
    )
    assert second["sittings"] == 1
    assert first["rows"][0]["examples_per_second"] != second["rows"][0]["examples_per_second"]
