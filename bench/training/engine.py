"""How the steps are run: eager anywhere, or on a GPU as one CUDA graph per length, so that the card never waits for Python.

Several runs of one task can train side by side. In a graph each is a branch of its own, so that the card works on all of
them at once: at the batch sizes of fine-tuning one run's small kernels leave most of it idle.
"""

import gc
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from bench.training import processes
from bench.training.bf16_weights import Projections
from bench.training.lane import Lane

log = logging.getLogger("bench")
ENGINES = ("auto", "eager", "graph", "compile")
ROUND = 8  # graphs exist for lengths in multiples of this
PADDING = 1e12  # floating point operations on padding that save a graph: some 30 ms of a GPU, less than it takes to capture one


class Engine:
    """Runs the steps of one or several lanes, all on the same device and with the same number of steps, in turn."""

    name = "eager"

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self.lengths = [
            int(max(at_once)) for at_once in zip(*(lane.schedule.lengths for lane in lanes), strict=True)
        ]

    def step(self, number: int) -> None:
        """Do the step `number` (from 0) of every lane; steps must be done in order."""
        for lane in self.lanes:
            lane.step(self.lengths[number])


@cache
def stream(number: int) -> torch.cuda.Stream:
    """Return the same stream each time: for every stream that it ran on, cuBLAS keeps 64 MiB of an H100's memory."""
    return torch.cuda.Stream()


class GraphEngine(Engine):
    """The same steps as CUDA graphs, one for each padded length, all in one memory pool."""

    name = "graph"

    def __init__(self, lanes: Sequence[Lane]) -> None:
        super().__init__(lanes)
        most = max(int(lane.data.lengths.max()) for lane in lanes)
        self.lengths = buckets(
            self.lengths, most, lanes[0].config.batch_size * flops_per_token(lanes[0].model)
        )
        random_state = torch.cuda.get_rng_state()
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.stream, *self.branches = (stream(number) for number in range(1 + len(lanes)))
        pool = torch.cuda.graph_pool_handle()
        for length in sorted(
            set(self.lengths), reverse=True
        ):  # longest first: the shorter ones reuse its memory
            gc.collect()  # the previous run's graphs: to destroy one while another is captured ends the capture
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for lane in lanes:
                    lane.rehearse()
                self._side_by_side(length)
            torch.cuda.current_stream().wait_stream(self.stream)
            self.graphs[length] = torch.cuda.CUDAGraph()
            with uncollected(), torch.cuda.graph(self.graphs[length], pool=pool, stream=self.stream):
                self._side_by_side(length)
        for lane in lanes:
            lane.reset()
        torch.cuda.set_rng_state(random_state)

    def _side_by_side(self, length: int) -> None:
        for branch in self.branches:
            branch.wait_stream(self.stream)
        try:
            for lane, branch in zip(self.lanes, self.branches, strict=True):
                with torch.cuda.stream(branch):
                    lane.step(length)
        finally:  # else the end of the capture fails too, and hides why
            for branch in self.branches:
                self.stream.wait_stream(branch)

    def step(self, number: int) -> None:
        self.graphs[self.lengths[number]].replay()


class CompiledEngine(GraphEngine):
    """CUDA graphs of a forward and backward pass that torch.compile has fused."""

    name = "compile"

    def __init__(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            lane.compile()
        super().__init__(lanes)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python's garbage collector away."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def make_engine(choice: str, lanes: Sequence[Lane]) -> tuple[Engine, str | None]:
    """Return the engine, and why it is not the one asked for (None if it is).

    `auto` is `graph` on a GPU and `eager` on a CPU. What cannot be compiled is captured as it is; a capture that fails
    falls back to eager.
    """
    on_gpu = lanes[0].device.type == "cuda"
    wanted = choice if choice != "auto" else "graph" if on_gpu else "eager"
    if wanted == "eager" or not on_gpu or processes.COUNT > 1:
        needs = "runs in one process only" if on_gpu else "needs a CUDA device"
        return _told(Engine(lanes), None if wanted == "eager" else f"training.engine={wanted} {needs}")
    random_state, reason = torch.cuda.get_rng_state(), None
    for kind in (CompiledEngine, GraphEngine) if wanted == "compile" else (GraphEngine,):
        try:
            return _told(kind(lanes), reason)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(
                generator.clone_state()
            )  # one that does not believe itself in a capture any more
            torch.cuda.set_rng_state(random_state)
            for lane in lanes:
                lane.uncompile()
                lane.reset()
            reason = f"the {kind.name} engine could not take the step ({str(error).splitlines()[0]})"
    return _told(Engine(lanes), reason)


def _told(engine: Engine, reason: str | None) -> tuple[Engine, str | None]:
    if reason:
        log.warning("%s: training goes on with the %s engine", reason, engine.name)
    return engine, reason


def buckets(lengths: Sequence[int], most: int, flops: float) -> list[int]:
    """Return the length that each step is padded to, at most `most`: few enough that every graph is worth its capture.

    `flops` are a step's floating point operations on one more token in each row. A graph takes the steps of shorter
    lengths, too, as long as that pads them by no more than PADDING operations in all.
    """
    rounded = [min(math.ceil(length / ROUND) * ROUND, most) for length in lengths]
    padded, top, spent = dict[int, int](), 0, 0.0
    for length, count in sorted(Counter(rounded).items(), reverse=True):
        spent += count * (top - length) * flops
        if not padded or spent > PADDING:
            top, spent = length, 0.0
        padded[length] = top
    return [padded[length] for length in rounded]


def flops_per_token(model: nn.Module) -> int:
    """Return the operations on one token in a step: six for each weight of a linear layer (Kaplan et al. 2020, section 2.1)."""
    return 6 * sum(
        layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear | Projections)
    )
