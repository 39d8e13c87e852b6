"""Runs of one task and recipe: trained side by side, recorded as each alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import store
from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.runs.side_by_side import execute_together
from bench.settings.compose import compose_config
from bench.sweep.plan import alike, make
from bench.sweep.select import Selection
from bench.sweep.worker import Settings, work

SUBSPACE = ("?embedding.subspaces=4", "assignment=sequential")


def prepared(overrides, *others):
    return prepare(compose_config([*overrides, *SUBSPACE, *others]))


def test_each_record_is_to_the_last_bit_that_of_the_run_alone(tiny, tmp_path):
    """With dropout, whose masks depend on the run's seed alone, and with batches of other lengths beside it."""
    different = (
        ("seed=0",),
        ("seed=5",),
        ("seed=0", "embedding.subspaces=2"),
        ("seed=0", "training.teacher=dense"),
        ("seed=5", "training.teacher=dense"),
        ("seed=0", "training.learning_rate=1e-3"),
    )
    alone = [execute(prepared(tiny, *one, f"results_dir={tmp_path}/alone")) for one in different]
    together = execute_together([prepared(tiny, *one) for one in different])
    found, problems = store.read_all(Path(prepared(tiny).config.results_dir))
    assert not problems and sorted(r["run_id"] for r in found) == sorted(r["run_id"] for r in together)
    for one, other in zip(together, alone, strict=True):
        for part in ("run_id", "name", "status", "config", "task", "size", "fit", "metrics", "headline"):
            assert one[part] == other[part], part
        assert (one["training"]["runs_at_once"], other["training"]["runs_at_once"]) == (6, 1)
        assert one["training"]["curve"] == other["training"]["curve"]
        where = store.predictions_folder(Path(tmp_path), one["name"], one["run_id"]).relative_to(tmp_path)
        answers = [
            store.read_predictions(results / where, "test")
            for results in (Path(prepared(tiny).config.results_dir), tmp_path / "alone")
        ]
        assert np.array_equal(*answers)
    assert len({str(record["training"]["curve"]) for record in together}) == 6


@pytest.mark.parametrize(
    ("recovery", "weights"), [("distil", "pretrained"), ("distil", "random"), ("masked_lm", "random")]
)
def test_missing_recovered_models_are_made_side_by_side_each_to_the_last_bit_that_of_its_run_alone(
    tiny_masked_lm, tmp_path, recovery, weights, caplog
):
    caplog.set_level("INFO")
    quick = (f"recovery={recovery}", "recovery.steps=4", "recovery.batch_size=8", "recovery.max_length=16")
    tiny_masked_lm = [*tiny_masked_lm, f"model.weights={weights}"]
    different = (
        (*quick, "seed=0"),
        (*quick, "seed=1"),  # of pretrained weights the same recovered model
        (*quick, "embedding.subspaces=2"),
        (*quick, "recovery.seed=7"),
        (*quick, "recovery.steps=5"),  # not beside the others
        (),
    )
    alone = [
        execute(
            prepared(tiny_masked_lm, *one, f"results_dir={tmp_path}/alone", f"cache_dir={tmp_path}/other")
        )
        for one in different
    ]
    caplog.clear()
    models = 3 if weights == "pretrained" else 4
    together = execute_together([prepared(tiny_masked_lm, *one) for one in different])
    assert (
        f"{recovery} and {models - 1} more | step 4/4" in caplog.text
        and f"{recovery} | step 5/5" in caplog.text
    )
    for one, other in zip(together, alone, strict=True):
        assert one["status"] == "ok" and one["metrics"] == other["metrics"]
        assert one["training"]["curve"] == other["training"]["curve"]
        for part in ("name", "reused", "texts", "steps", "engine", "stored_states", "curve"):
            assert one["recovery"].get(part) == other["recovery"].get(part), part
    assert [r["recovery"].get("runs_at_once") for r in together] == [models] * 4 + [1, None]
    assert [r["recovery"].get("reused") for r in together] == [False, models == 3, False, False, False, None]
    assert len({str(record["recovery"].get("curve")) for record in together}) == models + 2


def test_a_recovery_that_diverges_fails_its_own_run_and_the_others_models_are_kept(tiny):
    quick = ("recovery=distil", "recovery.steps=4", "recovery.batch_size=8", "recovery.max_length=16")
    wild = ("recovery.learning_rate=1e30", "embedding.subspaces=2")
    runs = [prepared(tiny, *quick, *own) for own in (wild, ())]
    assert execute_together(runs) is None
    first, second = (execute(run) for run in runs)
    assert first["status"] == "diverged" and "of 4 steps" in first["error"]["message"]
    assert second["status"] == "ok" and second["recovery"]["reused"]


def test_a_run_that_diverges_is_recorded_after_how_many_steps_and_stops_no_other(tiny):
    wild = ("training.learning_rate=1e30", "training.max_grad_norm=1e30", "training.warmup_fraction=0")
    runs = [prepared(tiny, *own, "training.max_steps=30") for own in (wild, ("seed=1",))]
    first, second = execute_together(runs)
    assert first["status"] == "diverged" and "of 30 steps" in first["error"]["message"]
    assert second["status"] == "ok"


def test_runs_that_cannot_train_side_by_side_train_one_after_the_other_each_in_its_own_time(tiny, caplog):
    # No plan would put them together.
    runs = [prepared(tiny, f"training.max_steps={steps}") for steps in (2, 3)]
    assert execute_together(runs) is None and "one after the other" in caplog.text
    plan = make(
        [*(o for o in tiny if not o.startswith("training.max_steps")), "sweep=smoke"], Selection(seeds=1)
    )
    items = []
    for item, more in zip(plan.todo(), (["training.max_steps=5"], []), strict=True):
        run = prepare(compose_config([*item.overrides, *more]))
        items.append(
            replace(
                item,
                alike="same",
                overrides=[*item.overrides, *more],
                run_id=run.run_id,
                record=str(plan.path(run)),
            )
        )
    said = []
    assert work(
        items,
        Settings(threads=1, gpu=None, time_limit=60, runs_at_once=2),
        lambda *words: said.append(words[:2]),
    )
    one, two = (item.run_id for item in items)
    assert said == [
        ("begin", one),
        ("begin", two),
        ("begin", one),
        ("begin", two),
        ("end", one),
        ("end", two),
    ]
    records, _ = store.read_all(Path(plan.config.results_dir))
    assert [(r["status"], r["training"]["runs_at_once"]) for r in records] == [("ok", 1)] * 2


def test_a_sweep_trains_runs_of_a_task_together(tiny):
    plan = make(
        [
            *(o for o in tiny if not o.startswith("training.max_steps")),
            "sweep=smoke",
            "launcher.runs_at_once=4",
        ],
        Selection(seeds=3),
    )
    said = []
    settings = Settings(threads=1, gpu=None, time_limit=None, runs_at_once=plan.config.launcher.runs_at_once)
    assert work(plan.todo(), settings, lambda *words: said.append(words[0]))
    assert said == [*["begin"] * 4, *["end"] * 4, *["begin"] * 2, *["end"] * 2]
    records, _ = store.read_all(Path(plan.config.results_dir))
    assert sorted(r["training"]["runs_at_once"] for r in records) == [2, 2, 4, 4, 4, 4]
    assert {(r["config"]["embedding"]["name"], r["config"]["seed"]) for r in records} == {
        (n, s) for n in ("dense", "subspace") for s in range(3)
    }


def test_alike_are_runs_that_do_the_same_steps(tiny):
    first, *same = (
        alike(prepared(tiny, *change))
        for change in (
            [],
            ["seed=1"],
            ["training.teacher=dense"],
            ["training.learning_rate=2e-4"],
            ["embedding.subspaces=2"],
            ["embedding=dense"],
        )
    )
    assert {first} == set(same)
    assert alike(prepared(tiny, "training.batch_size=4")) != first
