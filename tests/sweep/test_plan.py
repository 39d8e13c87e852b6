"""Plans: what is to do under each policy, in which order, how long it takes, and which part of a sweep is meant."""

import json
import os
import shutil

import pytest

from bench import store
from bench.cli.verbs import parse
from bench.errors import ConfigError
from bench.settings import compose
from bench.settings.compose import compose_config
from bench.sweep.launch import Outcome, closing, describe
from bench.sweep.pace import Pace
from bench.sweep.plan import Item, make
from bench.sweep.select import Selection
from tests.support.commands import ROOT

SAMPLE = json.loads(next((ROOT / "results/example/demo/runs").rglob("*.json")).read_text())


def record_for(plan, run, status="ok", **changes):
    error = None if status == "ok" else {"type": "E", "message": f"it was {status}", "traceback": ""}
    store.write(
        SAMPLE | {"run_id": run.run_id, "name": run.name, "status": status, "error": error} | changes,
        plan.path(run).parents[4],
    )


@pytest.fixture
def sweep(tmp_path):
    return ["sweep=demo", "device=cpu", f"results_dir={tmp_path}/results"]


def filled(sweep, *statuses):
    """Return the sweep's plan after its first runs got records of these statuses."""
    plan = make(sweep)
    for run, status in zip(plan.runs, statuses, strict=False):
        record_for(plan, run, status)
    plan.path(plan.runs[len(statuses)]).parent.mkdir(parents=True, exist_ok=True)
    plan.path(plan.runs[len(statuses)]).write_text("{")
    return make(sweep)


STATUSES = ("ok", "failed", "oom", "diverged", "timeout", "interrupted")


@pytest.mark.parametrize(
    ("policy", "run_again"),
    [
        ("only-missing", {"interrupted", "unreadable"}),
        ("failed", {*STATUSES, "unreadable"} - {"ok"}),
    ],
)
def test_the_policy_says_which_records_are_made_again(sweep, policy, run_again):
    plan = filled([*sweep, f"overwrite={policy}"], *STATUSES)
    assert {plan.status(run) for run in plan.runs} == {*STATUSES, "unreadable", "missing"}
    todo = {item.run_id for item in plan.todo()}
    assert todo == {run.run_id for run in plan.runs if plan.status(run) in {*run_again, "missing"}}


def test_the_closing_line_counts_every_run_once(sweep):
    plan = filled(sweep, *STATUSES, "ok")
    lines, failed = closing(Outcome(plan, []))
    assert (
        failed
        and lines[-1] == "done 0 | skipped 2 | missing 18 | failed 4 (diverged 1, failed 1, oom 1, timeout 1)"
    )
    assert any(line.startswith("oom all-minilm-l6-v2/") and line.endswith("it was oom") for line in lines)
    ok = [run for run in plan.runs if plan.status(run) == "ok"]
    done = Item(ok[0].run_id, "", [], "", None, None)
    assert closing(Outcome(plan, [done]))[0][-1].startswith("done 1 | skipped 1 |")


def test_expected_time_is_that_of_the_same_model_and_task_and_the_longest_come_first(sweep):
    plan = make([*sweep, "training.max_steps=null"])
    by_task = {"lexical_entailment": 50.0, "lexical_sentiment": 400.0}  # examples per second
    for run in plan.runs[:6]:
        speed = by_task[run.config.task.name]
        record_for(
            plan,
            run,
            training=SAMPLE["training"]
            | {"seconds": 10.0, "start_seconds": 0.0, "examples_per_second": speed},
            task=SAMPLE["task"] | {"name": run.config.task.name},
            model=SAMPLE["model"] | {"name": "all-minilm-l6-v2"},
        )
    plan = make([*sweep, "training.max_steps=null"])
    todo = plan.todo()
    rows = {task: compose_config([f"task={task}"]).task.official_rows["train"] for task in by_task}
    expected = [3 * rows[item.name.split("/")[1]] / by_task[item.name.split("/")[1]] for item in todo]
    assert [item.seconds for item in todo] == pytest.approx(expected)
    assert expected == sorted(expected, reverse=True) and len(set(expected)) == 2
    minutes, seconds = divmod(round(sum(expected)), 60)
    assert f"about {minutes // 60}:{minutes % 60:02d}:{seconds:02d} of training (h:mm:ss)" in describe(plan)


def test_a_recovered_model_counts_once_for_the_runs_that_share_it(sweep):
    recovered = {"name": "distil", "sha256": "", "reused": True, "texts": 9, "steps": 100}
    recovered |= {"seconds": 100.0, "runs_at_once": 2}
    plan = make(sweep)
    config = SAMPLE["config"] | {"recovery": {"name": "distil", "batch_size": 4}}
    record_for(plan, plan.runs[0], config=config, recovery=recovered)  # 8 examples a second
    more = [*sweep, "recovery=distil", "recovery.steps=3600", "recovery.batch_size=8"]
    chosen = [*more, "recovery.corpus=lexical_sentiment:train"]
    embeddings = {repr([run.canonical[key] for key in ("embedding", "assignment")]) for run in plan.runs}
    assert f" and at most {len(embeddings)}:00:00 of recovery" in describe(make(chosen))
    seeds = {run.config.seed for run in plan.runs}
    each = describe(make([*chosen, "recovery.seed=null"]))
    assert f" and at most {len(embeddings) * len(seeds)}:00:00 of recovery" in each
    assert f" and at most {len(embeddings) * 2}:00:00 of" in describe(make(more)), (
        "a text for each of two tasks"
    )


def test_nothing_is_expected_where_nothing_is_known():
    assert Pace().seconds(compose_config(["task=lexical_sentiment"])) is None


def test_a_large_plan_equals_the_sum_of_its_parts(tmp_path):
    seeds = [f"results_dir={tmp_path}", "sweep=demo"]
    whole = make(seeds, Selection(seeds=40))
    parts = [
        run
        for number in range(40)
        for run in make([*seeds, f"seed={number}"], Selection(only=(f"seed={number}",))).runs
    ]
    assert {run.run_id for run in whole.runs} == {run.run_id for run in parts} and len(whole.runs) == 12 * 40


@pytest.mark.parametrize(
    ("only", "count"),
    [
        (["task=lexical_sentiment"], 12),
        (["task=lexical_sentiment", "seed=1"], 6),
        (["assignment=pq,random", "embedding=subspace"], 12),
        (["embedding.subspaces=8"], 4),
        (["seed=0,1"], 24),
    ],
)
def test_only_chooses_by_value(sweep, only, count):
    assert len(make(sweep, Selection(only=only)).runs) == count


def test_a_value_that_names_the_seed_is_another_for_each(tiny):
    named = [*tiny, "sweep=smoke", "assignment=random", "assignment.seed=${seed}"]
    runs = [run for run in make(named, Selection(seeds=3)).runs if run.config.embedding.name == "subspace"]
    assert [(run.config.seed, run.config.assignment.seed) for run in runs] == [(0, 0), (1, 1), (2, 2)]


def test_only_finds_a_budget_by_what_the_sweep_states(tiny):
    budgets = [*tiny, "sweep=smoke", "embedding=subspace", "assignment=pq", "embedding.budget=10%"]
    found = make(budgets, Selection(only=["embedding.budget=5%,10%"])).runs
    assert found and all(run.config.embedding.budget is None for run in found)
    with pytest.raises(ConfigError, match="matches none"):
        make(budgets, Selection(only=["embedding.budget=5%"]))


def test_only_finds_a_value_where_the_run_has_the_key(tiny):
    sweep = [*tiny, "sweep=smoke", "?embedding.init=random"]
    found = make(sweep, Selection(only=["embedding.init=random"])).runs
    assert found and {run.config.embedding.name for run in found} == {"subspace"}


def test_limit_and_seeds(sweep):
    words, flags = parse("plan", ["--limit", "3", "--seeds", "5", *sweep])
    assert words == sweep and len(make(sweep, Selection(**flags)).runs) == 3
    assert {run.config.seed for run in make(sweep, Selection(seeds=5)).runs} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "tsk=mrpc"], "Unknown key in --only 'tsk'.*'task'"),
        (["--only", "task=mrpc"], "matches none of the sweep's 24"),
        (["--only", "task"], "key=value"),
        (["--limt", "3"], "Unknown flag '--limt'.*--limit"),
        (["--limit", "0"], r"--limit \(0\)"),
        (["--limit", "x"], "limit"),
        (["overwrite=faild"], "Did you mean 'failed'"),
        (["launcher.time_limit=-1"], "launcher.time_limit"),
        (["launcher=slrm"], "Did you mean 'slurm'"),
        (["workers=0"], "workers"),
        ([f"results_dir={ROOT}/LICENSE"], r"results_dir \(.*LICENSE\) is a file"),
    ],
)
def test_a_wrong_choice_is_refused_before_any_work(sweep, arguments, words):
    with pytest.raises(ConfigError, match=words):
        words, flags = parse("plan", [*sweep, *arguments])
        make(words, Selection(**flags))


def test_two_sweeps_with_one_run_in_common_share_its_record(sweep):
    first = make(sweep)
    for run in first.runs:
        record_for(first, run)
    again = make([*sweep, "launcher.time_limit=5", "workers=3", f"cache_dir={os.devnull}x"])
    assert again.todo() == []


@pytest.mark.parametrize(
    "declared, message",
    [
        ("purpose: p", "yaml is no sweep .*missing mandatory value: name"),
        ("{name: bad, purpose: p, grid: {seed: 3}}", "yaml is no sweep .*Value 3"),
        ("{name: bad, purpose: p, points: [embedding=dense]}", "yaml is no sweep .*str is not a List"),
        ("{name: bad, purpose: p, parts: [embedding=dense]}", "yaml is no sweep .*Cannot assign str"),
        ("{name: bad, purpose: p, parts: [{grid: {seed: 3}}]}", "yaml is no sweep .*Value 3"),
        ("{name: bad, purpose: p, fixed: [?seed=1]}", "'seed=1'.*is no override: put it in quotes"),
        ("{name: bad, purpose: p, points: [[?seed=1]]}", "yaml is no sweep .*DictConfig"),
        ("{name: bad, purpose: p, girds: {}}", "'girds'. Did you mean 'grid'"),
        ("{name: bad, purpose: p, parts: [{girds: {}}]}", "'girds'. Did you mean 'grid'"),
        ("{name: bad, purpose: p, grid: {seed: []}}", "an empty grid or no points"),
    ],
)
def test_a_file_that_declares_no_sweep_is_refused(tmp_path, monkeypatch, declared, message):
    shutil.copytree(compose.CONF, tmp_path / "conf")
    name = tmp_path.name  # a new one each time, as configurations are composed once in a process
    (tmp_path / f"conf/sweep/{name}.yaml").write_text(declared + "\n")
    monkeypatch.setattr(compose, "CONF", tmp_path / "conf")
    with pytest.raises(ConfigError, match=message):
        make([f"sweep={name}"])
