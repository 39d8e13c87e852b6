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
const answers = (items, matter, tolerance, several) => [
  rank(items, matter, tolerance).map(({ place, holds, worst, task }) => [place, holds, worst, task]),
  items.map((item) => mean(item, matter)), several ? items.map((item) => reach(item, matter)) : null];
const cases = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(cases.map((one) => answers(one.items, one.matter, one.tolerance, one.reach))));
"""


def rounded(means: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 9) for value in means]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_python_decides(case: dict[str, Any]) -> None:
    items, matter = case["items"], case["matter"]
    ranked = decision.rank(items, matter, case["tolerance"])
    assert [list(verdict) for verdict in ranked] == case["verdicts"]
    assert rounded([decision.mean(item, matter) for item in items]) == case["mean"]
    for item, wanted in zip(items, case["reach"] or [], strict=bool(case["reach"])):
        reached = decision.reach(item, matter)
        assert (list(reached) if reached else None) == wanted


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_decides_alike() -> None:
    rule = (brief.HERE / "rule.js").read_text()
    done = subprocess.run(
        ["node", "-e", rule + SCRIPT], input=json.dumps(CASES), capture_output=True, text=True, check=True
    )
    for case, (verdicts, means, reached) in zip(CASES, json.loads(done.stdout), strict=True):
        assert (verdicts, rounded(means), reached) == (case["verdicts"], case["mean"], case["reach"]), case[
            "name"
        ]
