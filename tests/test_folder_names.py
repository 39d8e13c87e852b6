"""Folders and files with the names that people give them: read, written and published as they are."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bench
from bench.cli.main import main
from bench.cli.verbs import parse
from bench.runs.identity import prepare
from bench.runs.provenance import without_folders
from bench.settings.compose import compose_config
from bench.sweep.plan import Declared
from bench.sweep.select import Selection

NAMES = [
    "my data",
    "データ",
    "Bücher",
    "a=b",
    "x,y",
    "50%",
    "run[3]",
    "R&D",
    "it's",
    "a$b",
    "b~",
    "#1",
    "null and void",
]
ALL = 'Bücher & データ, 50% (a=b) [3] it\'s "so" $x ~#'


@pytest.mark.parametrize("name", NAMES)
def test_data_is_read_from_any_folder(name, tmp_path, capsys):
    folder = tmp_path / name / "glue" / "rte"
    folder.mkdir(parents=True)
    pq.write_table(
        pa.table({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}),
        folder / "train.parquet",
    )
    assert main(["tasks", f"data.root={tmp_path / name}"]) == 0
    assert re.search(r"rte +parquet +train +2 ", capsys.readouterr().out)


def test_a_run_writes_and_an_export_reads_folders_of_any_name(tiny, tiny_model, tmp_path, capsys):
    place = tmp_path / ALL
    shutil.copytree(tiny_model, place / "model, of ours")
    (place / "notes, 1.txt").write_text("a film that is good\n")
    folders = [
        f"results_dir={place}/results",
        f"cache_dir={place}/cache",
        f"model.path={place}/model, of ours",
    ]
    overrides = [*tiny, *folders, "embedding=subspace", "assignment=sequential", "training.max_steps=2"]
    assert main(["run", *overrides, "keep_weights=true"]) == 0
    (path,) = place.rglob("runs/**/*.json")
    record = json.loads(path.read_text())
    assert record["run_id"] == prepare(compose_config(overrides)).run_id
    assert main(["export", record["run_id"], *overrides, f"--to={place}/out"]) == 0
    assert bench.load_compressed(place / "out").config.num_labels == 2
    assert main(["coverage", f"--corpus={place}/notes, 1.txt", *overrides]) == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [ALL], "nothing was written beside it"
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--corpus", "-a=b, c"], ["--corpus=-a=b, c"]])
def test_a_flag_takes_any_value(words):
    assert parse("coverage", ["task=mrpc", *words, "seed=1"]) == (
        ["task=mrpc", "seed=1"],
        {"corpus": "-a=b, c"},
    )


def test_only_finds_a_value_with_a_comma(tiny):
    names = ("runs,2", "runs", "2")
    runs = [Declared(prepare(compose_config([*tiny, f"results_dir={name}"])), [], 0) for name in names]
    assert Selection(only=("results_dir=runs,2",)).choose(runs[:1]) == runs[:1]
    assert Selection(only=("results_dir=runs,2",)).choose(runs) == runs, "a list of values as before"


@pytest.mark.parametrize(
    ("words", "published"),
    [
        (["run", "data.root=/home/Jane Doe/my data"], "run 'data.root=.../my data'"),
        (["run", "data.root=/home/Jane's/x"], "run data.root=.../x"),
        (["run", "model.path=/home/jane/models/m", "seed=1"], "run model.path=.../m seed=1"),
        (["coverage", "--corpus", "/home/Jane Doe/a b.txt"], "coverage --corpus '.../a b.txt'"),
        (["run", "task.evaluate=[test]"], "run 'task.evaluate=[test]'"),
        (["run", "data.root=data/x"], "run data.root=data/x"),
    ],
)
def test_a_published_command_names_no_person_and_can_be_pasted(words, published):
    assert without_folders(words) == published
