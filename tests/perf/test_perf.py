"""`bench perf` on a tiny model: every side is measured and written down, one that fails costs no other, the table tells it."""

import json

import numpy as np
import pytest
import torch

from bench.errors import ConfigError
from bench.models.architectures import build
from bench.perf import trainers, workload
from bench.perf.chart import draw
from bench.perf.contestants import ROWS
from bench.perf.measure import measure
from bench.perf.selection import cells
from bench.perf.sides import Work
from bench.perf.startup import startup
from bench.perf.table import label, markdown
from bench.perf.trainers import BestTrainerSide, MaskedLmTrainerSide, TunedTrainerSide
from bench.runs.provenance import ROOT
from bench.settings.compose import compose_config
from tests.perf.conftest import config

CPU = torch.device("cpu")


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
        assert row["runs"] == (2 if row["side"] == "together" else 1)
        assert ("CUDA" in (row["fallback"] or "")) == (row["side"] == "graph"), (
            "graphs fall back to eager on a CPU, and say so"
        )
    table = path.with_suffix(".md").read_text()
    assert table == markdown(report)
    training = table.partition("## Training")[2].partition("###")[0]
    assert sum(line.startswith("| tiny |") for line in training.splitlines()) == len(sides)
    assert [file.name for file in draw(report, path)] == [
        path.with_suffix(end).name for end in (".png", ".svg")
    ]
    drawing = path.with_suffix(".svg").read_text()
    for row in report["rows"]:
        assert all(
            word in drawing for word in (*label(row).split(), f"{np.median(row['examples_per_second']):,.0f}")
        )
    assert "run_glue.py" in table and "cut off" not in table and f"torch {torch.__version__}" in table


def test_a_distillation_and_an_evaluation_are_measured_beside_the_training(tmp_path):
    sides = "perf.sides=[eager,compile_stored,compile_stored_together,trainer_best,predict]"
    path = measure(config(tmp_path, "perf.work=[distillation,evaluation]", sides), CPU)
    report = json.loads(path.read_text())
    rows = [(row["work"], row["embedding"], row["side"]) for row in report["rows"]]
    assert rows == [
        ("distillation", "subspace", "eager"),
        ("distillation", "subspace", "compile_stored"),
        ("distillation", "subspace", "compile_stored_together"),
        ("evaluation", "dense", "trainer_best"),
        ("evaluation", "dense", "predict"),
    ]
    assert all(row["error"] is None and len(row["examples_per_second"]) == 2 for row in report["rows"])
    *distillations, trainer, ours = report["rows"]
    assert [row["runs"] for row in distillations] == [1, 1, 2]
    lengths = workload.synthetic_rows("tiny", "distillation", distillations[0]["rows"]).lengths
    for measured, passes in zip(distillations, (4, 3, 3), strict=True):
        speed = np.median(measured["examples_per_second"])
        flops = workload.flops_per_row("tiny", passes, lengths)
        assert measured["matrix_flops_per_second"] == pytest.approx(speed * flops)
    times = np.median(ours["examples_per_second"]) / np.median(trainer["examples_per_second"])
    seconds = ours["rows"] / np.median(ours["examples_per_second"])
    table = path.with_suffix(".md").read_text()
    assert f"| {seconds:.1f} s | {times:.1f} |" in table.partition("## Evaluation")[2]
    assert "Trainer's evaluation at its best" in table and "teacher's states stored" in table


def test_a_pretraining_is_measured_beside_the_trainer(tmp_path):
    sides = "perf.sides=[trainer_mlm,eager]"
    path = measure(config(tmp_path, "perf.work=[pretraining]", sides), CPU)
    trainer, dense, subspace = json.loads(path.read_text())["rows"]
    assert [row["error"] for row in (trainer, dense, subspace)] == [None] * 3
    assert (trainer["side"], dense["side"], subspace["embedding"]) == ("trainer_mlm", "eager", "subspace")
    speed, peer = (np.median(row["examples_per_second"]) for row in (dense, trainer))
    table = path.with_suffix(".md").read_text()
    assert f"| {128 * speed:,.0f} | {speed / peer:.1f} |" in table.partition("## Pretraining")[2]
    assert (
        "### f=3 tables beside the dense table, in pretraining" in table and "run_mlm.py pretrains" in table
    )
    assert "run_mlm.py" in draw(json.loads(path.read_text()), path)[1].read_text()


def test_the_trainer_adds_up_the_gradients_of_parts_where_logits_are_many(monkeypatch):
    monkeypatch.setattr(trainers, "MOST_LOGITS", 2 * 128 * 1000)
    model, work = (
        build("tiny", "dense", CPU),
        Work(workload.synthetic_rows("tiny", "pretraining", 16), 8, 1, 1, CPU),
    )
    side = MaskedLmTrainerSide(model, work)
    arguments = side.trainer.args
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 4)


def row(side, speed, **others):
    return {
        "work": "training",
        "backbone": "xlm-r-base",
        "embedding": "dense",
        "batch_size": 32,
        "side": side,
        "runs": 1,
        "rows": 1600,
        "dtype": "bf16",
        "examples_per_second": [speed],
        "matrix_flops_per_second": speed * 1e9,
        "peak_memory_bytes": 4 * 2**30,
        "start_seconds": 1.0,
        "fallback": None,
        "error": None,
        **others,
    }


def test_the_ratio_to_the_strongest_peer_stands_first_and_that_of_small_tables_to_dense_beside_it(tmp_path):
    report = json.loads(measure(config(tmp_path, "perf.sides=[eager]"), CPU).read_text())
    half = {"embedding": "subspace", "peak_memory_bytes": 2 * 2**30}
    report["rows"] = [
        row("trainer", 400.0, dtype="fp32"),
        row("trainer_best", 2000.0),
        row("compile", 8000.0),
        row("compile", 12000.0, **half),
        row("compile", 99.0, batch_size=128),
    ]
    report["matrix_flops_per_second"] = 1e14
    table = markdown(report)
    assert "| × Trainer at its best | × Trainer as documented |" in table
    assert "| 8,000 – 8,000 | 4.0 | 20.0 |  | 8.0% | 4.0 GiB |" in table
    assert "| 12,000 – 12,000 | 6.0 | 30.0 |" in table and "| 99 – 99 |  |  |  |" in table
    assert "| xlm-r-base | 32 | ours, compiled | 1.50 | 0.50 |" in table
    draw(report, tmp_path / "chart")
    assert "8,000 (4.0× / 20.0×)" in (tmp_path / "chart.svg").read_text()


@pytest.mark.parametrize(
    "report", sorted((ROOT / "results" / "perf").glob("*.json")), ids=lambda path: path.stem
)
def test_every_committed_report_is_drawn(tmp_path, report):
    """Some were measured before there was a stronger peer."""
    assert [file.exists() for file in draw(json.loads(report.read_text()), tmp_path / "chart")] == [
        True,
        True,
    ]


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
    def broken(*_, **__):
        raise RuntimeError("no such card")

    monkeypatch.setattr(TunedTrainerSide, "options", broken)
    path = measure(config(tmp_path, "perf.sides=[trainer_tuned,eager]", "perf.embeddings=[dense]"), CPU)
    failed, good = json.loads(path.read_text())["rows"]
    assert failed["error"] == "RuntimeError: no such card" and failed["examples_per_second"] == []
    assert good["error"] is None and len(good["examples_per_second"]) == 2
    assert "no such card" in path.with_suffix(".md").read_text()


def test_the_whole_selection_on_a_gpu_and_the_small_one_on_a_cpu():
    perf = compose_config([]).perf
    whole = [(cell.work, cell.backbone, cell.batch_size, cell.contestants) for cell in cells(perf, True)]
    trainers = [("dense", side) for side in ("trainer", "trainer_tuned", "trainer_best")]
    compiled = [("dense", "compile"), ("subspace", "compile")]
    for backbone in ("e5-small", "xlm-r-base", "bert-base"):
        assert [contestants for work, name, size, contestants in whole if (work, name, size) == ("training", backbone, 32)] == [
            [*trainers, *compiled],
            [("dense", "compile_together")],
            [("subspace", "compile_together")],
        ]  # fmt: skip
    ours = [
        (embedding, side) for embedding in ("dense", "subspace") for side in ("eager", "graph", "compile")
    ]
    assert ("training", "minilm", 32, [*trainers, *ours]) in whole
    assert [cell for cell in whole if cell[2] == 128] == [("training", "bert-base", 128, compiled)]
    sides = ("graph", "compile", "compile_stored", "compile_stored_together")
    distilled = [("subspace", side) for side in sides]
    graphs = [(embedding, side) for embedding in ("dense", "subspace") for side in ("graph", "compile")]
    pretrained = [("dense", "trainer_mlm"), *graphs]
    assert [cell for cell in whole if cell[0] != "training"] == [
        ("distillation", "e5-small", 256, distilled),
        ("distillation", "minilm", 256, distilled),
        ("evaluation", "e5-small", 1024, [("dense", "trainer_best"), ("dense", "predict")]),
        ("evaluation", "bert-base", 1024, [("dense", "trainer_best"), ("dense", "predict")]),
        ("pretraining", "minilm", 256, pretrained),
        ("pretraining", "xlm-r-small", 256, pretrained),
    ]
    small = cells(perf, on_gpu=False)
    assert [(cell.work, cell.backbone) for cell in small] == [
        (work, "minilm") for work in ("training", "distillation", "evaluation", "pretraining")
    ]
    assert ("dense", "trainer_best") not in small[0].contestants


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("perf.backbones=[minilmm]", "Unknown perf.backbones 'minilmm'. Did you mean 'minilm'"),
        ("perf.sides=[trainr]", "'trainer'"),
        ("perf.work=[evaluate]", "'evaluation'"),
        ("perf.repeats=0", r"perf.repeats \(\[0\]\)"),
        ("perf.together=1", r"perf.together \(1\)"),
        ("perf.examples=-1", "perf.examples"),
        ("perf.examples=0", "perf.examples"),
    ],
)
def test_a_wrong_selection_is_refused(tmp_path, override, words):
    with pytest.raises(ConfigError, match=words):
        measure(config(tmp_path, override), CPU)


def test_the_strongest_peer_gets_one_shape():
    """CUDA graphs of torch.compile want it: MRPC's longest row has 103 tokens."""
    rows = workload.synthetic_rows("tiny", "training", 3668)
    assert rows.lengths.max() == 103 and BestTrainerSide.pad_to(BestTrainerSide, rows) == 104


@pytest.mark.gpu
def test_on_a_gpu_every_side_is_measured(tmp_path, monkeypatch):
    """In a training on the dense model only: each embedding would be compiled."""
    monkeypatch.setitem(ROWS["cuda"], "distillation", 512)  # two steps of a recovery
    sides = "perf.sides=[trainer_best,compile,compile_together,graph,compile_stored,compile_stored_together]"
    asked = ["perf.work=[training,distillation]", "perf.embeddings=[dense]", sides]
    path = measure(config(tmp_path, *asked), torch.device("cuda"))
    rows = json.loads(path.read_text())["rows"]
    assert [row["side"] for row in rows] == [
        *("trainer_best", "compile", "graph", "compile_together"),
        *("compile", "graph", "compile_stored", "compile_stored_together"),
    ]
    assert [row["error"] for row in rows] == [None] * len(rows)
    assert [row["fallback"] for row in rows] == [None] * len(rows)


def test_the_seconds_from_a_process_to_its_first_step_are_measured_on_the_commands_themselves():
    found = startup(CPU)
    assert found["error"] is None
    assert found["first_step_seconds"] > 0 and found["next_run_seconds"] > 0
