"""How the steps run: eager anywhere, or on a GPU as one CUDA graph per length, so that the GPU never waits for Python.

Several runs of one task can train side by side, each on a stream of its own, so that the GPU works on all of them at once:
at the batch sizes of fine-tuning, the small kernels of a single run leave most of it idle. They share no random numbers and
no length, so that each run computes what it would alone.
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
from bench.training.compilation import first_lengths
from bench.training.lane import Lane

log = logging.getLogger("bench")
ROUND = 8  # graphs exist for lengths in multiples of this
PADDING = 1e12  # floating point operations on padding that a graph less may cost: about 30 ms, less than its capture


class Engine:
    """Runs the steps of one or more lanes, all on the same device and with the same number of steps."""

    name = "eager"

    def __init__(self, lanes: Sequence[Lane]) -> None:
        if len({len(lane.schedule.rates) for lane in lanes}) > 1:
            raise ValueError("the runs have different numbers of steps")
        self.lanes = lanes

    def step(self, number: int) -> None:
        """Run step `number` (from 0) of every lane, each as if it were alone; steps must run in order."""
        for lane in self.lanes:
            with lane.random.active():
                lane.step(int(lane.schedule.lengths[number]))

    def join(self) -> None:
        """Make what follows on the device wait for the steps so far."""


@cache
def stream(number: int) -> torch.cuda.Stream:
    """Return the same stream each time: cuBLAS keeps 64 MiB of an H100's memory for every stream that it ran on."""
    return torch.cuda.Stream()


class Graphs:
    """The steps of a lane as CUDA graphs, one for each padded length, on a stream and in a memory pool of their own.

    Graphs of lanes that train side by side get an idle branch. CUDA launches a graph that is a straight line in a way of its
    own, by which several overlap less: with the branch four MiniLM lanes train 15 % faster (H200, 32 rows).
    """

    def __init__(self, lane: Lane, on: torch.cuda.Stream, branch: torch.cuda.Stream | None) -> None:
        self.lane, self.stream, self.branch = lane, on, branch
        self.pool, self.idle = torch.cuda.graph_pool_handle(), torch.zeros(1, device=lane.device)
        flops = lane.config.batch_size * flops_per_token(lane.model)
        self.lengths = buckets(lane.schedule.lengths.tolist(), int(lane.data.lengths.max()), flops)

        # Capture a graph for each length, longest first, so that the shorter ones reuse its memory. What is compiled is so before,
        # for the same lengths in all runs.
        with lane.random.active():
            for length in first_lengths(lane.model, self.lengths) if lane.compiled else ():
                self._rehearse(length)
            self.graphs = {
                length: self._capture(length) for length in sorted(set(self.lengths), reverse=True)
            }

        # Forget what the rehearsals did.
        lane.reset()
        self.stream.wait_stream(torch.cuda.current_stream())

    def _rehearse(self, length: int) -> None:
        """Take a step at learning rate 0, so that kernels are compiled and memory is allocated."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.lane.rehearse()
            self.lane.step(length)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _capture(self, length: int) -> torch.cuda.CUDAGraph:
        """Return the graph of a step, padded to `length` tokens, after a rehearsal of it."""
        self._rehearse(length)

        # The capture takes over the generator that is active, so that replays go on drawing from the lane's stream.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream), self._beside_a_branch():
            self.lane.step(length)
        return graph

    @contextmanager
    def _beside_a_branch(self) -> Iterator[None]:
        """Capture the block beside the idle branch, if there is one."""
        if self.branch is None:
            yield
            return
        self.branch.wait_stream(self.stream)
        with torch.cuda.stream(self.branch):
            self.idle.zero_()
        try:
            yield
        finally:  # without a join the end of the capture would fail, and hide the first error
            self.stream.wait_stream(self.branch)

    def step(self, number: int) -> None:
        """Launch step `number`."""
        with torch.cuda.stream(self.stream):
            self.graphs[self.lengths[number]].replay()


class GraphEngine(Engine):
    """The same steps as CUDA graphs, each lane's on a stream of its own."""

    name = "graph"

    def __init__(self, lanes: Sequence[Lane]) -> None:
        super().__init__(lanes)
        gc.collect()  # a graph of an earlier run that is destroyed during a capture would end the capture
        with gc_disabled():
            branch = stream(len(lanes)) if len(lanes) > 1 else None
            self.graphs = [Graphs(lane, stream(number), branch) for number, lane in enumerate(lanes)]

    def step(self, number: int) -> None:
        for graphs in self.graphs:
            graphs.step(number)

    def join(self) -> None:
        for graphs in self.graphs:
            torch.cuda.current_stream().wait_stream(graphs.stream)


class CompiledEngine(GraphEngine):
    """CUDA graphs of a forward and backward pass that torch.compile has fused."""

    name = "compile"

    def __init__(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            lane.compile()
        super().__init__(lanes)


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Switch Python's garbage collector off."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def make_engine(choice: str, lanes: Sequence[Lane]) -> tuple[Engine, str | None]:
    """Return the engine, and the reason why it is not the configured engine (None if it is).

    `auto` is `graph` on a GPU and `eager` on a CPU. A step that cannot be compiled is captured without torch.compile; a
    step that cannot be captured runs eagerly.
    """
    engine, reason = _first_possible(choice, lanes)
    if reason:
        log.warning(f"{reason}: training continues with the {engine.name} engine")
    return engine, reason


def _first_possible(choice: str, lanes: Sequence[Lane]) -> tuple[Engine, str | None]:
    on_gpu = lanes[0].device.type == "cuda"
    if choice == "auto":
        choice = "graph" if on_gpu else "eager"
    if choice == "eager":
        return Engine(lanes), None
    if not on_gpu:
        return Engine(lanes), f"training.engine={choice} needs a CUDA device"
    if processes.COUNT > 1:
        return Engine(lanes), f"training.engine={choice} runs in one process only"

    reason = None
    for kind in (CompiledEngine, GraphEngine) if choice == "compile" else (GraphEngine,):
        try:
            return kind(lanes), reason
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _undo_capture(lanes)
            reason = f"the {kind.name} engine could not take the step ({str(error).splitlines()[0]})"
    return Engine(lanes), reason


def _undo_capture(lanes: Sequence[Lane]) -> None:
    """Restore the lanes after a capture that failed."""
    torch.cuda.synchronize()
    for lane in lanes:
        lane.uncompile()
        lane.random.renew()
        lane.reset()


def buckets(lengths: Sequence[int], longest: int, flops: float) -> list[int]:
    """Return the length that each step is padded to, at most `longest`: few enough lengths that every graph pays for its capture.

    `flops` are the floating point operations of a step on one more token in each row. A graph also takes the steps of
    shorter lengths, as long as their padding costs at most PADDING operations in all.
    """
    rounded = [min(math.ceil(length / ROUND) * ROUND, longest) for length in lengths]
    padded, top, spent = dict[int, int](), 0, 0.0
    for length, count in sorted(Counter(rounded).items(), reverse=True):
        spent += count * (top - length) * flops
        if not padded or spent > PADDING:
            top, spent = length, 0.0
        padded[length] = top
    return [padded[length] for length in rounded]


def flops_per_token(model: nn.Module) -> int:
    """Return the operations of a step on one token: six for each trained weight of a linear layer, two for a frozen teacher's.

    After Kaplan et al. 2020, section 2.1: two in the forward pass, four in the backward pass, which a teacher does without.
    """
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear | Projections)]
    return sum((6 if weight.requires_grad else 2) * weight.numel() for weight in weights)
