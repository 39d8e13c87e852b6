"""The ONNX file: the same logits, no dense table in it, int8 beside it, and what is refused."""

import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bench import store
from bench.cli.main import main
from bench.embeddings import method
from bench.errors import BenchError, EnvironmentBroken
from bench.export import lookup, onnx
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from tests.export.settings import METHODS, VOCAB_SIZE, WIDTH, compressed
from tests.support.commands import ROOT

onnxlib = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
# The part of a tokenizer that the graph depends on.
TOKENIZER = SimpleNamespace(model_input_names=["input_ids", "attention_mask"])


class Pooled(nn.Module):
    """The least classifier there is, so that the embedding is what is tested: the mean of the tokens' vectors, and a linear layer."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = embedding, nn.Linear(WIDTH, 3)
        self.config = SimpleNamespace(vocab_size=VOCAB_SIZE, pad_token_id=0)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, embedding: nn.Module) -> None:
        self.embedding = embedding

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        mask = attention_mask.unsqueeze(-1)
        return SimpleNamespace(logits=self.head((self.embedding(input_ids) * mask).sum(1) / mask.sum(1)))


def initializers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and type of every tensor that is stored in the file, in nodes of all graphs too."""
    graph = onnxlib.load(path).graph
    tensors = [
        *graph.initializer,
        *(attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")),
    ]
    return {
        f"{i} {tensor.name}": (tuple(tensor.dims), onnxlib.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        for i, tensor in enumerate(tensors)
    }


@pytest.mark.parametrize(
    ("name", "keys"),
    METHODS,
)
def test_each_embedding_gives_the_same_logits_in_onnxruntime(name, keys, tmp_path):
    model, config = compressed("bert", name, keys)
    pooled, path = Pooled(model.get_input_embeddings()).eval(), tmp_path / "model.onnx"
    assert onnx.write(pooled, TOKENIZER, path) < 1e-5
    every = {
        "input_ids": torch.arange(VOCAB_SIZE).unsqueeze(1),
        "attention_mask": torch.ones(VOCAB_SIZE, 1, dtype=torch.int64),
    }
    with torch.no_grad():  # each token alone, padding too
        torch.testing.assert_close(
            onnx.OnnxModel(path)(**every).logits, pooled(**every).logits, rtol=1e-4, atol=1e-5
        )
    if name in ("subspace", "codebook", "residual", "hashing"):
        found, coded = initializers(path), getattr(config, "code_rows", None) or VOCAB_SIZE
        subspaces, rows = method(name).codes(config)
        assert max(int(np.prod(shape)) for shape, _ in found.values()) < VOCAB_SIZE * WIDTH, (
            "a dense table is in the file"
        )
        (kind,) = [
            kind for shape, kind in found.values() if shape == (coded, subspaces) and kind != np.float32
        ]
        assert kind == (np.uint8 if rows < 256 else np.int16), (
            "codes are as narrow as their number of rows allows"
        )
        assert coded == VOCAB_SIZE or VOCAB_SIZE not in {
            shape[0] for shape, _ in found.values() if shape[1:] == (subspaces,)
        }
        assert {node.domain for node in onnxlib.load(path).graph.node} == {""}, (
            "an operator that is not standard"
        )


def test_logits_that_are_not_finite_are_no_small_difference(tmp_path):
    model, _ = compressed("bert", "subspace", {})
    pooled = Pooled(model.get_input_embeddings()).eval()
    torch.nn.init.constant_(pooled.head.bias, float("nan"))
    with pytest.raises(BenchError, match=r"model\.onnx: its output \(logits\) or torch's is NaN or infinite"):
        onnx.write(pooled, TOKENIZER, tmp_path / "model.onnx")


def test_a_graph_that_did_not_fit_on_the_disk_is_no_traceback(tmp_path):
    model, _ = compressed("bert", "subspace", {})
    onnx.write(model, TOKENIZER, tmp_path / "model.onnx")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "model.onnx").stat().st_size // 2, before[1]))
    try:
        with pytest.raises(EnvironmentBroken, match="is not whole, as on a full disk: free some space"):
            onnx.write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("family", ["bert", "xlm-r", "distilbert"])  # roberta is xlm-r's code
def test_each_family_is_exported_and_its_body_becomes_int8(family, tmp_path):
    model, _ = compressed(family, "subspace", {})
    path = tmp_path / "model.onnx"
    assert onnx.write(model, TOKENIZER, path) < 1e-4
    onnx.write_int8(path, tmp_path / "int8.onnx")
    graph = onnxlib.load(tmp_path / "int8.onnx").graph
    stored = {tensor.name for tensor in graph.initializer}
    assert not [
        node.name for node in graph.node if node.op_type in ("MatMul", "Gemm") and stored & set(node.input)
    ], "a layer is not int8"
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) >= 7, (
        "six matrices of a layer, and the head"
    )
    assert 0 < onnx.difference(model, TOKENIZER, tmp_path / "int8.onnx") < 1


def test_a_graph_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    model, _ = compressed("bert", "subspace", {})

    class Wrong(lookup.SubspaceLookup):
        def forward(self, input_ids):
            return super().forward(input_ids).flip(-1)

    monkeypatch.setattr(lookup, "SubspaceLookup", Wrong)
    with pytest.raises(BenchError, match=r"model\.onnx: its output \(logits\) differs from torch's by"):
        onnx.write(Pooled(model.get_input_embeddings()).eval(), TOKENIZER, tmp_path / "model.onnx")


def test_a_run_is_exported_with_both_files_their_sizes_and_their_headlines(tiny, tmp_path):
    overrides = [*tiny, "embedding=subspace", "embedding.subspaces=4", "embedding.rows=16", "assignment=pq"]
    out = tmp_path / "out"
    assert main(["export", *overrides, "--int8", "--evaluate", "--to", str(out)]) == 0
    prepared = prepare(compose_config(overrides))
    record = store.read(store.path_of(tmp_path / "results", prepared.name, prepared.run_id))
    facts = json.loads((out / "export.json").read_text())
    assert facts["onnx"]["models"]["model.onnx"]["headline"] == record["headline"]["value"]
    assert 0 <= facts["onnx"]["models"]["model-int8.onnx"]["headline"] <= 1
    assert {name: (out / name).stat().st_size for name in ("model.onnx", "model-int8.onnx")}.items() <= facts[
        "files"
    ].items()
    assert "model-int8.onnx" in (out / "README.md").read_text()
    for name in ("model.onnx", "model-int8.onnx"):
        assert (
            str(ROOT).encode() not in (out / name).read_bytes()
            and b"site-packages" not in (out / name).read_bytes()
        )
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert (
        [given.name for given in session.get_inputs()]
        == facts["onnx"]["inputs"]
        == ["input_ids", "attention_mask", "token_type_ids"]
    )


def test_an_operator_set_that_is_too_old_is_refused_before_anything_is_trained(tiny, tmp_path, capsys):
    assert main(["export", *tiny, "--onnx", "--opset", "12", "--to", str(tmp_path / "out")]) == 2
    assert "--opset (12) must be from 18" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "results").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself reads as "not to be found"
    with pytest.raises(
        EnvironmentBroken, match=rf"needs the package {package}, which is missing: .*\[onnx\]"
    ):
        onnx.check_installed(onnx.OPSET)
