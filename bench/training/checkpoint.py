"""Checkpoints: the state of a training in a file, from which it goes on after an interruption."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench import store
from bench.errors import EnvironmentBroken
from bench.training.fused_adamw import Matrix
from bench.training.lane import Lane

EVERY = 180.0  # seconds between two checkpoints
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of a parameter, as torch's AdamW names them
log = logging.getLogger("bench")


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a training is kept until `remove`; `key` is a digest of all that decides the training."""

    path: Path
    key: str
    every: float = EVERY  # seconds

    def read(self) -> dict[str, Tensor] | None:
        """Return the state, or None without a file or, with a log line, for one that is damaged or of another training."""
        return store.read_cached(self.path, self._load)

    def _load(self, path: Path) -> dict[str, Tensor]:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != self.key:
                raise ValueError("it is of another training")
        return load_file(path)

    def remove(self) -> None:
        """Delete the file: what the training gave is safe elsewhere."""
        self.path.unlink(missing_ok=True)


class Keeper:
    """Writes the states of lanes that train side by side, at intervals, together."""

    def __init__(self, checkpoints: Sequence[Checkpoint | None], lanes: Sequence[Lane]) -> None:
        self.kept = [(one, lane) for one, lane in zip(checkpoints, lanes, strict=True) if one]
        self.written = time.monotonic()

    def due(self) -> bool:
        """Return whether the time for the next checkpoints has come."""
        waited = time.monotonic() - self.written
        return any(waited >= checkpoint.every for checkpoint, _ in self.kept)

    def write(self, seconds: float) -> None:
        """Write the checkpoints of all lanes or, where the disk is full, none: the former ones stay, which is logged.

        `seconds` have passed in steps since the training began.
        """
        try:
            with ExitStack() as files:
                for checkpoint, lane in self.kept:
                    state = state_of(lane) | {"seconds": torch.tensor(seconds, dtype=torch.float64)}
                    temporary = files.enter_context(store.atomic(checkpoint.path))
                    save_file(state, temporary, {"key": checkpoint.key})
        except EnvironmentBroken as error:
            log.warning("No checkpoint: %s The training goes on.", error)
        self.written = time.monotonic()


def state_of(lane: Lane) -> dict[str, Tensor]:
    """Return, on the CPU, all that the lane's steps change: weights, moving averages, counter, losses and random numbers.

    Weights are those of `lane.parameters` by number. FusedAdamW's moving averages have the names of torch's AdamW, so that
    another engine can go on from them.
    """
    if lane.device.type == "cuda":  # a lane can train on a stream of its own
        torch.cuda.synchronize(lane.device)
    state = {"counter": lane.counter, "losses": lane.losses}
    state |= {f"random.{name}": value for name, value in lane.random.state().items()}
    matrices = _matrices(lane)
    for number, parameter in enumerate(lane.parameters):
        state[f"weight.{number}"] = parameter.detach()
        if matrix := matrices.get(parameter):
            moments = {"exp_avg": matrix.mean, "exp_avg_sq": matrix.square, "step": lane.counter[0].float()}
        else:
            moments = lane.optimizer.state.get(parameter, {})
        state |= {f"{name}.{number}": moments[name] for name in MOMENTS if name in moments}
    return {name: value.cpu().contiguous() for name, value in state.items()}


@torch.no_grad()
def load_state(lane: Lane, state: dict[str, Tensor]) -> None:
    """Set the lane to what `state_of` returned, in place: CUDA graphs that were captured go on from there."""
    lane.counter.copy_(state["counter"])
    lane.losses.copy_(state["losses"])
    lane.random.load_state({name: state[f"random.{name}"] for name in lane.random.state()})
    matrices = _matrices(lane)
    for number, parameter in enumerate(lane.parameters):
        parameter.copy_(state[f"weight.{number}"])
        saved = {name: state[f"{name}.{number}"] for name in MOMENTS if f"{name}.{number}" in state}
        if not saved:  # it never had a gradient
            continue
        if matrix := matrices.get(parameter):
            matrix.mean.copy_(saved["exp_avg"])
            matrix.square.copy_(saved["exp_avg_sq"])
        else:  # before its first step, torch's AdamW has no moments
            moments = lane.optimizer.state[parameter]
            for name, value in saved.items():
                moments.setdefault(name, torch.zeros_like(value, device=parameter.device)).copy_(value)

    # Update the bf16 copies of the weights.
    if lane.bf16:
        lane.bf16.refresh()
    if lane.fused:
        lane.fused.refresh()
    if lane.device.type == "cuda":
        torch.cuda.synchronize(lane.device)


def _matrices(lane: Lane) -> dict[nn.Parameter, Matrix]:
    """Return the matrices that FusedAdamW updates, by parameter."""
    return {matrix.parameter: matrix for matrix in lane.fused.matrices} if lane.fused else {}
