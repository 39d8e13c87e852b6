"""What an export weighs, and how fast it loads and answers: `python tests/support/export_figures.py xlm-r-base` and `... minilm`.

XLM-R-base has random weights here (its sizes and times are those of trained ones) and codes drawn at random, stored as
contextual ones are. MiniLM is trained for 60 steps as in the sweep `demo`. Minutes on two cores.
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from bench.embeddings import method
from bench.embeddings.base import Source
from bench.export import command, folder
from bench.models import pretrained, storage
from bench.runs import provenance
from bench.settings.embeddings import DenseConfig, EmbeddingConfig, SubspaceConfig

MINILM = [
    "task=lexical_sentiment",
    "training.max_steps=60",
    "training.batch_size=16",
    "training.learning_rate=1e-4",
]
POINTS = {
    "dense": ["embedding=dense"],
    "contextual f=3 Q=32": ["embedding=subspace", "assignment=contextual"],
    "pq f=48 Q=60": ["embedding=subspace", "assignment=pq", "embedding.subspaces=48", "embedding.rows=60"],
}
REPEATS = 5  # processes that load each model
PAIRS = {(1, 16): 180}  # (batch, sequence) -> pairs of a dense and a compressed answer


@dataclass(frozen=True)
class Figure:
    """One number with its limit; `interval` is 95 %, by bootstrap over pairs or processes."""

    model: str
    what: str
    value: float
    unit: str
    interval: str = ""
    limit: str = ""


def xlm_r(to: Path) -> SubspaceConfig:
    """Write dense/, plain/ (a checkpoint as transformers writes it) and small/ below `to`; return the compressed embedding's configuration."""
    torch.manual_seed(0)
    architecture = transformers.XLMRobertaConfig(
        vocab_size=250_002,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=3,
    )
    model = transformers.AutoModelForSequenceClassification.from_config(architecture).eval()
    model.save_pretrained(to / "plain")
    saved(model, to / "dense", DenseConfig(), False)
    table, chosen = pretrained.table(model), method("subspace")
    config = chosen.resolve(SubspaceConfig(subspaces=3), *table.shape)
    codes = np.random.default_rng(0).integers(0, config.rows, (len(table), 3), dtype=np.int32)
    pretrained.swap_embedding(model, chosen.build(config, Source(table, 1, codes)))
    saved(model, to / "small", config, True)
    return config


def saved(model: Any, to: Path, config: EmbeddingConfig, codes_stored: bool) -> None:
    with folder.new_folder(to) as target:
        storage.save_compressed(model, target, config, codes_stored)


def loaded(kind: str, path: Path) -> Any:
    """Return the model as its users load it: `plain` by transformers, which checks nothing, the others after their digests."""
    if kind == "plain":
        return transformers.AutoModelForSequenceClassification.from_pretrained(path)
    return folder.load_compressed(path)


def resident() -> int:
    """Return the bytes of this process that lie in memory."""
    return 1024 * int(
        next(
            line.split()[1]
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
    )


def load_once(kind: str, path: Path) -> dict[str, float]:
    """Return how long loading took, until the call returned and until every weight was read, and the memory that it took."""
    assert transformers.XLMRobertaForSequenceClassification  # imported before the clock starts
    before, begun = resident(), time.perf_counter()
    model = loaded(kind, path)
    returned = time.perf_counter() - begun
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.sum()
    return {
        "returned": returned,
        "ready": time.perf_counter() - begun,
        "grown": resident() - before,
        "resident": resident(),
    }


def interval(statistic: Callable[[np.ndarray], np.ndarray], *samples: np.ndarray) -> str:
    """Return the bootstrap's 95 % interval; `statistic` gets resampled (n, 2000) columns, the samples' rows apart if there are several."""
    rng = np.random.default_rng(0)
    low, high = np.quantile(
        statistic(*(sample[rng.integers(len(sample), size=(len(sample), 2000))] for sample in samples)),
        [0.025, 0.975],
    )
    return f"{low:.3g} to {high:.3g}"


def loading(to: Path) -> list[Figure]:
    """Measure loading and memory in fresh processes that have imported everything, the kinds in turn."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(
        ["bench.export.command", "transformers.models.xlm_roberta.modeling_xlm_roberta"]
    )
    found: dict[str, list[dict[str, float]]] = {"plain": [], "dense": [], "small": []}
    for _ in range(REPEATS):
        for kind, measured in found.items():
            with fresh.Pool(1) as one:
                measured.append(one.apply(load_once, (kind, to / kind)))
    times = {
        (kind, key): np.array([one[key] for one in measured])
        for kind, measured in found.items()
        for key in measured[0]
    }
    figures = []
    for kind, name in (
        ("plain", "dense, from_pretrained (no digests)"),
        ("dense", "dense, load_compressed (digests checked)"),
        ("small", "compressed, load_compressed (digests checked)"),
    ):
        figures += [
            Figure(
                "xlm-r-base",
                f"seconds until the call returns: {name}",
                float(np.median(times[kind, "returned"])),
                "s",
            ),
            Figure(
                "xlm-r-base",
                f"seconds until every weight was read: {name}",
                float(np.median(times[kind, "ready"])),
                "s",
            ),
            Figure(
                "xlm-r-base",
                f"memory taken by the model, all weights read: {name}",
                float(np.median(times[kind, "grown"])),
                "bytes",
            ),
            Figure(
                "xlm-r-base",
                f"memory of the whole process: {name}",
                float(np.median(times[kind, "resident"])),
                "bytes",
            ),
        ]
    for reference in ("dense", "plain"):
        for key, what, limit in (
            ("ready", "loading until every weight was read", ">= 2"),
            ("returned", "loading until the call returns", ""),
        ):
            ratio = times[reference, key], times["small", key]
            figures.append(
                Figure(
                    "xlm-r-base",
                    f"{what}: times as fast as {reference}",
                    float(np.median(ratio[0]) / np.median(ratio[1])),
                    "x",
                    interval(lambda a, b: np.median(a, 0) / np.median(b, 0), *ratio),
                    limit if reference == "dense" else "",
                )
            )
    for key, what in (
        ("grown", "memory taken by the model, less than dense"),
        ("resident", "memory of the whole process, less than dense"),
    ):
        saving = 1 - np.median(times["small", key]) / np.median(times["dense", key])
        figures.append(Figure("xlm-r-base", what, 100 * float(saving), "%", "", ">= 60"))
    return figures


def latency(to: Path) -> list[Figure]:
    """Time answers of both models in turn, on one thread: dense first in every other pair; CPU time, which other work leaves alone."""
    torch.set_num_threads(1)
    models = {kind: loaded(kind, to / kind).eval() for kind in ("dense", "small")}
    figures = []
    for (rows, length), pairs in PAIRS.items():
        ids = torch.randint(5, 250_002, (rows, length), generator=torch.Generator().manual_seed(0))
        times: dict[str, list[float]] = {"dense": [], "small": []}
        with torch.inference_mode():
            for pair in range(pairs + 3):
                for kind in ("dense", "small") if pair % 2 else ("small", "dense"):
                    begun = time.thread_time()
                    models[kind](input_ids=ids)
                    times[kind].append(time.thread_time() - begun)
        dense, small = (np.array(times[kind][3:]) for kind in ("dense", "small"))
        where = f"batch {rows}, sequence {length}, CPU time on 1 thread"
        figures += [
            Figure("xlm-r-base", f"latency, dense, {where}", 1000 * float(np.median(dense)), "ms"),
            Figure(
                "xlm-r-base",
                f"latency of compressed over dense, median of {pairs} pairs, {where}",
                float(np.median(small / dense)),
                "x",
                interval(lambda ratio: np.median(ratio, 0), small / dense),
                "<= 1.02",
            ),
        ]
    return figures


def xlm_r_figures(to: Path) -> list[Figure]:
    config = xlm_r(to)
    table = 250_002 * 768 * 4
    embedding = method("subspace").size(config, 250_002, 768, True).bytes
    whole, small = ((to / kind / "model.safetensors").stat().st_size for kind in ("dense", "small"))
    stored = small - (whole - table)  # the same file but for the embedding, its header's difference included
    return [
        Figure("xlm-r-base", f"embedding on disk at f=3 Q={config.rows}, codes packed", stored, "bytes"),
        Figure(
            "xlm-r-base",
            "embedding on disk, of the dense table's fp32 bytes",
            100 * stored / table,
            "%",
            "",
            "<= 0.11",
        ),
        Figure("xlm-r-base", "the same by formula", 100 * embedding / table, "%"),
        Figure("xlm-r-base", "whole-model file, dense", whole, "bytes"),
        Figure("xlm-r-base", "whole-model file, compressed", small, "bytes"),
        Figure(
            "xlm-r-base", "whole-model file, less than dense", 100 * (1 - small / whole), "%", "", ">= 60"
        ),
        *loading(to),
        *latency(to),
    ]


def minilm_figures(to: Path) -> list[Figure]:
    """Train MiniLM dense and compressed, export each with ONNX and int8, and score every file on the reported split."""
    figures, dense = [], 0
    folders = [f"results_dir={to}/results", f"cache_dir={to}/cache"]
    for name, overrides in POINTS.items():
        command.export([*MINILM, *overrides, *folders, "--int8", "--evaluate", "--to", str(to / name)])
        facts = json.loads((to / name / "export.json").read_text())
        dense = dense or facts["files"]["model.safetensors"]
        for file, limit in (("model.safetensors", 50), ("model.onnx", None), ("model-int8.onnx", 15)):
            share, bounded = 100 * facts["files"][file] / dense, limit and name == "contextual f=3 Q=32"
            figures += [
                Figure("minilm", f"{name}, {file}", facts["files"][file], "bytes"),
                Figure(
                    "minilm",
                    f"{name}, {file}, of the dense model.safetensors",
                    share,
                    "%",
                    "",
                    f"<= {limit}" if bounded else "",
                ),
            ]
            if file != "model.safetensors":
                one = facts["onnx"]["models"][file]
                figures.append(
                    Figure(
                        "minilm",
                        f"{name}, {file}: accuracy on lexical_sentiment's test split (synthetic, one seed)",
                        100 * one["headline"],
                        "%",
                    )
                )
        print(name, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["xlm-r-base", "minilm"])
    parser.add_argument("--to", type=Path, default=Path("results/example/export"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = (minilm_figures if arguments.model == "minilm" else xlm_r_figures)(Path(scratch))
    write(pd.DataFrame(figures), arguments.to, figures[0].model)


def write(frame: pd.DataFrame, to: Path, name: str) -> None:
    """Write <name>.csv and <name>.md, with the machine and the versions."""
    known = provenance.provenance(torch.device("cpu"))
    to.mkdir(parents=True, exist_ok=True)
    frame.to_csv(to / f"{name}.csv", index=False)
    shown = frame.assign(
        value=[
            f"{value:,.0f}" if unit == "bytes" else f"{value:.3f}"
            for value, unit in zip(frame.value, frame.unit, strict=True)
        ]
    )
    rows = "\n".join(f"| {' | '.join(map(str, row))} |" for row in shown.itertuples(index=False))
    packages = ", ".join(
        f"{name} {version}"
        for name, version in known["packages"].items()
        if name in ("torch", "transformers")
    )
    (to / f"{name}.md").write_text(
        f"# {name} exported, measured\n\n`python tests/support/export_figures.py {name}`, commit {known['commit']}; {platform.machine()} CPU, "
        f"{known['threads']} threads, {packages}, Python {known['python']}.\n\n{__doc__.split(chr(10), 2)[2].strip()}\n\n"
        f"| {' | '.join(frame.columns)} |\n|---|---|--:|---|---|---|\n{rows}\n"
    )


if __name__ == "__main__":
    main()
