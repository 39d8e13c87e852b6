"""Runs that differ in the seed only: trained as one model, recorded as each alone."""

from pathlib import Path

import numpy as np

from bench import store
from bench.compose import compose_config
from bench.identity import prepare
from bench.run import execute
from bench.sweep.plan import alike, make
from bench.sweep.select import Selection
from bench.sweep.worker import Settings, work
from bench.together import execute_together


def prepared(overrides, *others):
    return prepare(compose_config([*overrides, "embedding.subspaces=4", "assignment=sequential", *others]))


def test_each_record_is_that_of_the_run_alone(tiny, steady_model, tmp_path):
    steady = [*tiny, f"model.path={steady_model}"]
    alone = [execute(prepared(steady, f"seed={seed}", f"results_dir={tmp_path}/alone")) for seed in (0, 5)]
    together = execute_together([prepared(steady, f"seed={seed}") for seed in (0, 5)])
    found, problems = store.read_all(Path(prepared(steady).config.results_dir))
    assert not problems and sorted(r["run_id"] for r in found) == sorted(r["run_id"] for r in together)
    for one, other in zip(together, alone, strict=True):
        for part in ("run_id", "name", "status", "config", "task", "size", "fit", "metrics", "headline"):
            assert one[part] == other[part], part
        assert (one["training"]["seeds_at_once"], other["training"]["seeds_at_once"]) == (2, 1)
        np.testing.assert_allclose(one["training"]["curve"], other["training"]["curve"], atol=2e-5)
    assert together[0]["training"]["curve"] != together[1]["training"]["curve"]


def test_a_seed_that_diverges_is_recorded_after_how_many_steps(tiny):
    runs = [prepared(tiny, f"seed={seed}", "training.learning_rate=1e30", "training.max_grad_norm=1e30", "training.warmup_fraction=0",
                     "training.max_steps=30") for seed in (0, 1)]
    for record in execute_together(runs):
        assert record["status"] == "diverged"
        assert "of 30 steps" in record["error"]["message"]


def test_seeds_that_cannot_train_at_once_train_one_after_the_other(tiny, monkeypatch, caplog):
    from bench.embeddings.subspace import SubspaceEmbedding
    from bench.training import seeds

    monkeypatch.delitem(seeds.LAYERS, SubspaceEmbedding)
    records = execute_together([prepared(tiny, f"seed={seed}") for seed in (0, 1)])
    assert [(record["status"], record["training"]["seeds_at_once"]) for record in records] == [("ok", 1)] * 2
    assert "SubspaceEmbedding" in caplog.text and "one after the other" in caplog.text


def test_a_sweep_trains_seeds_together_and_what_differs_in_more_apart(tiny):
    plan = make([*(o for o in tiny if not o.startswith("training.max_steps")), "sweep=smoke", "launcher.seeds_at_once=2"], Selection(seeds=3))
    said = []
    settings = Settings(threads=1, gpu=None, time_limit=None, seeds_at_once=plan.config.launcher.seeds_at_once)
    assert work(plan.todo(), settings, lambda *words: said.append(words[0]))
    assert said == ["begin", "begin", "end", "end", "begin", "end"] * 2
    records, _ = store.read_all(Path(plan.config.results_dir))
    found = {(r["config"]["embedding"]["name"], r["config"]["seed"]): r["training"]["seeds_at_once"] for r in records}
    assert found == {(name, seed): at_once for name in ("dense", "subspace") for seed, at_once in ((0, 2), (1, 2), (2, 1))}


def test_runs_with_teachers_of_their_own_train_alone(tiny):
    assert alike(prepared(tiny, "training.teacher=dense")) is None
    first, other, another = (alike(prepared(tiny, *change)) for change in ([], ["seed=1"], ["training.learning_rate=2e-4"]))
    assert first == other != another
