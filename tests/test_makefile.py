"""The Makefile: what people type reaches `bench` as it is, and the environment is made with a Python that fits."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

NAMES = [
    "my data", "データ", "Bücher", "a=b", "x,y", "50%", "run[3]", "R&D", "it's", 'say "so"', "a$b", "$HOME", "$(HOME)", "~/x", "a#b", "a\\b", "*",
    "-x", "a;b", "`id`", "(a)",
]  # fmt: skip


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the Makefile and an installed environment whose Python writes down its arguments."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    code = "import json, sys; open('arguments', 'w').write(json.dumps(sys.argv[1:]))"
    script(folder / ".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (folder / ".venv/.installed").touch()
    return folder


def made(project: Path, *words: str) -> list[str]:
    """Return the words that `make <words>` gives to `python -m bench`."""
    done = subprocess.run(["make", "-s", *words], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((project / "arguments").read_text())[2:]


@pytest.mark.parametrize(
    ("target", "variable", "verb", "written"),
    [
        ("tasks", "DATA", "tasks", "data.root={}"),
        ("sweep", "DATA", "sweep", "data.root={}"),
        ("sweep", "CORPUS", "sweep", "?pretraining.corpus={}"),
        ("pretrain", "CORPUS", "pretrain", "?pretraining.corpus={}"),
        ("sweep", "SWEEP", "sweep", "sweep={}"),
        ("sweep", "LAUNCHER", "sweep", "launcher={}"),
        ("sweep", "LIMIT", "sweep", "--limit={}"),
        ("sweep", "SEEDS", "sweep", "--seeds={}"),
        ("rescore", "DATA", "rescore", "data.root={}"),
        ("pack", "DATA", "pack", "data.root={}"),
        ("submit", "TO", "submit", "--to={}"),
        ("search", "SEARCH", "search", "search={}"),
        ("fit", "SWEEP", "fit", "sweep={}"),
        ("latency", "SWEEP", "latency", "sweep={}"),
        ("coverage", "CORPUS", "coverage", "--corpus={}"),
        ("drift", "REFERENCE", "drift", "--reference={}"),
        ("drift", "CURRENT", "drift", "--current={}"),
        ("reassign", "REFERENCE", "reassign", "--reference={}"),
        ("reassign", "CURRENT", "reassign", "--current={}"),
        ("export", "TO", "export", "--to={}"),
        ("export", "RUN", "export", "{}"),
        ("fetch", "MODEL", "fetch", "--models={}"),
        ("fetch", "TASKS", "fetch", "--tasks={}"),
    ],
)
def test_a_value_reaches_bench_as_it_was_typed(target, variable, verb, written, project):
    for name in NAMES:
        words = made(project, target, f"{variable}={name}")
        assert words[0] == verb and written.format(name) in words, name


def test_the_old_name_of_a_target_says_the_new_one(project):
    done = subprocess.run(["make", "-s", "cost"], cwd=project, capture_output=True, text=True)
    assert done.returncode != 0 and "make latency SWEEP=demo" in done.stderr
    assert not (project / "arguments").exists()


def test_only_is_several_conditions_and_args_several_words(project):
    (project / "task=mrpc").touch()  # what a shell would put in the place of a pattern
    words = made(project, "sweep", "ONLY=task=m* seed=0", "ARGS=task.evaluate=[test] 'data.root=a b'")
    assert [word for word in words if word.startswith("--only")] == ["--only=task=m*", "--only=seed=0"]
    assert "task.evaluate=[test]" in words and "data.root=a b" in words


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("sweep", ["sweep", "sweep=demo"]),
        ("fit", ["fit", "sweep=budget"]),
        ("submit", ["submit", "sweep=glue_test", "--to=glue.zip"]),
        ("search", ["search", "search=demo"]),
        ("coverage", ["coverage"]),
        ("export", ["export"]),
    ],
)
def test_what_is_not_set_is_not_given(target, words, project):
    assert made(project, target) == words


@pytest.fixture
def fresh(project: Path) -> Path:
    """Return the folder without its environment, and a `tools` folder that is the whole path but for the system's tools."""
    shutil.rmtree(project / ".venv")
    for tool in ("sh", "mkdir", "touch", "cat", "cp", "chmod"):
        (project / "tools").mkdir(exist_ok=True)
        (project / "tools" / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    return project


def python(folder: Path, version: tuple[int, int]) -> None:
    """Write a python3 that says it is of this version; as a fitting one it makes an environment that notes who made it."""
    fits = 0 if (3, 11) <= version < (3, 15) else 1
    text = f"""#!/bin/sh
case "$1" in
-c) exec {sys.executable} -c "import sys; sys.version_info = {(*version, 0)}; exec(sys.argv[1])" "$2";;
--version) echo "Python {version[0]}.{version[1]}.0";;
-m) [ {fits} = 0 ] || exit 1; mkdir -p "$3/bin"; printf '#!/bin/sh\\necho "$@" > by-python\\n' > "$3/bin/python"; chmod +x "$3/bin/python";;
esac
"""
    script(folder / "tools/python3", text)


def uv(folder: Path) -> None:
    """Write a `uv` that makes an environment in its last argument and writes its arguments down."""
    text = """#!/bin/sh
echo "$@" > by-uv
for last; do :; done
mkdir -p "$last/bin"; printf '#!/bin/sh\\necho "$@" > with-uv\\n' > "$last/bin/python"; chmod +x "$last/bin/python"
"""
    script(folder / "tools/uv", text)


def install(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(folder / "tools")}
    make = shutil.which("make") or "make"
    return subprocess.run([make, "install"], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_a_python_that_fits_makes_the_environment_even_beside_uv(version, fresh):
    python(fresh, version)
    uv(fresh)
    done = install(fresh)
    assert done.returncode == 0, done.stderr
    assert "-m pip install" in (fresh / "by-python").read_text() and not (fresh / "by-uv").exists()


@pytest.mark.parametrize("version", [None, (2, 7), (3, 10), (3, 15)])
def test_with_another_python_or_none_uv_makes_it_and_without_uv_it_is_said_what_to_do(version, fresh):
    if version:
        python(fresh, version)
    done = install(fresh)
    assert (
        done.returncode != 0
        and "Python 3.11 to 3.14 is needed" in done.stderr
        and "install uv" in done.stderr
    )
    assert version is None or f"Python {version[0]}.{version[1]}.0" in done.stderr
    assert not (fresh / ".venv").exists()
    uv(fresh)
    done = install(fresh)
    assert done.returncode == 0, done.stderr
    assert "venv --seed" in (fresh / "by-uv").read_text() and "--python 3.12" in (fresh / "by-uv").read_text()
    assert "-m pip install" in (fresh / "with-uv").read_text()
