"""A file of conf/ with a mistake is named with the key, the value and what would fit, whatever reads it."""

import re
import shutil
from pathlib import Path

import pytest

from bench.errors import ConfigError
from bench.settings import compose
from bench.settings.compose import CONF, compose_config
from bench.tasks import specs

MISTAKES = [
    ("task", "nmae: {name}", r"conf/task/{name}.yaml: Unknown key 'nmae'. Did you mean 'name'\? Available: average, .*"),
    ("task", "columns: text", r"conf/task/{name}.yaml: columns \(text\) has the wrong type: .* list\[str\]."),
    ("task", "official_rows: {{train: many}}", r"conf/task/{name}.yaml: official_rows .* dict\[str, int\]."),
    ("task", "name: {name}", "conf/task/{name}.yaml: suite is missing: add `suite: <value of type str>`."),
    ("task", "", "conf/task/{name}.yaml: name is missing: .*"),
    ("task", "[name, suite]", "conf/task/{name}.yaml holds no keys: .* `name: {name}`."),
    ("model", "name: x\nwidht: 8", "conf/model/{name}.yaml: Unknown key 'widht'. Did you mean 'width'.*"),
    ("model", "name: x\nwidth: wide", r"conf/model/{name}.yaml: width \(wide\) has the wrong type: .* int \| None."),
]  # fmt: skip


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of conf/ that everything reads."""
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr(compose, "CONF", tmp_path / "conf")
    monkeypatch.setattr(specs, "TASK_FILES", tmp_path / "conf/task")
    return tmp_path / "conf"


@pytest.mark.parametrize(("group", "text", "message"), MISTAKES)
def test_a_mistake_in_a_file_is_named_with_its_key(conf: Path, group: str, text: str, message: str) -> None:
    name = conf.parent.name  # a new one each time, as configurations are composed once in a process
    (conf / group / f"{name}.yaml").write_text(text.format(name=name) + "\n")
    readers = [lambda: compose_config([f"{group}={name}"])]
    readers += [lambda: specs.read_task(name)] if group == "task" else []
    for read in readers:
        with pytest.raises(ConfigError) as error:
            read()
        assert re.fullmatch(message.format(name=name), str(error.value))


def test_a_file_that_builds_on_another_needs_not_all_keys(conf: Path) -> None:
    (conf / "model/child.yaml").write_text("defaults: [all-minilm-l6-v2]\nwidht: 8\n")
    with pytest.raises(ConfigError, match="conf/model/child.yaml: Unknown key 'widht'"):
        compose_config(["model=child"])
    (conf / "model/child.yaml").write_text("defaults: [all-minilm-l6-v2]\nname: ours\n")
    assert compose_config(["model=child", "seed=1"]).model.name == "ours"
