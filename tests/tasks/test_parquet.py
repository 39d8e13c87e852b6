"""Parquet files as people have them: shards, clones of the hub's repository, stray files; and advice that works."""

import dataclasses
import hashlib
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli.main import main
from bench.errors import DataError
from bench.settings.compose import compose_config
from bench.settings.schema import DataConfig, TaskConfig
from bench.tasks.data import data_identity, load_split
from bench.tasks.inventory import inventory
from bench.tasks.specs import read_task

ROWS = {"sentence1": list("abcdef"), "sentence2": list("ghijkl"), "label": [0, 1, 0, 1, 0, 1]}
RTE = dataclasses.replace(read_task("rte"), official_rows={})


def write(path: Path, columns: dict[str, Any] | pa.Table = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
    return path


def shards(folder: Path, split: str, cuts: list[list[int]]) -> list[Path]:
    """Write the rows of ROWS, cut into so many files, as the hub names them."""
    return [
        write(
            folder / f"{split}-{number:05d}-of-{len(cuts):05d}.parquet",
            {name: [values[row] for row in rows] for name, values in ROWS.items()},
        )
        for number, rows in enumerate(cuts)
    ]


def loaded(root: Path, role: str = "train", task: TaskConfig = RTE) -> dict[str, Any]:
    return load_split(task, DataConfig(root=str(root)), role).table.to_pydict()


@pytest.mark.parametrize("folder", ["glue/rte", "rte"])
@pytest.mark.parametrize("cuts", [[[0, 1, 2, 3, 4, 5]], [[0, 1], [2], [3, 4, 5]]])
def test_shards_are_one_split_with_or_without_the_suites_folder(
    tmp_path: Path, folder: str, cuts: list[list[int]]
) -> None:
    shards(tmp_path / folder, "train", cuts)
    assert loaded(tmp_path) == ROWS
    table = inventory(DataConfig(root=str(tmp_path)), ["rte"]).set_index("split")
    assert table.rows["train"] == "6"


def test_only_bytes_and_shards_make_other_data(tmp_path: Path) -> None:
    """The layout does not: the only shard of a split is the plain file under another name."""
    plain = write(tmp_path / "plain/glue/rte/train.parquet")
    for place in ("hub/glue/rte", "clone/rte"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(plain, tmp_path / place / "train-00000-of-00001.parquet")
    shards(tmp_path / "cut/glue/rte", "train", [[0, 1], [2, 3, 4, 5]])
    shards(tmp_path / "cut_clone/rte", "train", [[0, 1], [2, 3, 4, 5]])
    plain_id, hub, clone, cut, cut_clone = (
        data_identity(RTE, DataConfig(root=str(tmp_path / name)), ["train"])
        for name in ("plain", "hub", "clone", "cut", "cut_clone")
    )
    line = f"glue/rte/train.parquet:{hashlib.sha256(plain.read_bytes()).hexdigest()}"
    assert plain_id == hub == clone == hashlib.sha256(line.encode()).hexdigest(), "records hold it"
    assert cut == cut_clone != plain_id


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: (folder / "train-00001-of-00003.parquet").unlink(),
            r"train-00001-of-00003\.parquet is missing, and 2 of the 3 shards of train are there",
        ),
        (
            lambda folder: shards(folder, "train", [[0, 1, 2], [3, 4, 5]]),
            r"train in 2 and in 3 shards: delete",
        ),
        (
            lambda folder: write(folder / "train-00002-of-00003.parquet", {"sentence1": [1], "label": ["x"]}),
            "shards beside .* do not have the same columns",
        ),
        (
            lambda folder: (folder / "train-00001-of-00003.parquet").write_bytes(
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
            ),
            "pointer of Git LFS.*git lfs pull",
        ),
    ],
)
def test_shards_that_are_no_whole_set_are_refused(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = tmp_path / "glue/rte"
    shards(folder, "train", [[0, 1], [2], [3, 4, 5]])
    spoil(folder)
    with pytest.raises(DataError, match=said):
        loaded(tmp_path)
    note = inventory(DataConfig(root=str(tmp_path)), ["rte"]).set_index("split").note["train"]
    assert re.search(said, note)


def test_a_whole_set_is_read_beside_the_rest_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "glue/rte"
    for path in shards(folder, "train", [[0], [1], [2]])[1:]:
        path.unlink()
    shards(folder, "train", [[0, 1, 2], [3, 4, 5]])
    assert loaded(tmp_path) == ROWS


def test_stray_files_neither_stop_an_inventory_nor_are_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "glue/rte"
    write(folder / "train.parquet")
    for name in (
        "._train.parquet",
        "train (1).parquet",
        "train copy.parquet",
        ".DS_Store",
        "train.parquet.crdownload",
    ):
        (folder / name).write_bytes(b"Mac OS X")
    (folder / "dev.parquet").mkdir()
    (folder / "gone.parquet").symlink_to(folder / "nowhere")
    (tmp_path / "RTE").mkdir()  # the official release's folder, with nothing of it
    (tmp_path / "RTE/._train.tsv").write_bytes(b"Mac OS X")
    (tmp_path / "glue/cola").write_bytes(b"a file where a folder should be")
    assert loaded(tmp_path) == ROWS
    assert main(["tasks", f"data.root={tmp_path}"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if re.match(r" *rte .* train ", line)]
    assert line.split()[:4] == ["rte", "parquet", "train", "6"]
    assert set(inventory(DataConfig(root=str(tmp_path)), ["rte"]).split) == {"train", "validation", "test"}
    with pytest.raises(DataError, match="dev.parquet is no file that can be read .* the data have train;"):
        loaded(tmp_path, task=dataclasses.replace(RTE, splits={"train": "dev"}))


def test_a_root_that_is_no_folder_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "data.root=/no/such/folder"]) == 2
    assert "/no/such/folder" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["xnli/all_languages", "all_languages"])
def test_all_languages_of_xnli_are_read_from_their_nested_columns(tmp_path: Path, folder: str) -> None:
    spoken, premises = ["en", "sw"], [{"en": f"p{n}", "sw": f"q{n}"} for n in range(3)]
    hypotheses = [{"language": spoken, "translation": [f"h{n}", f"i{n}"]} for n in range(3)]
    for part, rows in enumerate([[0, 1], [2]]):
        columns = {"premise": premises, "hypothesis": hypotheses, "label": [0, 1, 2]}
        write(
            tmp_path / folder / f"test-{part:05d}-of-00002.parquet",
            {name: [values[row] for row in rows] for name, values in columns.items()},
        )
    data = DataConfig(root=str(tmp_path))
    task = dataclasses.replace(read_task("xnli"), official_rows={})
    for language, first, second in (("en", "p", "h"), ("sw", "q", "i")):
        assert load_split(task, data, "test", language).table.to_pydict() == {
            "premise": [f"{first}{n}" for n in range(3)],
            "hypothesis": [f"{second}{n}" for n in range(3)],
            "label": [0, 1, 2],
        }
    with pytest.raises(DataError, match="does not hold one text in 'de'"):
        load_split(task, data, "test", "de")
    write(tmp_path / "en/test-00000-of-00001.parquet", {"premise": ["x"], "hypothesis": ["y"], "label": [2]})
    own = {"premise": ["x"], "hypothesis": ["y"], "label": [2]}
    assert load_split(task, data, "test", "en").table.to_pydict() == own, "a language's own files come first"


def advised(message: str) -> list[str]:
    """Return the settings that a message advises, after what is there, as a shell reads them."""
    message = message.partition("the data have ")[2]
    quoted = re.findall(r"'[\w.]+=[^']+'", message)
    plain = re.findall(r"(?<!['\w.])(?:task|data)\.[\w.]+=[\w:.]*\w", message)
    return [shlex.split(setting)[0] for setting in [*quoted, *plain]]


@pytest.mark.parametrize(
    ("name", "there", "asked"),
    [
        ("rte", {"glue/rte": ["train_subset", "test"]}, []),
        ("rte", {"glue/rte": ["train", "test"]}, []),
        ("rte", {"rte": ["train-00000-of-00001"]}, []),
        (
            "xnli",
            {"glue/mnli": ["train_subset"], "xnli/en": ["test", "train"]},
            ["task.evaluate=[validation]"],
        ),
        (
            "xnli",
            {"glue/mnli": ["train"], "xnli/en": ["test"]},
            ["task.splits.test=tset", "task.languages=[en]"],
        ),
    ],
)
def test_what_a_message_advises_is_not_refused(
    tmp_path: Path, name: str, there: dict[str, list[str]], asked: list[str]
) -> None:
    """Follow the advice until nothing is left to be advised: the data are then read."""
    columns = [*read_task(name).columns, "label"]
    for folder, splits in there.items():
        for split in splits:
            write(
                tmp_path / folder / f"{split}.parquet",
                {c: [0, 1] * 20 if c == "label" else ["x"] * 40 for c in columns},
            )
    followed = [f"task={name}", f"data.root={tmp_path}", *asked]
    for _ in range(4):
        config = compose_config(followed)
        try:
            for role in ("train", *config.task.evaluate):
                load_split(config.task, config.data, role)
        except DataError as error:
            settings = advised(str(error))
            assert settings, error
            followed += settings
        else:
            break
    else:
        raise AssertionError(followed)


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_test_set_is_offered_for_nothing_but_tests(tmp_path: Path, role: str) -> None:
    """GLUE hides its labels: whoever follows such advice is refused."""
    write(tmp_path / "glue/rte/test.parquet", ROWS | {"label": [-1] * 6})
    with pytest.raises(DataError, match=f"the data have test; get the {role} split too") as error:
        loaded(tmp_path, role)
    assert not advised(str(error.value))
