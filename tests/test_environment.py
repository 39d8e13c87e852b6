"""What a person has set for other programs stays out: the same records give the same bytes, the same run the same numbers."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import store
from bench.runs import provenance
from tests.report.factory import record
from tests.support.commands import ROOT, run_bench

MATPLOTLIBRC = """\
text.usetex: True
font.family: serif
axes.linewidth: 3
figure.facecolor: yellow
svg.fonttype: none
pdf.compression: 0
path.simplify: False
"""
FEW = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if key in os.environ}
NAMELESS = ["unshare", "--user", "--map-user=12345"]  # a user id that no file of users knows
COUNT = """
import os, torch
from bench.runs.loading import pick_device
from bench.sweep.pool import default_workers
os.sched_setaffinity(0, range(os.cpu_count()))
torch.set_num_threads(4)
pick_device("cpu")
print(default_workers("cpu"), torch.get_num_threads())
"""
ODD = {
    "MPLBACKEND": "a_notebooks",
    "TMPDIR": "/nowhere",
    "HOME": "/",
    "TZ": "Asia/Tokyo",
    "COLUMNS": "10",
    "NO_COLOR": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HOME": "/nowhere",
    "HF_HUB_OFFLINE": "0",
    "HF_DATASETS_CACHE": "/nowhere",
    "CUDA_VISIBLE_DEVICES": "",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "GIT_DIR": "/nowhere",
}


def bench(*arguments: str, env: dict[str, str], cwd: Path = ROOT, before: list[str] | None = None) -> str:
    """Return what `python -m bench <arguments>` printed, in this environment and no other."""
    path = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*(before or []), sys.executable, "-m", "bench", *arguments],
        cwd=cwd,
        env=env | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with a few records, of a model whose name is no ASCII, and no report."""
    folder = tmp_path_factory.mktemp("records")
    for method in ("dense", "sequential", "pq8", "pq48"):
        for seed in range(2):
            store.write(record(method, seed=seed, value=0.7 + seed / 50, model="modèle"), folder)
    return folder


def report(records: Path, folder: Path, **how: Any) -> dict[str, bytes]:
    """Return the files of a report on the records, written to `folder`."""
    folder.mkdir()
    (folder / "runs").symlink_to(records / "runs")
    bench("report", f"results_dir={folder}", **how)
    return contents(folder)


@pytest.fixture(scope="module")
def plain(records: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of the report that is written where nobody has set anything."""
    base = tmp_path_factory.mktemp("plain")
    return report(records, base / "report", env=FEW | {"HOME": str(base)})


def font(path: Path, family: str) -> None:
    """Write a font with serifs that gives itself the family's name."""
    import matplotlib
    from fontTools.ttLib import TTFont

    made = TTFont(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf")
    for name in made["name"].names:
        if name.nameID in (1, 16):
            name.string = family
    path.parent.mkdir(exist_ok=True)
    made.save(path)


@pytest.mark.parametrize(
    "kind", ["settings", "settings here", "settings at home", "fonts", "odd", "nameless"]
)
def test_the_same_records_give_the_same_bytes(
    kind: str, records: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    (home / ".config" / "matplotlib" / "stylelib").mkdir(parents=True)
    here.mkdir()
    env, before = FEW | {"HOME": str(home)}, None
    if kind == "settings":
        (tmp_path / "rc").write_text(MATPLOTLIBRC)
        env |= {"MATPLOTLIBRC": str(tmp_path / "rc")}
    elif kind == "settings here":
        (here / "matplotlibrc").write_text(MATPLOTLIBRC)
    elif kind == "settings at home":
        for name in ("matplotlibrc", "stylelib/default.mplstyle"):
            (home / ".config" / "matplotlib" / name).write_text(MATPLOTLIBRC)
    elif kind == "fonts":
        font(home / ".fonts" / "a.ttf", "DejaVu Sans")
        font(home / ".fonts" / "b.ttf", "IPAexGothic")
    elif kind == "odd":
        env |= ODD
    else:
        before, env = nameless(), FEW
    found = report(records, tmp_path / "report", env=env, cwd=here, before=before)
    assert sorted(found) == sorted(plain) and any(name.endswith(".pdf") for name in found)
    assert [name for name, content in found.items() if content != plain[name]] == []


def nameless() -> list[str]:
    """Return what starts a command as a user without a name; skips the test where the system does not allow it."""
    try:
        subprocess.run([*NAMELESS, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no user namespace can be made here: {error}")
    return NAMELESS


def test_the_same_run_gives_the_same_numbers(tiny: list[str], tmp_path: Path) -> None:
    made = []
    for name, env in (("plain", FEW | {"HOME": str(tmp_path)}), ("odd", FEW | ODD)):
        arguments = [*tiny, f"results_dir={tmp_path}/{name}", f"cache_dir={tmp_path}/cache-{name}"]
        bench("run", *arguments, "embedding=subspace", "assignment=contextual", env=env)
        (path,) = (tmp_path / name / "runs").rglob("*.json")
        made.append(json.loads(path.read_text()))
    first, second = made
    assert first["status"] == "ok"
    for part in ("run_id", "size", "fit", "metrics", "headline", "model", "task"):
        assert first[part] == second[part], part
    assert first["training"]["curve"] == second["training"]["curve"]
    assert first["provenance"]["commit"] == second["provenance"]["commit"], "GIT_DIR is another repository's"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the commit of a clone that the code seems to lie in."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.provenance.cache_clear()
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return head.stdout.strip()


@pytest.mark.parametrize(
    "setting",
    [{"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, {"GIT_DIR": str(ROOT / ".git"), "GIT_WORK_TREE": str(ROOT)}],
    ids=["another user's", "from a hook"],
)
def test_the_commit_is_recorded(setting: dict[str, str], clone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in setting.items():
        monkeypatch.setenv(key, value)
    assert provenance.provenance(torch.device("cpu"))["commit"] == clone


def test_a_commit_that_git_does_not_say_is_no_secret(
    clone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".git" / "HEAD").write_text("nonsense")
    assert provenance.provenance(torch.device("cpu"))["commit"] is None
    assert "provenance.commit stays unknown" in caplog.text and str(tmp_path) in caplog.text


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o000, 0o666)])
def test_files_may_be_read_by_whom_the_umask_says(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        store.write_atomically(tmp_path / "folder" / "record.json", "{}")
    finally:
        os.umask(before)
    (file,) = (tmp_path / "folder").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_kept_weights_may_be_read_by_whom_the_umask_says(tiny: list[str], tmp_path: Path) -> None:
    done = run_bench("run", *tiny, "keep_weights=true", "training.max_steps=1", umask=0o007)
    assert done.returncode == 0, done.stderr
    found = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in found)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in found} == {
        path.name: 0o660 for path in found
    }


def test_there_are_no_more_workers_and_threads_than_a_container_has_cpus() -> None:
    quota = (
        "mount -t tmpfs none /sys/fs/cgroup && echo 100000 100000 > /sys/fs/cgroup/cpu.max && "
        f"exec {sys.executable} -c '{COUNT}'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", quota],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no container can be made here: {done.stderr}")
    assert done.stdout == "1 1\n", done.stderr
