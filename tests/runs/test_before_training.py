"""What can be known before training stops a run, a sweep or another verb before it has cost anything."""

import os
import resource
import sys
from pathlib import Path

import pytest

from bench import store
from bench.cli.main import main
from bench.errors import EnvironmentBroken
from bench.runs.execute import run
from bench.settings.compose import compose_config
from bench.sweep.plan import make
from tests.support.commands import run_bench


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.learning_rate=inf", "training.learning_rate (inf) must be a finite number"),
        ("training.weight_decay=nan", "training.weight_decay (nan) must be a finite number"),
        ("training.warmup_fraction=nan", "training.warmup_fraction (nan)"),
        ("training.epochs=inf", "training.epochs (inf)"),
        ("training.max_grad_norm=inf", "training.max_grad_norm (inf)"),
        ("training.teacher_weight=nan", "training.teacher_weight (nan)"),
        ("recovery.learning_rate=inf", "recovery.learning_rate (inf)"),
        ("recovery.table_factor=inf", "recovery.table_factor (inf)"),
        ("embedding.frequency_power=nan", "embedding.frequency_power (nan)"),
        ("assignment.frequency_power=-inf", "assignment.frequency_power (-inf)"),
        ("task.label_range=[0.0,inf]", "task.label_range[1] (inf)"),
        ("launcher.time_limit=nan", "launcher.time_limit (nan)"),
        ("embedding.budget=nan%", "embedding.budget (nan%)"),
        ("training.weight_decay=-0.1", "training.weight_decay (-0.1) must be at least 0"),
        ("seed=-1", "seed (-1) must be at least 0 and at most 4294967295"),
        ("seed=4294967296", "seed (4294967296) must be at least 0 and at most 4294967295"),
        ("recovery.seed=4294967296", "recovery.seed (4294967296)"),
        ("assignment.seed=4294967296", "assignment.seed (4294967296)"),
        ("assignment.seed=-1", "assignment.seed (-1)"),
        ("assignment.frequency_power=3", "assignment.frequency_power (3.0) must be at least 0 and at most 2"),
        ("training.epochs=0", "training.epochs (0.0) must be greater than 0"),
        ("training.teacher_weight=0", "training.teacher_weight (0.0) must be greater than 0 and at most 1"),
        ("launcher.runs_at_once=0", "launcher.runs_at_once (0) must be at least 1"),
        ("embedding.rotation=-1", "embedding.rotation (-1)"),
        ("task.metrics=[acuracy]", "Unknown metric 'acuracy'"),
        ("task.metrics=[pearson]", "task.metrics (pearson) needs numbers"),
        ("task.headline=f1", "task.headline (f1)"),
        ("task.evaluate=[]", "task.evaluate ([]) names no role"),
    ],
)
def test_values_that_no_run_can_use(tiny: list[str], override: str, said: str, capsys) -> None:
    assert main(["run", *tiny, override]) == 2
    assert said in capsys.readouterr().err


def test_limits_that_would_never_be_passed(tiny: list[str], capsys) -> None:
    """NaN is neither above nor below: every comparison with it says that the limit is held."""
    assert main(["gate", *tiny, "+gate.loss={cola:nan}"]) == 2
    assert "gate.loss.cola (nan) must be a finite number" in capsys.readouterr().err


def test_seeds_of_a_sweep(capsys) -> None:
    assert main(["plan", "sweep=smoke", "seed=4294967296"]) == 2
    assert "seed (4294967296)" in capsys.readouterr().err
    assert len(make(["sweep=smoke", "seed=4294967295"]).runs)


@pytest.mark.parametrize(
    ("blocked", "overrides"),
    [
        ("results", []),
        ("cache", []),
        ("results/runs/tiny/lexical_sentiment", []),
        ("results/predictions", []),
        ("results/models", ["keep_weights=true"]),
    ],
)
def test_folders_that_cannot_be_written(
    tiny: list[str], tmp_path: Path, blocked: str, overrides: list[str]
) -> None:
    place = tmp_path / blocked
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file where the folder should be")
    with pytest.raises(EnvironmentBroken, match=f"{place}.* cannot be written"):
        run(compose_config([*tiny, "embedding=dense", *overrides]))
    assert not (tmp_path / "cache" / "tokenised").exists(), "it had begun"


@pytest.mark.parametrize("verb", ["fit", "latency", "perf"])
def test_verbs_that_measure_for_long_know_their_folder_first(verb: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    assert main([verb, f"results_dir={tmp_path}/results"]) == 3
    assert f"results/{verb} cannot be written" in capsys.readouterr().err


def test_metrics_that_cannot_be_computed_here(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    with pytest.raises(EnvironmentBroken, match=r"task\.metrics \(accuracy\) .*sklearn missing"):
        run(compose_config([*tiny, "embedding=dense"]))
    assert not (tmp_path / "cache" / "tokenised").exists(), "it had begun"


def test_a_run_needs_no_home_folder(tiny: list[str]) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    done = run_bench("run", *tiny, "embedding=dense", env=env | {"HOME": "/dev/null"})
    assert done.returncode == 0 and "test accuracy = " in done.stdout, done.stderr


def test_a_model_that_its_last_step_broke_has_no_score(tiny: list[str]) -> None:
    """The loss is finite until the weights are changed, and an argmax of NaN is class 0."""
    record = run(
        compose_config(
            [
                *tiny,
                "embedding=dense",
                "training.learning_rate=1e38",
                "training.warmup_fraction=0",
                "training.max_steps=1",
            ]
        )
    )
    assert record["status"] == "diverged" and "NaN or infinite" in record["error"]["message"]


def test_weights_without_room_cost_no_record(tiny: list[str], tmp_path: Path) -> None:
    """The folder is writable, but the disk fills up with the weights: what was trained and scored is kept."""
    size = 2 * 2**20  # more than the check of a folder writes, less than the weights of 30,522 x 24 floats
    done = run_bench(
        "run",
        *tiny,
        "embedding=dense",
        "keep_weights=true",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert done.returncode == 0 and "the weights are not kept" in done.stderr
    (record,) = store.read_all(tmp_path / "results")[0]
    assert record["status"] == "ok" and record["metrics"]
    assert not list((tmp_path / "results" / "models").rglob("*.safetensors"))
