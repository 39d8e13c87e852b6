"""`bench choose`: the best trial of each kind by a plain computation, its file as a configuration, and what is refused."""

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from bench import store
from bench.errors import BenchError, ConfigError
from bench.sweep.choose import choose
from bench.sweep.plan import Plan, Sweep, against_store, check_held_out, expand, load
from bench.tasks.specs import read_task
from tests.support.commands import ROOT, call_bench

SAMPLE = json.loads(next((ROOT / "results/example/demo/runs").rglob("*.json")).read_text())
HELD_OUT = ["task.splits.train=train[:90%]", "task.splits.test=train[90%:]", "task.evaluate=[test]"]
KINDS = [["embedding=dense"], ["embedding=hashing", "embedding.rows=99"], ["embedding=quantised"]]
TASKS = ["lexical_sentiment", "lexical_entailment"]
TRIALS = [("1e-4", "3", "1", "fitted"), ("3e-5", "6", "10", "random"), ("2e-4", "10", "3", "fitted")]


def trial(rate: str, epochs: str, factor: str, init: str) -> list[str]:
    recipe = {"learning_rate": rate, "epochs": epochs, "table_factor": factor}
    return [*(f"training.{key}={value}" for key, value in recipe.items()), f"?embedding.init={init}"]


def planned(folder: Path, scores: np.ndarray | None = None, fixed: list[str] = HELD_OUT, kinds=KINDS) -> Plan:
    """Return the plan of all trials, with records of the scores (trials, kinds, tasks); NaN stands for a failed run."""
    parts = [{"fixed": trial(*each), "points": kinds, "grid": {"task": TASKS}} for each in TRIALS]
    sweep = Sweep("t", "p", fixed, parts=parts)
    runs = expand(sweep, [f"results_dir={folder}"])
    plan = against_store(sweep, runs)
    for run, score in zip(plan.runs, [] if scores is None else scores.ravel(), strict=False):
        failed = {
            "status": "failed",
            "error": {"type": "E", "message": "", "traceback": ""},
            "headline": None,
        }
        ok = {"headline": SAMPLE["headline"] | {"value": score}}
        store.write(
            SAMPLE | {"run_id": run.run_id, "name": run.name} | (failed if np.isnan(score) else ok), folder
        )
    return against_store(sweep, runs)


def test_the_best_mean_over_tasks_decides_and_a_trial_that_failed_is_out(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((3, 3, 2))
    scores[2, 0] = 2.0, np.nan  # the best of the dense ones but for its second task
    scores[1, 2] = scores[0, 2]  # of equals the first
    scores[2, 2] = 0
    plan = planned(tmp_path, scores)
    found = choose(plan, tmp_path / "tuned")
    expected = scores.mean(axis=2)
    best = dict(zip(["dense", "hashing", "int8"], np.nanargmax(expected, axis=0), strict=True))
    assert best["dense"] != 2 and best["int8"] == 0 and len(found) == 9

    for number, (kind, chosen) in enumerate(best.items()):
        rate, epochs, factor, init = TRIALS[chosen]
        text = (tmp_path / f"tuned/{kind}.yaml").read_text()
        settings = OmegaConf.to_object(OmegaConf.create(text))
        assert settings["training"] == {
            "learning_rate": float(rate),
            "epochs": float(epochs),
            "table_factor": 1.0 if kind == "int8" else float(factor),  # its table is not trained
        }
        assert settings.get("embedding") == ({"init": init} if kind == "hashing" else None)
        row = found[found.kind == kind].iloc[chosen]
        assert row.chosen and row["mean"] == pytest.approx(expected[chosen, number])
        assert (
            f"of 3 trials of sweep=t, by the mean of lexical_entailment, lexical_sentiment ({row['mean']:.4f})"
            in text
        )

        # The digest is that of the kind's records.
        paths = sorted(
            plan.path(run) for run in plan.runs if run.config.embedding.name in (kind, "quantised")
        )
        if kind == "int8":
            joined = "\n".join(path.read_text() for path in paths)
            assert f"from 6 records, SHA-256 {hashlib.sha256(joined.encode()).hexdigest()}" in text


def test_a_choice_is_a_configuration_of_any_run_of_its_kind(tmp_path: Path) -> None:
    choose(planned(tmp_path / "r", np.arange(18.0).reshape(3, 3, 2)), tmp_path / "conf" / "tuned")
    # The shipped files of this name come first.
    (tmp_path / "conf/tuned/hashing.yaml").rename(tmp_path / "conf/tuned/mine.yaml")
    given = ["-cd", str(tmp_path / "conf"), "--cfg", "job", "embedding=hashing", "embedding.rows=9"]
    shown = call_bench("run", *given, "tuned=mine", "training.epochs=4")
    assert shown.returncode == 0, shown.stderr
    config = OmegaConf.create(shown.stdout)
    assert (config["embedding"]["init"], config["embedding"]["rows"]) == ("fitted", 9)
    assert [config["training"][key] for key in ("learning_rate", "table_factor", "epochs")] == [2e-4, 3, 4]


def test_nothing_is_chosen_on_a_reported_split(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.splits\.test \(test\) of lexical_sentiment is what a task reports"
    ):
        choose(planned(tmp_path, np.zeros((3, 3, 2)), fixed=[]), tmp_path)


@pytest.mark.parametrize(
    ("task", "spec", "held_out"),
    [
        ("mrpc", "train[90%:]", True),
        ("mrpc", "validation", False),
        ("mrpc", "train[90%:] + validation[:50%]", False),
        ("xnli", "validation", True),
        ("lexical_sentiment", "lexical_sentiment:test", False),
        ("ax", "mnli:train[90%:]", True),
        ("ax", "mnli:train[90%:]+validation_matched[:5]", False),
        ("ax", "test", False),
    ],
)
def test_a_reported_split_is_known_in_any_spelling(task: str, spec: str, held_out: bool) -> None:
    config = read_task(task)
    config.evaluate, config.splits = ["chosen"], config.splits | {"chosen": spec}
    with nullcontext() if held_out else pytest.raises(ConfigError, match="nothing is chosen on that"):
        check_held_out(config)


def test_every_run_must_have_a_record_and_every_kind_as_many_trials(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"18 of 18 runs of the sweep 't' have no record"):
        choose(planned(tmp_path / "none"), tmp_path)
    with pytest.raises(BenchError, match="No trial of hashing has a score"):
        scores = np.zeros((3, 3, 2))
        scores[:, 1, 0] = np.nan
        choose(planned(tmp_path / "failed", scores), tmp_path)
    more = [["embedding=mean"], [*KINDS[1], "training.epochs=3"]]
    with pytest.raises(ConfigError, match=r"number of trials \(mean 3, hashing 2\)"):
        plan = planned(tmp_path / "more", np.zeros((3, 2, 2)), kinds=more)
        kept = [run for run in plan.runs if run.config.training.learning_rate < 2e-4 or "mean" in run.name]
        plan.runs[:] = kept
        choose(plan, tmp_path)


def test_every_kind_of_the_shipped_sweep_has_twelve_trials_and_a_choice() -> None:
    sweep, _ = load(["sweep=tune"])
    assert len(sweep.parts) == 12 and len({tuple(part["fixed"]) for part in sweep.parts}) == 12
    assert (
        len({tuple(part["fixed"][:2]) for part in sweep.parts}) == 12
    )  # rate and epochs alone tell them apart
    reference = load(["sweep=reference"])[0].cut()
    tuned = {word for part in reference for point in part.points for word in point if "tuned=" in word}
    assert tuned == {f"tuned={path.stem}" for path in (ROOT / "conf/tuned").glob("*.yaml")}
    assert len(tuned) == len(sweep.cut()[0].points) == 14
