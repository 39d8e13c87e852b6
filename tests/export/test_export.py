"""An exported folder: what is in it, that it is loaded bit for bit or not at all, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import bench
from bench import store
from bench.cli.main import main
from bench.errors import BenchError
from bench.export import folder
from bench.export.command import materialised
from bench.models import storage
from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.settings.choices import CHOICES
from bench.settings.compose import compose_config
from bench.sweep.gc import find
from tests.export.settings import FAMILIES, METHODS, compressed, logits
from tests.support.commands import ROOT

SUBSPACE = ["embedding=subspace", "embedding.subspaces=4", "embedding.rows=16", "assignment=pq"]


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> list[str]:
    """Return the overrides of a tiny run that was trained with its weights kept."""
    place = tmp_path_factory.mktemp("trained")
    overrides = [
        "model.name=tiny",
        "model.source=local",
        f"model.path={tiny_model}",
        "model.sha256=null",
        "model.width=24",
        "model.revision=null",
        "task=lexical_sentiment",
        "training.max_steps=4",
        "training.batch_size=8",
        "training.max_train_examples=48",
        "device=cpu",
        f"results_dir={place}/results",
        f"cache_dir={place}/cache",
        *SUBSPACE,
    ]
    execute(prepare(compose_config([*overrides, "keep_weights=true"])))
    return overrides


def record_of(overrides: list[str]) -> store.Record:
    prepared = prepare(compose_config(overrides))
    return store.read(store.path_of(Path(prepared.config.results_dir), prepared.name, prepared.run_id))


def where(overrides: list[str]) -> list[str]:
    """Return what a record cannot say: where the model and the folders are."""
    return [
        o for o in overrides if o.partition(".")[0] == "model" or o.startswith(("results_dir", "cache_dir"))
    ]


@pytest.fixture
def elsewhere(trained, tmp_path) -> list[str]:
    """Return the same overrides for a copy of the results that a test may change."""
    results = Path(compose_config(trained).results_dir)
    shutil.copytree(results, tmp_path / "results")
    return [o for o in trained if not o.startswith("results_dir")] + [f"results_dir={tmp_path}/results"]


def test_the_listed_methods_are_all_there_are():
    assert {name for name, _ in METHODS} == set(CHOICES["embedding"])


@pytest.mark.parametrize(("name", "keys"), METHODS)
def test_each_method_is_loaded_bit_for_bit(name, keys, tmp_path):
    model, config = compressed("bert", name, keys)
    with folder.new_folder(tmp_path / "out") as target:
        storage.save_compressed(model, target, config, codes_stored=True)
    loaded = bench.load_compressed(tmp_path / "out")
    assert torch.equal(logits(loaded), logits(model))
    loaded.train()(
        input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([1])
    ).loss.backward()  # what was loaded can be trained


@pytest.mark.parametrize("name", ["shared", "codebook", "sequential"])
def test_an_export_of_an_older_form_is_loaded_as_it_was_written(name):
    """Written at commit 5626ae3: kept rows, shared codes and int8 tables; gains and kept rows; codes that are not stored."""
    stored = ROOT / "tests" / "export" / "stored"
    expected = torch.tensor(json.loads((stored / "logits.json").read_text())[name])
    torch.testing.assert_close(logits(bench.load_compressed(stored / name)), expected, rtol=1e-5, atol=1e-6)


def test_an_older_export_with_an_option_that_is_gone_is_refused(exported):
    description = json.loads((exported / "bench.json").read_text())
    description["embedding"]["table_dtype"] = "int4"
    (exported / "bench.json").write_text(json.dumps(description))
    with pytest.raises(
        BenchError, match=r"bench\.json describes an embedding with .* tables in int4, which bench no longer"
    ):
        storage.load_compressed(exported)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "keys"),
    [("subspace", {}), ("dense", {}), ("low_rank", {"rank": 4}), ("quantised", {"bits": 4, "group": 8})],
)
def test_the_dense_form_of_each_family_is_the_compressed_model(family, name, keys, tmp_path):
    model, _ = compressed(family, name, keys)
    materialised(model).save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded.get_input_embeddings()) is torch.nn.Embedding
    if name == "low_rank":  # a product of other shapes is rounded in another order
        torch.testing.assert_close(logits(loaded), logits(model))
    else:
        assert torch.equal(logits(loaded), logits(model))


def test_a_kept_run_is_exported_by_its_id_without_training(trained, tiny_model, tmp_path, capsys):
    record = record_of(trained)
    assert main(["export", record["run_id"], *where(trained), "--to", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "step" not in said.err and "model.safetensors" in said.out
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} >= {
        "README.md",
        "LICENSE",
        "SHA256SUMS",
        "bench.json",
        "config.json",
        "export.json",
        "model.safetensors",
        "tokenizer.json",
    }
    shipped, original = out / "tokenizer.json", tiny_model / "tokenizer.json"
    assert json.loads(shipped.read_text()) == json.loads(original.read_text())
    assert record["size"]["tokenizer_bytes"] == shipped.stat().st_size < 0.7 * original.stat().st_size
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    prepared = prepare(compose_config(trained))
    kept = storage.load_compressed(
        store.weights_folder(Path(prepared.config.results_dir), prepared.name, prepared.run_id)
    )
    tokens = AutoTokenizer.from_pretrained(out)(
        ["a fine film", "dreadful"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        assert torch.equal(bench.load_compressed(out)(**tokens).logits, kept(**tokens).logits)
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, path.name
        assert (
            str(tmp_path.parent).encode() not in path.read_bytes()
            and str(ROOT).encode() not in path.read_bytes()
        ), path.name


@pytest.mark.parametrize(
    "override",
    [
        "embedding=dense",
        "embedding.rows=50",
        "assignment=random",
        "seed=3",
        "body=int8",
        "sampling.passages=9",
    ],
)
def test_a_run_is_exported_as_its_record_has_it(override, trained, tmp_path, capsys):
    run_id = record_of(trained)["run_id"]
    assert main(["export", run_id, *where(trained), override, "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert (
        f"{override}: run {run_id} has " in said
        and "leave that out" in said
        and not (tmp_path / "out").exists()
    )


def test_the_card_has_front_matter_sizes_scores_with_intervals_and_marks(trained, tmp_path):
    record = record_of(trained)
    assert main(["export", record["run_id"], *where(trained), "--to", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification" and front["license"] == "apache-2.0"
    (result,) = front["model-index"][0]["results"]
    assert (
        result["metrics"] == [{"type": "accuracy", "value": record["headline"]["value"]}]
        and result["dataset"]["split"] == "test"
    )
    assert record["run_id"] in card and "synthetic" in card and "48" in card and "a single seed" in card
    assert re.search(rf"{record['headline']['value']:.4f} \| 0\.\d+ to [01]\.\d+ \(\d+ rows\)", card)
    file = tmp_path / "out" / "model.safetensors"
    assert f"{file.stat().st_size:,}" in card and f"{record['size']['embedding_bytes']:,}" in card
    assert (
        json.loads((tmp_path / "out" / "export.json").read_text())["files"]["model.safetensors"]
        == file.stat().st_size
    )


def test_a_configuration_is_trained_recorded_and_exported(tiny, tmp_path):
    assert (
        main(
            [
                "export",
                *tiny,
                *SUBSPACE,
                "model.weights=random",
                "--materialise",
                "--to",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    record, card = (
        record_of([*tiny, *SUBSPACE, "model.weights=random"]),
        (tmp_path / "out" / "README.md").read_text(),
    )
    assert record["status"] == "ok" and record["run_id"] in card and "written out as a dense table" in card
    assert "random weights: no scores" in card and "metrics" not in yaml.safe_load(
        card.split("---\n")[1]
    ).get("model-index", "")
    assert f"{record['headline']['value']:.4f}" not in card
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.get_input_embeddings().weight.shape == (30522, 24)
    with pytest.raises(
        BenchError, match=r"an export in plain form is loaded with AutoModelForSequenceClassification"
    ):
        bench.load_compressed(tmp_path / "out")


def test_weights_that_are_gone_are_trained_again_only_when_asked_and_only_if_the_score_is_the_records(
    elsewhere, tmp_path, capsys
):
    record, results = record_of(elsewhere), tmp_path / "results"
    shutil.rmtree(results / "models")
    command = ["export", record["run_id"], *where(elsewhere), "--to", str(tmp_path / "out")]
    assert main(command) == 1
    assert "add --retrain" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*command, "--retrain"]) == 0
    assert bench.load_compressed(tmp_path / "out").config.num_labels == 2
    assert record_of(elsewhere)["created_at"] == record["created_at"], "the record is the one that was there"
    shutil.rmtree(results / "models")
    store.write(record | {"headline": record["headline"] | {"value": 0.123}}, results)
    assert main([*command[:-1], str(tmp_path / "other"), "--retrain"]) == 1
    assert (
        "its record says {" in capsys.readouterr().err
        and not (tmp_path / "other").exists()
        and not (results / "models").exists()
    )


def test_an_unknown_run_says_which_was_meant_and_a_failed_or_changed_one_why_not(elsewhere, tmp_path, capsys):
    record, to = record_of(elsewhere), ["--to", str(tmp_path / "out")]
    near = record["run_id"][:-1] + "x"
    assert main(["export", near, *where(elsewhere), *to]) == 2
    assert (
        f"Unknown run '{near}'" in (said := capsys.readouterr().err)
        and f"Did you mean '{record['run_id']}'" in said
    )
    assert main(["export", "0" * 12, *where(elsewhere), *to]) == 2
    assert (
        "Did you mean" not in (said := capsys.readouterr().err) and "as in results_dir=results/demo" in said
    )
    store.write(record | {"status": "failed"}, tmp_path / "results")
    assert main(["export", record["run_id"], *where(elsewhere), *to]) == 1
    assert "is recorded as failed" in capsys.readouterr().err and not (tmp_path / "out").exists()


def copied(model: Path, folder: Path, **values: object) -> Path:
    """Return a copy of a model's folder with other values in its config.json."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
    return folder


@pytest.mark.parametrize("old", [False, True], ids=["recorded now", "recorded before `chosen` was"])
def test_a_run_of_another_folders_model_is_set_up_again_from_its_record_and_the_folder(
    old, tiny, tiny_model, tmp_path, capsys
):
    asked = [
        o
        for o in tiny
        if o.partition("=")[0] not in ("model.name", "model.sha256", "model.width", "model.revision")
    ]
    asked += [
        "model=multilingual-minilm",
        "model.name=ours",
        "model.vocab_size=null",
        "model.width=null",
        *SUBSPACE,
    ]
    asked += ["training.max_steps=2"]
    record = execute(prepare(compose_config([*asked, "keep_weights=true"])))
    assert record["status"] == "ok" and record["chosen"]["model"] == "multilingual-minilm"
    if old:
        del record["chosen"]
        store.write(record, tmp_path / "results")
    export = ["export", record["run_id"], f"results_dir={tmp_path}/results"]

    # Without the folder: the command that would do. With another model's: each key that differs, with both values.
    assert main([*export, "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert (
        f"bench export {record['run_id']} results_dir={tmp_path}/results model.path=<folder of the model> --to <folder>"
        in said
    )
    other = copied(tiny_model, tmp_path / "other", hidden_dropout_prob=0.5)
    assert main([*export, f"model.path={other}", "model.name=theirs", "--to", str(tmp_path / "out")]) == 1
    said, then = capsys.readouterr().err, record["config"]["model"]["sha256"]
    assert "model.name is ours in its record and theirs here" in said
    assert re.search(rf"model\.sha256 is {then} in its record and [0-9a-f]{{64}} here", said)
    assert (
        f"results_dir={tmp_path}/results model.path=<folder of the model> --to" in said
        and "model.name=" not in said
    )

    # With the folder alone, and with what the run was started with.
    assert main([*export, f"model.path={tiny_model}", "--to", str(tmp_path / "out")]) == 0, (
        capsys.readouterr().err
    )
    assert main([*export, *asked, "--to", str(tmp_path / "again")]) == 0, capsys.readouterr().err


def test_a_text_and_data_that_a_record_cannot_name_are_asked_for_together(tiny, tiny_model, tmp_path, capsys):
    rows = {"sentence": ["a good film", "a bad film"] * 4, "label": [1, 0] * 4}
    (tmp_path / "data/glue/sst2").mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.table(rows), tmp_path / f"data/glue/sst2/{split}.parquet")
    for name in ("notes.txt", "others.txt"):
        (tmp_path / name).write_text(f"a film of {name}\n")
    task = ["task=sst2", "task.name=films", f"data.root={tmp_path}/data", "training.max_train_examples=null"]
    asked = [
        *tiny,
        *task,
        *SUBSPACE,
        "assignment.frequency_power=0.5",
        f"assignment.corpus={tmp_path}/notes.txt",
    ]
    record = execute(prepare(compose_config([*asked, "keep_weights=true", "training.max_steps=2"])))
    assert record["status"] == "ok" and record["chosen"]["task"] == "sst2"
    given = [f"results_dir={tmp_path}/results", f"model.path={tiny_model}"]
    assert main(["export", record["run_id"], *given, "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "data.root=<folder of the data> assignment.corpus=<its text file or splits> --to <folder>" in said
    given += [f"data.root={tmp_path}/data"]
    wrong = [*given, f"assignment.corpus={tmp_path}/others.txt"]
    assert main(["export", record["run_id"], *wrong, "--to", str(tmp_path / "out")]) == 1
    said, then = capsys.readouterr().err, record["config"]["assignment"]["corpus"]
    assert f"assignment.corpus is {then} in its record and " in said and "assignment.corpus=<its text" in said
    right = [*given, f"assignment.corpus={tmp_path}/notes.txt"]
    assert main(["export", record["run_id"], *right, "--to", str(tmp_path / "out")]) == 0, (
        capsys.readouterr().err
    )
    assert main(["rescore", f"results_dir={tmp_path}/results", f"data.root={tmp_path}/data"]) == 0
    assert "changed 0 | same 1" in capsys.readouterr().out, (
        "the task is scored by the file that it began from"
    )


@pytest.mark.parametrize(("flags", "message"), [
    ([], "--to is not set"), (["--too", "x"], "Did you mean '--to'"), (["--to", "x", "--evaluate"], "add --onnx"),
    (["--to"], "expected one argument"),
    (["abcdef012345", "--to", "x"], "export each to its own folder"),
])  # fmt: skip
def test_wrong_flags_are_explained(flags, message, capsys):
    assert main(["export", "0123456789ab", *flags]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_written_over(trained, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["export", record_of(trained)["run_id"], *where(trained), "--to", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture
def exported(tmp_path) -> Path:
    model, config = compressed("bert", "subspace", {})
    with folder.new_folder(tmp_path / "out") as target:
        storage.save_compressed(model, target, config, codes_stored=True)
    return tmp_path / "out"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:-8] + bytes([b[-8] ^ 1]) + b[-7:], lambda b: b""]
)
@pytest.mark.parametrize("name", ["model.safetensors", "bench.json", "config.json"])
def test_a_damaged_file_is_named_with_both_digests_and_nothing_is_loaded(exported, name, damage):
    written = store.file_sha256(exported / name)
    (exported / name).write_bytes(damage((exported / name).read_bytes()))
    found = store.file_sha256(exported / name)
    with pytest.raises(
        BenchError,
        match=rf"{name} has the SHA-256 {found}, but SHA256SUMS says {written}.*nothing was loaded",
    ):
        bench.load_compressed(exported)


def test_a_missing_file_missing_digests_and_digests_of_other_places_are_refused(exported):
    sums = (exported / "SHA256SUMS").read_text()
    (exported / "SHA256SUMS").write_text(sums + f"{'0' * 64}  ../secret\n")
    with pytest.raises(BenchError, match=r"no digest of a file beside it.*\.\./secret"):
        bench.load_compressed(exported)
    (exported / "SHA256SUMS").write_text(
        "".join(line for line in sums.splitlines(keepends=True) if "model.safetensors" not in line)
    )
    with pytest.raises(BenchError, match=r"does not name model\.safetensors"):
        bench.load_compressed(exported)
    (exported / "SHA256SUMS").write_text(sums)
    (exported / "config.json").unlink()
    with pytest.raises(BenchError, match=r"config\.json cannot be read"):
        bench.load_compressed(exported)
    (exported / "SHA256SUMS").unlink()
    with pytest.raises(BenchError, match=r"is not a complete folder of `bench export`"):
        bench.load_compressed(exported)


def test_an_export_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"), folder.new_folder(tmp_path / "out") as target:
        (target / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("stopped")
    assert list(tmp_path.iterdir()) == []


def test_kept_weights_without_a_record_can_go(elsewhere, tmp_path):
    results = tmp_path / "results"
    assert not any("models" in str(garbage.path) for garbage in find(results, tmp_path / "none"))
    next((results / "runs").rglob("*.json")).unlink()
    (found,) = [
        garbage for garbage in find(results, tmp_path / "none") if garbage.reason == "models without a record"
    ]
    assert found.path.is_relative_to(results / "models") and found.size > 1000


def test_bench_itself_is_imported_without_torch():
    code = "import sys, bench; assert 'torch' not in sys.modules; from bench import load_compressed; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'load_compresed'"):
        bench.load_compresed  # noqa: B018
