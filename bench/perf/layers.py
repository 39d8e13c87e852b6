"""The embedding layer alone: forward and backward of three sub-tables beside `nn.Embedding` for the same vocabulary and width."""

import gc
import logging
import statistics
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from bench.models.architectures import EMBEDDINGS, build
from bench.runs.cost import synchronise

ROWS, TOKENS = 32, 128
COUNT = {"cuda": 50, "cpu": 5}  # passes in a turn
log = logging.getLogger("bench")


def layers(backbones: Sequence[str], device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Return for each backbone's dense and f=3 layer the milliseconds of a forward and backward pass, and the peak of memory in bytes.

    The passes are on 32 x 128 random token ids, on a GPU replayed as a CUDA graph as in training. The layers take turns;
    `milliseconds` holds the mean of each turn, `ratio` the ratio of their median to the dense layer's. The peak covers the
    layer's weights and passes. An error ends the measurement of its backbone only, and is written to its rows.
    """
    results = []
    for backbone in backbones:
        rows: list[dict[str, Any]] = [
            {
                "backbone": backbone,
                "embedding": name,
                "milliseconds": [],
                "ratio": None,
                "peak_memory_bytes": None,
                "error": None,
            }
            for name in EMBEDDINGS
        ]
        try:
            _measure(rows, device, repeats)
        except Exception as error:
            log.exception("perf | the layers of %s", backbone)
            for row in rows:
                row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        results += rows
    return results


def _measure(rows: list[dict[str, Any]], device: torch.device, repeats: int) -> None:
    """Measure the layers by turns and write the numbers into their rows."""
    on_gpu, passes = device.type == "cuda", list[Passes]()
    for row in rows:
        _collect(device)
        held = torch.cuda.memory_allocated(device) if on_gpu else 0
        passes.append(Passes(*_layer(row["backbone"], row["embedding"], device), device))
        row["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device) - held if on_gpu else None
    for _ in range(repeats):
        for row, layer in zip(rows, passes, strict=True):
            row["milliseconds"].append(_milliseconds(layer, device))
    for row in rows:
        row["ratio"] = statistics.median(row["milliseconds"]) / statistics.median(rows[0]["milliseconds"])


def _collect(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _layer(backbone: str, embedding: str, device: torch.device) -> tuple[nn.Module, int]:
    model = build(backbone, embedding, torch.device("cpu"))
    return model.get_input_embeddings().to(device), cast(int, model.config.hidden_size)


class Passes:
    """Does a forward and a backward pass when called. It holds the tensors that its CUDA graph reads."""

    def __init__(self, module: nn.Module, width: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.module, self.graph = module, torch.cuda.CUDAGraph() if device.type == "cuda" else None
        self.ids = torch.randint(5, cast(int, module.num_embeddings), (ROWS, TOKENS), generator=generator).to(
            device
        )
        self.upstream = torch.randn(ROWS, TOKENS, width, generator=generator).to(device)
        if self.graph is None:
            self._once()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._once()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self.graph):
            self._once()

    def _once(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None
        self.module(self.ids).backward(self.upstream)

    def __call__(self) -> None:
        self._once() if self.graph is None else self.graph.replay()


def _milliseconds(passes: Passes, device: torch.device) -> float:
    count = COUNT[device.type]
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(count):
        passes()
    synchronise(device)
    return 1000 * (time.perf_counter() - begun) / count
