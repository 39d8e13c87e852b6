"""`bench perf` on a tiny model: every side trains and is written down, one that fails costs no other, the table tells it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from bench.errors import ConfigError
from bench.models import architectures
from bench.perf import workload
from bench.perf.chart import draw
from bench.perf.measure import measure
from bench.perf.selection import cells, resolve
from bench.perf.startup import startup
from bench.perf.table import label, markdown
from bench.settings.compose import compose_config

CPU = torch.device("cpu")
TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 1000,
}


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setitem(
        architectures.ARCHITECTURES, "tiny", (BertForSequenceClassification, BertConfig, TINY)
    )


def config(folder, *others):
    return compose_config(
        [
            "perf.backbones=[tiny]",
            "perf.examples=16",
            "perf.batch_sizes=[8]",
            "perf.repeats=2",
            "perf.together=2",
            "perf.startup=false",
            "perf.layers=false",
            f"results_dir={folder}",
            *others,
        ]
    )


def test_every_side_is_measured_and_named_and_the_table_holds_each(tmp_path):
    path = measure(config(tmp_path, "perf.sides=[trainer,trainer_tuned,eager,graph,together]"), CPU)
    report = json.loads(path.read_text())
    assert report["complete"] and "random weights" in report["data"] and "synthetic" in report["data"]
    sides = [
        ("dense", "trainer"),
        ("dense", "trainer_tuned"),
        ("dense", "eager"),
        ("dense", "graph"),
        ("subspace", "eager"),
        ("subspace", "graph"),
        ("dense", "together"),
        ("subspace", "together"),
    ]
    assert [(row["embedding"], row["side"]) for row in report["rows"]] == sides
    for row in report["rows"]:
        assert row["error"] is None
        assert len(row["examples_per_second"]) == 2 and min(row["examples_per_second"]) > 0
        assert len(row["eval_examples_per_second"]) == (0 if row["side"] == "together" else 2)
        assert row["runs"] == (2 if row["side"] == "together" else 1)
        assert ("CUDA" in (row["fallback"] or "")) == (row["side"] == "graph"), (
            "graphs fall back to eager on a CPU, and say so"
        )
    table = path.with_suffix(".md").read_text()
    assert table == markdown(report)
    assert sum(line.startswith("| tiny |") for line in table.splitlines()) == len(sides)
    assert [file.name for file in draw(report, path)] == [
        path.with_suffix(end).name for end in (".png", ".svg")
    ]
    drawing = path.with_suffix(".svg").read_text()
    assert all(
        drawing.count(f"<!-- {label(row)}, {row['embedding']} (fp32) -->") == 1 for row in report["rows"]
    )
    assert "run_glue.py" in table and "cut off" not in table and f"torch {torch.__version__}" in table


def test_the_layers_alone_are_measured_beside_the_dense_one(tmp_path):
    path = measure(config(tmp_path, "perf.layers=true", "perf.sides=[eager]"), CPU)
    dense, subspace = json.loads(path.read_text())["layers"]
    assert (dense["embedding"], dense["ratio"], subspace["embedding"]) == ("dense", 1, "subspace")
    assert subspace["ratio"] == pytest.approx(
        np.median(subspace["milliseconds"]) / np.median(dense["milliseconds"])
    )
    assert (
        f"| tiny | subspace | {np.median(subspace['milliseconds']):.3f} | {subspace['ratio']:.2f} |"
        in path.with_suffix(".md").read_text()
    )


def test_layers_that_cannot_be_measured_are_told_and_the_sides_go_on(tmp_path, monkeypatch):
    from bench.perf import layers

    def full(*_):
        raise RuntimeError("no room on the card")

    monkeypatch.setattr(layers, "_layer", full)
    path = measure(config(tmp_path, "perf.layers=true", "perf.sides=[eager]"), CPU)
    report = json.loads(path.read_text())
    assert [row["error"] for row in report["layers"]] == ["RuntimeError: no room on the card"] * 2
    assert report["complete"] and report["rows"][0]["error"] is None
    assert "| tiny | dense | RuntimeError: no room" in path.with_suffix(".md").read_text()


def test_a_side_that_fails_is_told_and_costs_no_other(tmp_path, monkeypatch):
    from bench.perf import sides

    def broken(*_, **__):
        raise RuntimeError("no such card")

    monkeypatch.setattr(sides.TunedTrainerSide, "options", broken)
    path = measure(config(tmp_path, "perf.sides=[trainer_tuned,eager]", "perf.embeddings=[dense]"), CPU)
    failed, good = json.loads(path.read_text())["rows"]
    assert failed["error"] == "RuntimeError: no such card" and failed["examples_per_second"] == []
    assert good["error"] is None and len(good["examples_per_second"]) == 2
    assert "no such card" in path.with_suffix(".md").read_text()


def test_what_is_measured_is_kept_when_the_measurement_is_cut_off(tmp_path, monkeypatch):
    from bench.perf import sides

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sides.EngineSide, "train", cut_off)
    with pytest.raises(KeyboardInterrupt):
        measure(config(tmp_path, "perf.sides=[trainer,eager]", "perf.embeddings=[dense]"), CPU)
    (path,) = Path(tmp_path, "perf").glob("*.json")
    report = json.loads(path.read_text())
    assert not report["complete"] and len(report["rows"][0]["examples_per_second"]) == 1
    assert "cut off" in path.with_suffix(".md").read_text()


def test_the_whole_selection_on_a_gpu_and_the_small_one_on_a_cpu():
    whole = resolve(compose_config([]).perf, on_gpu=True)
    backbones, alone = (
        ("bert-base", "minilm", "xlm-r-base"),
        ("trainer", "trainer_tuned", "eager", "graph", "compile"),
    )
    singles = [*[("dense", side) for side in alone], *[("subspace", side) for side in alone[2:]]]
    several = [
        [(embedding, side) for side in ("together", "compile_together")]
        for embedding in ("dense", "subspace")
    ]
    assert [(cell.backbone, cell.batch_size, cell.contestants) for cell in cells(whole)] == [
        *[(backbone, 32, singles) for backbone in backbones],
        *[(backbone, 32, sides) for backbone in backbones for sides in several],
        *[(backbone, 128, singles) for backbone in backbones],
    ]
    (small,) = cells(resolve(compose_config([]).perf, on_gpu=False))
    assert (small.backbone, small.batch_size) == ("minilm", 32)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("perf.backbones=[minilmm]", "Unknown perf.backbones 'minilmm'. Did you mean 'minilm'"),
        ("perf.sides=[trainr]", "'trainer'"),
        ("perf.repeats=0", r"perf.repeats \(\[0\]\)"),
        ("perf.together=1", r"perf.together \(1\)"),
        ("perf.examples=-1", "perf.examples"),
    ],
)
def test_a_wrong_selection_is_refused(tmp_path, override, words):
    with pytest.raises(ConfigError, match=words):
        measure(config(tmp_path, override), CPU)


def test_synthetic_rows_are_as_long_as_those_of_mrpc_and_the_same_for_every_backbone():
    rows = workload.synthetic_rows("tiny", 3668, seed=0)
    assert abs(rows.lengths.mean() - 53.2) < 1 and rows.lengths.min() >= 19 and rows.lengths.max() <= 103
    assert (rows.lengths == workload.synthetic_rows("xlm-r-base", 3668, seed=0).lengths).all()
    padded = rows.dataset(pad_to=128, pad_token_id=7)
    assert {
        len(row) for name in ("input_ids", "token_type_ids", "attention_mask") for row in padded[name]
    } == {128}
    assert sum(padded[0]["attention_mask"]) == rows.lengths[0] and padded[0]["input_ids"][-1] == 7


def test_operations_are_those_that_pytorch_counts():
    rows = workload.synthetic_rows("tiny", 3668, seed=0)
    model, counted = architectures.build("tiny", "dense", CPU), []
    model.config._attn_implementation = "eager"
    for ids in rows.ids[:40]:
        with FlopCounterMode(display=False) as counter:
            model.bert(torch.tensor([ids])).last_hidden_state.sum().backward()
        counted.append(counter.get_total_flops())
    scale = np.mean([len(ids) for ids in rows.ids]) / np.mean([len(ids) for ids in rows.ids[:40]])
    assert workload.flops_per_row("tiny") == pytest.approx(np.mean(counted) * scale, rel=0.05)


def test_the_seconds_from_a_process_to_its_first_step_are_measured_on_the_commands_themselves():
    found = startup(CPU)
    assert found["error"] is None
    assert found["first_step_seconds"] > found["next_run_seconds"] > 0, (
        "a warm worker is quicker than a new process"
    )
