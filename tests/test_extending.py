"""docs/extend.md is true: its files, put into a copy of the project, do what the page says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

PAGE = (ROOT / "docs" / "extend.md").read_text()
FILE = re.compile(r"(At the end of )?`([\w./]+)`:\n\n```\w+\n(.*?)```", re.S)
TINY = ["device=cpu", "training.max_steps=2", "training.batch_size=4"]
# All in one process, as imports take most of the time.
CARRY_OUT = """
import json, runpy, sys
from bench.cli.main import main
for name, *words in json.loads(sys.argv[1]):
    if name == "-m":
        assert main([*words[1:], *sys.argv[2:]]) == 0, words
    else:
        runpy.run_path(name)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return a copy of the project with the page's files, in which the page's commands have run."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("bench", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tiny_model, folder / "models" / "mine")
    for appended, name, text in FILE.findall(PAGE):
        with (folder / name).open("a" if appended else "x") as file:
            file.write(f"\n\n{text}" if appended else text)
    commands = [
        line.split() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()
    ]
    assert {words[0] for words in commands} == {".venv/bin/python"}
    done = subprocess.run(
        [sys.executable, "-c", CARRY_OUT, json.dumps([words[1:] for words in commands]), *TINY],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def records(project: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in (project / "results/runs").rglob("*.json")]
    return {record["name"]: record for record in found}


def test_a_model_of_ones_own_runs(project):
    name = "mine/lexical_entailment/subspace-concat-f12-q60-pq-fitted/s0"
    assert records(project)[name]["status"] == "ok"


def test_a_task_of_ones_own_is_scored_on_its_rows(project):
    record = records(project)["mine/reviews/dense/s0"]
    assert record["task"]["suite"] == "shop" and record["headline"]["split"] == "validation"
    assert record["task"]["splits"]["train"]["rows"] == 4


def test_a_method_of_ones_own_is_counted_as_its_file_is_measured(project):
    size = records(project)["mine/reviews/signs/s0"]["size"]
    assert size["embedding_bytes"] == 24 * 4 + 30522 * 24 // 8
    assert size["embedding_bytes"] <= size["file_bytes"] < size["embedding_bytes"] + 1000
    assert size["memory_bytes"] > 30522 * 24 * 4, "its layer holds the signs as a table of float32"


def test_a_launcher_of_ones_own_carries_out_a_sweep(project):
    names = {name for name in records(project) if name.startswith("mine/reviews/")}
    assert names == {f"mine/reviews/{kind}/s{seed}" for kind in ("dense", "signs") for seed in (0, 1)}
