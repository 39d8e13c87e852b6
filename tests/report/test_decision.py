"""The rule of the decision stands in Python and, for the page, in JavaScript: both give the answers of decisions.json."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.report import brief, decision

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "decisions.json").read_text())
SCRIPT = """
const answers = (items, matter, tolerance) => [
  rank(items, matter, tolerance).map(({ place, holds, worst, task }) => [place, holds, worst, task]),
  items.map((item) => mean(item, matter)), items.map((item) => change(item, matter)), items.map((item) => chance(item, matter, tolerance))];
const cases = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(cases.map((one) => answers(one.items, one.matter, one.tolerance))));
"""


def rounded(values: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value + 0.0, 3) for value in values]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_python_decides(case: dict[str, Any]) -> None:
    items, matter = case["items"], case["matter"]
    ranked = decision.rank(items, matter, case["tolerance"])
    assert [list(verdict) for verdict in ranked] == case["verdicts"]
    assert rounded([decision.mean(item, matter) for item in items]) == rounded(case["mean"])
    assert rounded([decision.change(item, matter) for item in items]) == rounded(case["change"])
    chances = [decision.chance(item, matter, case["tolerance"]) for item in items]
    assert rounded(chances) == rounded(case["chance"])


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_decides_alike() -> None:
    rule = (brief.HERE / "rule.js").read_text()
    done = subprocess.run(
        ["node", "-e", rule + SCRIPT], input=json.dumps(CASES), capture_output=True, text=True, check=True
    )
    for case, (verdicts, *numbers) in zip(CASES, json.loads(done.stdout), strict=True):
        assert verdicts == case["verdicts"], case["name"]
        wanted = [rounded(case[key]) for key in ("mean", "change", "chance")]
        assert [*map(rounded, numbers)] == wanted, case["name"]
