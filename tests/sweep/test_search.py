"""Search: killed in the middle, gone on with by two processes at once, every run once; the front by a plain computation."""

import os
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest

from bench import store
from bench.errors import ConfigError, EnvironmentBroken
from bench.sweep.search import gaps_to_front, search
from bench.sweep.trials import Trials
from tests.support.commands import ROOT, wait_for

SPACE = "search.space={embedding.subspaces:[4,5,12],embedding.rows:[32,60],assignment:[random,pq],recovery:[none]}"


@pytest.fixture
def searching(tiny):
    """Return the arguments of a search among 12 points, of which the 4 with five subspaces cannot be made."""
    model = [o for o in tiny if not o.startswith("task=")]
    return [
        *model,
        "search=demo",
        "search.name=t",
        "search.fixed=[]",
        "search.tasks=[lexical_sentiment]",
        SPACE,
        "search.trials=8",
        "search.batch=4",
        "search.seeds=2",
        "task.evaluate=[validation]",
        "training.max_steps=2",
        "workers=1",
    ]


def started(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "search", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records(tmp_path):
    return sorted((tmp_path / "results/runs").rglob("*.json"))


def test_a_killed_search_goes_on_in_two_processes_and_no_run_is_done_twice(searching, tmp_path):
    first = started(searching)
    wait_for(lambda: records(tmp_path), what="no run was finished")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = {path: path.stat().st_mtime_ns for path in records(tmp_path)}
    both = [started(searching) for _ in range(2)]
    told = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert all(path.stat().st_mtime_ns == at for path, at in before.items()), (
        "what was finished before the kill stays"
    )
    trained = sum(len(re.findall(r"\| validation accuracy = ", stderr)) for _, stderr in told)
    assert trained == len(records(tmp_path)) - len(before), "each run once, by one of the two"
    for stdout, _ in told:
        assert re.fullmatch(
            r"trials [89] \(.*\) \| done \d+ \| skipped \d+ \| failed 0 \| front \d+", stdout.splitlines()[-1]
        ), stdout

    table = pd.read_csv(tmp_path / "results/search/t/trials.csv")
    assert (
        set(table.outcome) <= {"front", "trained", "dominated by fit", "impossible"} and 8 <= len(table) <= 9
    )
    assert set(table[table["embedding.subspaces"] == 5].outcome) <= {"impossible"}
    for row in table[table.outcome == "dominated by fit"].itertuples():
        assert (
            (table.embedding_bytes <= row.embedding_bytes) & (table.fit_error < row.fit_error / 1.05)
        ).any()
    finalists = table[table.seeds == 2].drop_duplicates(list(table.columns[1:4]))
    beaten = [
        (
            (finalists.embedding_bytes <= row.embedding_bytes)
            & (finalists.score >= row.score)
            & ((finalists.embedding_bytes < row.embedding_bytes) | (finalists.score > row.score))
        ).any()
        for row in finalists.itertuples()
    ]
    assert len(finalists) and list(finalists.outcome == "front") == [not one for one in beaten]
    found = store.read_all(tmp_path / "results")[0]
    best = finalists.iloc[0]
    own = [
        record["headline"]["value"]
        for record in found
        if record["size"]["embedding_bytes"] == best.embedding_bytes
        and record["config"]["assignment"]["name"] == best.assignment
    ]
    assert len(own) == 2 and sum(own) / 2 == pytest.approx(best.score)
    assert {record["config"]["seed"] for record in found} == {0, 1} and (
        tmp_path / "results/INDEX.md"
    ).is_file()


def test_of_equal_scores_the_smaller_is_on_the_front():
    found = {("a",): (0.7, 10), ("b",): (0.7, 20), ("c",): (0.9, 30), ("d",): (0.8, 40)}
    gaps = gaps_to_front(found)
    assert (
        gaps[("a",)] == gaps[("c",)] == 0 and 0 < gaps[("b",)] < 1e-6 and gaps[("d",)] == pytest.approx(0.1)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("search.space={assignment:[]}", "search.space is empty"),
        ("+search.space={embedding.row:[8]}", "Unknown key 'embedding.row'.*embedding.rows"),
        ("search.space={assignment:[contextal]}", "Did you mean 'contextual'"),
        ("+search.space={seed:[0,1]}", "search.space must not hold seed"),
        ("search.tasks=[]", "search.tasks is empty"),
        ("task.evaluate=[test]", r"task.splits.test \(test\) of lexical_sentiment is what a task reports"),
        ("search.trials=0", r"search.trials \(0\)"),
        ("search.space={embedding.subspaces:[5,7]}", "must divide the model's width"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_before_any_work(change, words, searching, tmp_path):
    with pytest.raises(ConfigError, match=words):
        search([*searching, change])
    assert not (tmp_path / "results").exists()


def test_a_search_is_named_and_goes_on_after_half_a_line(searching, tmp_path):
    with pytest.raises(ConfigError, match=r"search is not set: add search=<name>\. Available: demo"):
        search([o for o in searching if o != "search=demo"])
    Trials(tmp_path, ["a"]).study.ask()
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-9])
    Trials(tmp_path, ["a"]).study.ask()
    assert len(Trials(tmp_path, ["a"]).all()) == 2 and journal.read_bytes().startswith(whole)


def test_without_optuna_the_extra_is_named(searching, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EnvironmentBroken, match=r"pip install -c constraints.txt -e '\.\[search\]'"):
        search(searching)
