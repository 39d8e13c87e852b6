"""A run carried out again, compared to the last bit."""

import copy
import json
from pathlib import Path

from bench import store
from bench.cli.main import main
from bench.perf.repeatability import difference
from bench.runs.identity import prepare
from bench.settings.compose import compose_config


def test_a_run_on_the_cpu_repeats_to_the_last_bit_and_a_changed_bit_is_named(tiny, tmp_path, capsys):
    overrides, folder = (
        [*tiny, "embedding=subspace", "recovery=distil", "recovery.steps=3", f"results_dir={tmp_path}"],
        tmp_path / "repeatability",
    )
    run = prepare(compose_config(overrides))
    former = store.path_of(folder / "again", run.name, run.run_id)  # as other code may have left it
    former.parent.mkdir(parents=True)
    former.write_text(json.dumps({"status": "ok", "headline": None}))
    assert main(["repeatability", *overrides]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "again in a new process, with empty caches: the same to the last bit",
        "beside 3 others: the same to the last bit",
    ]

    # Change a recovered encoder, a loss, a score, a prediction.
    (record, *_), _ = store.read_all(folder / "alone")
    other = copy.deepcopy(record)
    other["recovery"]["sha256"] = "0" * 64
    assert "recovered" in difference(record, other, folder / "alone", folder / "again")
    other = copy.deepcopy(record)
    other["training"]["curve"][1][1] += 1e-7
    assert "the mean loss up to step" in difference(record, other, folder / "alone", folder / "again")
    other = copy.deepcopy(record)
    next(iter(other["metrics"].values()))["accuracy"] += 1e-7
    assert "the scores are" in difference(record, other, folder / "alone", folder / "again")
    (answers,) = Path(store.predictions_folder(folder / "again", record["name"], record["run_id"])).iterdir()
    answers.write_bytes(answers.read_bytes()[:-1] + b"\x07")
    assert "predictions" in difference(record, record, folder / "alone", folder / "again")
