"""A body in fewer bits: its values against numpy, and what such a run evaluates, counts, keeps and exports."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import bench
from bench import store
from bench.cli.main import main
from bench.models import body, storage
from bench.models.tokenizers import load_tokenizer
from bench.runs.evaluate import answers
from bench.runs.execute import execute
from bench.runs.identity import prepare
from bench.runs.side_by_side import execute_together
from bench.settings.compose import compose_config
from bench.sweep.plan import make
from bench.tasks.tokenise import Reader
from tests.export.settings import FAMILIES, compressed, logits
from tests.support.reference import tensor_bytes

SUBSPACE = ["embedding=subspace", "embedding.subspaces=4", "embedding.rows=16", "assignment=pq"]


def nearest_bf16(values: np.ndarray) -> np.ndarray:
    """Return the nearest fp32 numbers whose lower 16 bits are zero, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    return name.endswith("weight") and tensor.ndim == 2 and "embeddings." not in name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("embedding", ["dense", "subspace"])
def test_values_are_those_of_numpy_and_the_embedding_is_left_alone(family, embedding, tmp_path):
    model, config = compressed(family, embedding, {})
    model.get_parameter(next(name for name, p in model.named_parameters() if is_matrix(name, p))).data[0] *= (
        1e-7  # too small for fp16
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = {id(p) for p in model.get_input_embeddings().parameters()}
    untouched = {name for name, p in model.named_parameters() if id(p) in table}
    body.round_off(model, "int8")
    file = load_file(storage.save_compressed(model, tmp_path, config, True, body="int8"))
    matrices = [name for name, tensor in before.items() if is_matrix(name, tensor)]
    assert len(matrices) >= 7, "six of a layer, and the head"
    for name in matrices:
        weight = before[name].numpy()
        scales = nearest_bf16(np.abs(weight).max(1, keepdims=True) / np.float32(127))
        numbers = np.clip(np.rint(weight / scales), -127, 127)
        assert file[name].dtype == torch.int8 and np.array_equal(file[name].numpy(), numbers), name
        assert np.array_equal(file[f"{name}_scales"].float().numpy(), scales)
        assert np.array_equal(model.state_dict()[name].numpy(), numbers.astype(np.float32) * scales)
        assert (np.abs(model.state_dict()[name].numpy() - weight) <= 0.501 * scales).all()
    for name in set(before) - set(matrices):
        assert torch.equal(model.state_dict()[name], before[name]) and torch.equal(
            file[name], before[name]
        ), name

    model.load_state_dict(before)
    body.round_off(model, "bf16")
    file = load_file(storage.save_compressed(model, tmp_path, config, True, body="bf16"))
    for name, parameter in model.named_parameters():
        expected = before[name].numpy() if name in untouched else nearest_bf16(before[name].numpy())
        assert np.array_equal(parameter.detach().numpy(), expected), name
        assert file[name].dtype == (torch.float32 if name in untouched else torch.bfloat16)


def test_a_part_that_is_missing_is_named(tmp_path):
    model, config = compressed("bert", "subspace", {})
    path = storage.save_compressed(model, tmp_path, config, True, body="int8")
    tensors = load_file(path)
    del tensors["classifier.weight_scales"]
    save_file(tensors, path)
    with pytest.raises(
        bench.errors.BenchError,
        match=r"model\.safetensors does not hold the model .*classifier\.weight_scales",
    ):
        storage.load_compressed(tmp_path)


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_a_run_is_evaluated_as_it_is_stored_and_exported(tiny, tmp_path, form):
    overrides = [*tiny, *SUBSPACE, f"body={form}", "keep_weights=true"]
    whole = execute(prepare(compose_config([*tiny, *SUBSPACE])))
    prepared = prepare(compose_config(overrides))
    record = execute(prepared)
    assert record["config"] == whole["config"] | {"body": form} and f"-{form}-body/s0" in record["name"]
    assert record["training"]["curve"] == whole["training"]["curve"], "training knows nothing of it"
    kept = store.weights_folder(tmp_path / "results", record["name"], record["run_id"])
    own, others = record["size"], whole["size"]
    assert own["total_bytes"] == tensor_bytes(kept / "model.safetensors") < others["total_bytes"]
    assert {key for key in own if own[key] != others[key]} == {"total_bytes"}
    stored = storage.load_compressed(kept)
    expected = {name: tensor.clone() for name, tensor in stored.state_dict().items()}
    body.round_off(stored, form)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stored.state_dict().items()), (
        "rounding again changes nothing"
    )

    out = tmp_path / "compact"
    assert main(["export", record["run_id"], *tiny, "--onnx", "--evaluate", "--to", str(out)]) == 0
    assert tensor_bytes(out / "model.safetensors") == own["total_bytes"]
    assert f", {form} body" in (card := (out / "README.md").read_text()) and f"rounded to {form}" in card
    facts = json.loads((out / "export.json").read_text())
    assert facts["onnx"]["models"]["model.onnx"]["headline"] == record["headline"]["value"]
    assert torch.equal(logits(bench.load_compressed(out)), logits(stored))
    assert main(["export", record["run_id"], *tiny, "--materialise", "--to", str(tmp_path / "plain")]) == 0
    assert torch.equal(
        logits(AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")), logits(stored)
    )
    assert main(["export", *overrides, f"results_dir={tmp_path}/fresh", "--to", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_the_answers_of_a_run_are_those_of_the_model_that_is_loaded(tiny, tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "glue" / "stsb"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        sentences = [
            [" ".join(rng.choice(["good", "bad", "film", "a", "the"], 5)) for _ in range(48)]
            for _ in range(2)
        ]
        pd.DataFrame(
            {"sentence1": sentences[0], "sentence2": sentences[1], "label": rng.uniform(0, 5, 48)}
        ).to_parquet(folder / f"{split}.parquet")
    prepared = prepare(
        compose_config(
            [*tiny, *SUBSPACE, "task=stsb", f"data.root={tmp_path}", "body=int8", "keep_weights=true"]
        )
    )
    record = execute(prepared)
    answered = store.read_predictions(
        store.predictions_folder(tmp_path / "results", record["name"], record["run_id"]), "validation"
    )
    loaded = storage.load_compressed(
        store.weights_folder(tmp_path / "results", record["name"], record["run_id"])
    )
    elsewhere = replace(prepared, config=replace(prepared.config, results_dir=str(tmp_path / "elsewhere")))
    reader = Reader(load_tokenizer(prepared.config.model), prepared.config.training.max_length)
    (again,) = answers(loaded, elsewhere, "validation", reader, torch.device("cpu"), "fp32")
    assert np.array_equal(again.values, answered)


def test_runs_trained_side_by_side_are_stored_alike(tiny, tmp_path):
    runs = [
        prepare(compose_config([*tiny, *SUBSPACE, "body=int8", "keep_weights=true", f"seed={seed}"]))
        for seed in (0, 1)
    ]
    for record in execute_together(runs):
        assert record["training"]["runs_at_once"] == 2
        kept = store.weights_folder(tmp_path / "results", record["name"], record["run_id"])
        assert tensor_bytes(kept / "model.safetensors") == record["size"]["total_bytes"]


def test_the_sweep_has_every_form_of_both_embeddings():
    runs = make(["sweep=body"]).runs
    assert {(run.config.embedding.name, run.config.body) for run in runs} == {
        (name, form) for name in ("dense", "subspace") for form in body.FORMS
    }
