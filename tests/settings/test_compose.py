"""Configuration: overrides in, typed values out; whatever is wrong is named with its key and what to do."""

import shutil
import subprocess
import sys

import pytest

from bench import store
from bench.errors import ConfigError
from bench.runs.identity import prepare
from bench.settings import compose
from bench.settings.compose import CONF, choices, compose_config
from bench.sweep.plan import make


def prepared(*overrides: str):
    return prepare(compose_config(["task=lexical_sentiment", *overrides]))


@pytest.mark.parametrize("arguments", [["plan", "sweep=broken"], ["run", "sweep=broken", "--cfg", "job"]])
def test_a_file_that_is_no_yaml_is_named_with_its_line(arguments, tmp_path):
    copy = tmp_path / "copy"
    for folder in ("bench", "conf"):
        shutil.copytree(CONF.parent / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "conf/sweep/broken.yaml").write_text("name: broken\npurpose: [bad\n")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=copy,
        env={"PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "conf/sweep/broken.yaml, line 3, column 1 is not valid YAML" in done.stderr


@pytest.mark.parametrize(
    "group", ["model", "task", "embedding", "assignment", "recovery", "training", "price", "gate"]
)
def test_every_shipped_choice_composes_under_its_own_name(group):
    assert choices(group)
    for name in choices(group):
        composed = getattr(compose_config([f"{group}={name}"]), group)
        assert getattr(composed, "name", name) == name, f"conf/{group}/{name}.yaml"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["assignment=contextal"],
            ["Unknown assignment 'contextal'", "Did you mean 'contextual'", "sequential"],
        ),
        (["task=mrcp"], ["Unknown task 'mrcp'", "Did you mean 'mrpc'"]),
        (
            ["embedding.subspces=8"],
            ["Unknown key 'embedding.subspces'", "Did you mean 'embedding.subspaces'"],
        ),
        (["embedding.subspaces=many"], ["embedding.subspaces (many)", "Integer"]),
        (
            ["embedding=low_rank", "embedding.rank=3", "embedding.subspaces=8", "embedding.bits=4"],
            ["embedding.subspaces (8)", "not used by embedding=low_rank", "only by residual, subspace"],
        ),
        (
            ["assignment=sequential", "assignment.vectors=both"],
            ["assignment.vectors (both)", "assignment=sequential", "contextual, pq, residual"],
        ),
        (["recovery.steps=9"], ["recovery.steps (9)", "recovery=none", "distil, masked_lm"]),
        (["launcher.account=me"], ["launcher.account (me)", "launcher=local", "slurm"]),
        (["?recovery.stpes=9"], ["Unknown key 'recovery.stpes'", "Did you mean 'recovery.steps'"]),
        (["cost=example"], ["cost (example) is called price now"]),
        (["cost.replicas=3"], ["cost.replicas (3) is called price.replicas now"]),
        (["embedding.rotation=0"], ["embedding.rotation (0) is no key any more"]),
        (["assignment.layer=2"], ["assignment.layer (2) is no key any more", "middle layer"]),
        (["?recovery.frozen_steps=2"], ["recovery.frozen_steps (2) is no key any more"]),
        (["task.splts.train=x"], ["Unknown key", "task.splits"]),
        (["seed"], ["seed", "seed=<value>"]),
    ],
)
def test_a_wrong_override_says_what_was_meant(overrides, words):
    with pytest.raises(ConfigError) as error:
        compose_config(overrides)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["embedding.subspaces=5"], ["embedding.subspaces (5)", "384", "4", "6", "embedding.sub_dim"]),
        (["embedding.compose=product"], ["embedding.compose 'product'", "concat"]),
        (["embedding.rows=30"], ["embedding.rows (30)", "30,522", "embedding.rows=32"]),
        (["training.batch_size=0"], ["training.batch_size (0)", "greater than 0"]),
        (["training.dtype=fp8"], ["training.dtype 'fp8'", "bf16"]),
        (
            ["embedding.code_rows=900", "assignment=sequential"],
            ["embedding.code_rows (900)", "assignment=pq", "embedding.code_rows=null"],
        ),
        (["seed=-1"], ["seed (-1)"]),
        (["device=gpu"], ["device 'gpu'"]),
        (["body=int4"], ["Unknown body 'int4'", "Did you mean 'int8'"]),
        (["model.name=../x"], ["model.name (../x)"]),
        (["task.headline=f2"], ["task.headline (f2)", "accuracy"]),
        (["task.evaluate=[nothing]"], ["'nothing'", "task.splits"]),
    ],
)
def test_a_contradiction_is_found_before_anything_is_loaded(overrides, words):
    with pytest.raises(ConfigError) as error:
        prepared(*overrides)
    for word in words:
        assert word in str(error.value)


def test_what_a_method_does_not_use_is_not_part_of_its_identity():
    dense = prepared("embedding=dense")
    assert (
        dense.run_id
        == prepared(
            "embedding=dense", "assignment=random", "?embedding.subspaces=4", "?embedding.rows=9"
        ).run_id
    )
    assert (
        dense.run_id
        == prepared("embedding=dense", "results_dir=elsewhere", "workers=3", "cache_dir=x").run_id
    )
    assert "body" not in dense.canonical and dense.run_id == prepared("embedding=dense", "body=fp32").run_id
    assert dense.run_id == prepared("embedding=dense", "training.table_factor=1").run_id
    assert dense.run_id == prepared("embedding=dense", "training.engine=auto").run_id
    faster = prepared("embedding=quantised", "training.table_factor=10", "training.teacher=dense")
    assert faster.run_id == prepared("embedding=quantised", "training.teacher=dense").run_id
    assert faster.config.training.table_factor == 1  # its teacher's, too, as they share a recipe
    sequential = prepared("assignment=sequential")
    assert sequential.run_id == prepared("assignment=sequential", "embedding.rows=32").run_id


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "training.learning_rate=1e-4",
        "training.table_factor=10",
        "training.engine=compile",
        "embedding.init=random",
        "task.task_version=9",
        "training.max_train_examples=10",
        "embedding.subspaces=4",
        "assignment=random",
        "body=bf16",
        "body=int8",
    ],
)
def test_what_changes_the_result_changes_the_id(override):
    assert prepared("assignment=sequential").run_id != prepared("assignment=sequential", override).run_id


def test_a_key_with_a_question_mark_is_set_where_it_is_used():
    both = ["?embedding.rank=5", "?recovery.steps=9", "?launcher.account=me"]
    used = compose_config(["embedding=low_rank", "recovery=distil", "launcher=slurm", *both])
    assert (used.embedding.rank, used.recovery.steps, used.launcher.account) == (5, 9, "me")
    assert compose_config(["embedding=mean", *both]) == compose_config(["embedding=mean"])


def test_composing_does_not_import_torch():
    code = "import sys; from bench.settings.compose import compose_config; compose_config(['embedding=low_rank']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CONF.parent).returncode == 0


def test_committed_records_keep_their_ids():
    folder = CONF.parent / "results" / "example" / "demo"
    records, problems = store.read_all(folder)
    made = make(["sweep=demo", f"results_dir={folder}"])
    assert records and not problems
    assert {run.run_id for run in made.runs} == {record["run_id"] for record in records}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (
            ["embedding=subspace", "assignment=pq", "embedding.budget=2.5%"],
            ["embedding=subspace", "assignment=pq", "embedding.budget=2.6%"],
            False,
        ),
        (["embedding=low_rank", "embedding.budget=1%"], ["embedding=low_rank", "embedding.rank=3"], True),
        (
            ["embedding=low_rank", "embedding.rank=3"],
            ["embedding=low_rank", "embedding.rank=3", "embedding.frequency_power=0.5"],
            False,
        ),
        (
            ["embedding=low_rank", "embedding.rank=3"],
            ["embedding=low_rank", "embedding.rank=3", "assignment=pq", "embedding.keep_dense=3"],
            False,
        ),
        (
            ["assignment=pq"],
            [
                "assignment=pq",
                "assignment.vectors=static",
                "assignment.corpus=README.md",
            ],
            True,
        ),
        (["assignment=pq"], ["assignment=pq", "assignment.vectors=both"], False),
        (["assignment=pq"], ["assignment=pq", "assignment.frequency_power=0.5"], False),
        (
            ["assignment=pq", "assignment.frequency_power=0.5"],
            ["assignment=pq", "assignment.frequency_power=0.5", "assignment.corpus=README.md"],
            False,
        ),
        (["assignment=pq"], ["assignment=pq", "embedding.keep_dense=9"], False),
        (
            ["assignment=pq", "embedding.keep_dense=9"],
            ["assignment=pq", "embedding.keep_dense=9", "assignment.corpus=README.md"],
            False,
        ),
        (["assignment=pq"], ["assignment=pq", "embedding.code_rows=null"], True),
        (["assignment=pq"], ["assignment=pq", "embedding.code_rows=900"], False),
        (
            ["assignment=pq", "embedding.code_rows=900"],
            ["assignment=pq", "embedding.code_rows=900", "assignment.corpus=README.md"],
            False,
        ),
        (
            ["embedding=codebook", "embedding.rows=9"],
            [
                "embedding=codebook",
                "embedding.rows=9",
                "embedding.keep_dense=0",
                "embedding.table_dtype=fp32",
            ],
            True,
        ),
        (
            ["embedding=codebook", "embedding.rows=9"],
            ["embedding=codebook", "embedding.rows=9", "embedding.table_dtype=int8"],
            False,
        ),
        (
            ["embedding=residual", "embedding.rows=9"],
            [
                "embedding=residual",
                "embedding.rows=9",
                "embedding.keep_dense=0",
                "embedding.table_dtype=fp32",
            ],
            True,
        ),
        (
            ["embedding=residual", "embedding.rows=9"],
            ["embedding=residual", "embedding.rows=9", "embedding.table_dtype=int8"],
            False,
        ),
        (
            ["embedding=hashing", "embedding.rows=9"],
            ["embedding=hashing", "embedding.rows=9", "embedding.keep_dense=0", "embedding.table_dtype=fp32"],
            True,
        ),
        (
            ["embedding=hashing", "embedding.rows=9"],
            ["embedding=hashing", "embedding.rows=9", "embedding.table_dtype=int8"],
            False,
        ),
        (["embedding=residual", "assignment=pq"], ["embedding=residual", "assignment=random"], True),
    ],
)
def test_only_settings_that_are_used_are_part_of_the_identity(first, second, same):
    assert (prepared(*first).run_id == prepared(*second).run_id) == same


def test_configurations_composed_one_after_another_do_not_touch_one_another():
    first = compose_config(["perf.backbones=[minilm]", "task=mrpc", "+gate.loss.mrpc=1"])
    second = compose_config(["perf.backbones=[tiny]", "task=mrpc", "task.splits.train=validation"])
    assert (first.perf.backbones, first.task.splits["train"], first.gate.loss) == (
        ["minilm"],
        "train",
        {"mrpc": 1.0},
    )
    assert (second.perf.backbones, second.task.splits["train"], second.gate.loss) == (
        ["tiny"],
        "validation",
        {},
    )
    assert compose_config(["perf.backbones=[minilm]"]).perf.backbones == ["minilm"]


def test_files_that_write_into_a_task_or_beside_it_hold(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf/tuned/odd.yaml").write_text("# @package _global_\ntask: {headline: f1}\n")
    task = (CONF / "task/mrpc.yaml").read_text()
    beside = "# @package _global_\ntraining: {max_steps: 7}\ntask:\n"
    (tmp_path / "conf/task/beside.yaml").write_text(
        beside + "".join(f"  {line}\n" for line in task.splitlines())
    )
    monkeypatch.setattr(compose, "CONF", tmp_path / "conf")
    for remembered in (compose._of_groups, compose._composed):
        remembered.cache_clear()
    try:
        into = compose_config(["task=mrpc", "tuned=odd", "embedding=dense"])
        written = compose_config(["task=beside", "embedding=dense"])
    finally:
        for remembered in (compose._of_groups, compose._composed):
            remembered.cache_clear()
    assert (into.task.name, into.task.headline, into.chosen["tuned"]) == ("mrpc", "f1", "odd")
    assert (written.task.headline, written.training.max_steps) == ("accuracy", 7)
