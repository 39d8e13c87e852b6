"""The net under every change: each committed record's identity and each committed report come out again."""

import shutil
from pathlib import Path

import pytest

from bench import store
from bench.export.source import configuration, training_version
from bench.runs import identity
from bench.tasks import corpora
from bench.tasks import data as task_data
from tests.support.commands import call_bench

RESULTS = Path(__file__).parents[2] / "results"
STORES = sorted(folder.parent for folder in RESULTS.rglob("runs"))


def test_the_net_spans_every_committed_record() -> None:
    spanned = sum(len(list((folder / "runs").rglob("*.json"))) for folder in STORES)
    assert spanned == len([p for p in RESULTS.rglob("*.json") if "runs" in p.parts]) > 800


@pytest.mark.parametrize("folder", STORES, ids=lambda folder: folder.relative_to(RESULTS.parent).as_posix())
def test_the_identity_of_every_committed_record_comes_out_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, unreadable = store.read_all(folder)
    assert records and not unreadable
    changed = [record["name"] for record in records if _again(record, monkeypatch) != record["run_id"]]
    assert not changed


def _again(record: store.Record, patch: pytest.MonkeyPatch) -> str:
    """Return the run_id of a record's configuration. Data and texts are not in the repository: their digests are the record's."""
    kept = record["config"]
    texts = [part["corpus"] for part in kept.values() if isinstance(part, dict) and "corpus" in part]
    patch.setattr(task_data, "data_identity", lambda *_: kept["data"]["sha256"])
    patch.setattr(task_data, "resolve_source", lambda *_: kept["data"]["source"])
    patch.setattr(corpora, "identity", lambda *_: texts.pop(0))
    return identity.prepare(configuration(record, []), training_version(record)).run_id


@pytest.mark.parametrize("folder", STORES, ids=lambda folder: folder.relative_to(RESULTS.parent).as_posix())
def test_a_report_on_the_committed_records_leaves_no_difference(folder: Path, tmp_path: Path) -> None:
    store_copy = tmp_path / "results"
    shutil.copytree(folder, store_copy)
    committed = {path: path.read_bytes() for path in store_copy.rglob("*") if path.is_file()}
    written = call_bench("report", f"results_dir={store_copy}")
    assert written.returncode == 0, written.stderr
    changed = [path for path, content in committed.items() if path.read_bytes() != content]
    assert changed == []
