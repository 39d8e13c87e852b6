"""An encoder without a task: every form gives the same vectors, recovery is that of runs, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

import bench
from bench.cli.main import main
from bench.errors import BenchError
from bench.models.location import locate
from bench.runs.execute import run
from bench.settings.compose import compose_config
from tests.export.test_export import SUBSPACE

pytest.importorskip("onnxscript")
TEXTS = ["a fine film", "dreadful, and rather longer than the other"]
MEAN = "model.pooling=mean"


def exported(overrides: list[str], to: Path, *flags: str) -> dict[str, Any]:
    assert main(["export", "--encoder", *overrides, *flags, "--to", str(to)]) == 0
    facts: dict[str, Any] = json.loads((to / "export.json").read_text())
    return facts


def snippets(folder: Path) -> dict[str, np.ndarray]:
    """Return the vectors (2, d) that each program of the card computes for TEXTS, by the package that it imports first.

    That of sentence-transformers is left out.
    """
    programs = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    found = {}
    for program in programs:
        names: dict[str, Any] = {"folder": str(folder)}
        if "sentence_transformers" not in program:
            exec(re.sub(r'\["(.*)a fine film"\]', rf'["\1{TEXTS[0]}", "\1{TEXTS[1]}"]', program), names)
            found[program.split()[1]] = np.asarray(names["vectors"])
    return found


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """Return the override that names a folder with three pairs of STS-B."""
    folder = tmp_path / "data/glue/stsb"
    folder.mkdir(parents=True)
    rows = {"sentence1": ["a film", "they sing", "a town"], "sentence2": ["a film", "a dull film", "towns"]}
    table = pa.table(rows | {"label": pa.array([5, 0, 4], pa.float32())})
    pq.write_table(table, folder / "validation.parquet")
    return f"data.root={tmp_path}/data"


@pytest.mark.parametrize(("pooling", "flags"), [("mean", []), ("cls", ["--onnx"])])
def test_every_program_of_the_card_gives_the_vectors_of_the_encoder(
    pooling, flags, tiny, tiny_model, tmp_path
):
    """With the table left as it is, the vectors are those of the model's own files."""
    asked = [*tiny, f"model.pooling={pooling}", "model.prefix=query: ", "embedding=dense"]
    exported(asked, tmp_path / "compact", *flags)
    exported(asked, tmp_path / "dense", "--materialise")
    model, tokenizer = AutoModel.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer("query: " + text, return_tensors="pt")).last_hidden_state[0]
        vector = states.mean(0) if pooling == "mean" else states[0]
        expected.append((vector / vector.norm()).numpy())
    found = list(snippets(tmp_path / "compact").values()) + list(snippets(tmp_path / "dense").values())
    assert len(found) == 2 + len(flags)
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_both_forms_and_onnx_hold_the_compressed_encoder_with_a_card(tiny, pairs, tmp_path):
    asked = [*tiny, *SUBSPACE, MEAN, "body=int8", pairs]
    compact = exported(asked, tmp_path / "compact")
    dense = exported(asked, tmp_path / "dense", "--int8", "--materialise", "--evaluate")
    (alone,), vectors = snippets(tmp_path / "compact").values(), snippets(tmp_path / "dense")
    assert vectors.keys() == {"torch", "onnxruntime"}
    for found in vectors.values():
        np.testing.assert_allclose(found, alone, atol=1e-5)
    assert compact["files"]["model.safetensors"] < dense["files"]["model.safetensors"] / 10
    assert dense["onnx"]["models"].keys() == {"model.onnx", "model-int8.onnx"}
    assert dense["measures"].keys() == {"dense", "compressed", "model-int8.onnx"}

    # No classifier is left, nor a pooler that nothing trained, nor the labels of a task.
    for folder in ("compact", "dense"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            assert not [name for name in file.keys() if "classifier" in name or "pooler" in name]  # noqa: SIM118
        assert (
            not {"id2label", "problem_type"}
            & json.loads((tmp_path / folder / "config.json").read_text()).keys()
        )
    assert dense["run_id" if "run_id" in dense else "form"] == "dense"
    card = (tmp_path / "dense" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "sentence-transformers" and front["license"] == "apache-2.0"
    assert "pq f=4 Q=16" in card and "rounded to int8" in card and "Not recovered" in card
    assert f"{dense['files']['model-int8.onnx']:,}" in card and "1_Pooling/config.json" in card
    with pytest.raises(BenchError, match="an encoder with AutoModel"):
        bench.load_compressed(tmp_path / "dense")


def test_the_files_for_sentence_transformers_are_those_of_a_real_model(tiny, tmp_path):
    """The package's MiniLM was saved by sentence-transformers itself, with pooling by the mean and vectors of length 1."""
    exported([*tiny, MEAN, "embedding=dense", "model.prefix=query: "], tmp_path / "out", "--materialise")
    real = Path(locate(compose_config(["model=all-minilm-l6-v2"]).model)[0])

    def read(folder: Path, name: str) -> Any:
        return json.loads((folder / name).read_text())

    assert read(tmp_path / "out", "modules.json") == read(real, "modules.json")
    pooling, theirs = (read(folder, "1_Pooling/config.json") for folder in (tmp_path / "out", real))
    assert pooling.pop("word_embedding_dimension") == 24 and pooling.items() <= theirs.items()
    sizes = read(tmp_path / "out", "sentence_bert_config.json")
    assert sizes == read(real, "sentence_bert_config.json") | {"max_seq_length": 512}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentence_transformers_gives_the_same_vectors(pooling, tiny, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="bench does not need sentence-transformers")
    asked = [*tiny, *SUBSPACE, f"model.pooling={pooling}", "model.prefix=query: "]
    exported(asked, tmp_path / "out", "--materialise")
    vectors = library.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, snippets(tmp_path / "out")["torch"], atol=1e-5)


def test_a_recovery_of_runs_is_taken_from_the_cache_and_any_other_is_made(tiny, tmp_path, capsys):
    asked = [*tiny, *SUBSPACE, MEAN, "recovery=distil", "recovery.steps=3", "recovery.batch_size=8"]
    record = run(compose_config(asked))
    assert record["status"] == "ok"
    facts = exported(asked, tmp_path / "out")
    assert facts["recovery"] == {key: record["recovery"][key] for key in ("name", "texts", "steps", "sha256")}
    (kept,) = (tmp_path / "cache" / "recovered").glob("*.safetensors")
    recovered, written = load_file(kept), load_file(tmp_path / "out" / "model.safetensors")
    for name in ("encoder.layer.1.output.dense.weight", "embeddings.position_embeddings.weight"):
        assert torch.equal(recovered[name], written[f"bert.{name}"])
    assert "3 steps on" in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "notes.txt").write_text("a film\nanother film of theirs\n")
    other = exported([*asked, f"recovery.corpus={tmp_path}/notes.txt"], tmp_path / "other")
    assert other["recovery"]["texts"] == 2 and other["recovery"]["sha256"] != facts["recovery"]["sha256"]


def test_measures_stand_beside_the_dense_encoders(tiny, pairs, tmp_path):
    dense, other = (
        exported([*tiny, f"embedding={name}", MEAN, pairs], tmp_path / name, "--evaluate")["measures"]
        for name in ("dense", "mean")
    )
    assert dense["dense"] == dense["compressed"] == other["dense"] != other["compressed"]
    shown = [f"{100 * other[name]['stsb']['spearmanr']:.1f}" for name in ("dense", "compressed")]
    card = (tmp_path / "mean" / "README.md").read_text()
    assert f"| STS-B validation (3 pairs), Spearman | {' | '.join(shown)} |" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embedding=dense"], "model.pooling (null) leaves to the classifier's own class"),
        (["embedding=dense", "model.pooling=max"], "model.pooling 'max'"),
        ([MEAN, "assignment=contextual"], "assignment.corpus (task) is the text of a task"),
        ([MEAN, *SUBSPACE, "recovery=distil"], "recovery.corpus (task) is the text of a task"),
        ([MEAN, "embedding=trimmed", "embedding.rows=9"], "assignment.corpus (task) is the text of a task"),
        ([MEAN, "0123456789ab"], "0123456789ab is a run: describe the encoder"),
        ([MEAN, "embedding=dense", "--retrain"], "leave one of them out"),
        ([MEAN, "embedding=dense", "--evaluate", "data.root=EMPTY"], "--evaluate finds neither"),
    ],
)
def test_what_an_encoder_alone_cannot_have_is_refused_before_any_work(words, message, tiny, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    asked = [o for o in tiny if not o.startswith("task=")]
    given = [word.replace("EMPTY", str(tmp_path / "empty")) for word in words]
    assert main(["export", "--encoder", *asked, *given, "--to", str(tmp_path / "out")]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()
