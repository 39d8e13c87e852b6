"""The hidden states of a frozen encoder for all tokens of a text, or their means, computed once instead of in every step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from bench.errors import ConfigError
from bench.models.layers import hidden_states
from bench.training.batching import Examples
from bench.training.precision import autocast

ROWS = 256  # that go through the encoder at once
SHARE = 0.5  # of the free memory that the states may take: the rest is for the training
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on the device; on a CPU also within the container's limit."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, limit - used)
    except (OSError, ValueError):  # no limit
        return free


def dtype_of(dtype: str) -> torch.dtype:
    """Return the type that states are stored in, for a training in `dtype` (fp32 | bf16)."""
    return torch.bfloat16 if dtype == "bf16" else torch.float32


def size(encoder: Any, data: Examples, dtype: str) -> int:
    """Return the bytes of `states_of`: tokens x (layers + 1) x width, 2 bytes each in bf16 and 4 in fp32."""
    config = encoder.config
    states = int(data.lengths.sum()) * (config.num_hidden_layers + 1) * config.hidden_size
    return int(states * dtype_of(dtype).itemsize)


def with_positions(data: Examples) -> Examples:
    """Return the examples with a token column `positions`: where a token's states are in `states_of`."""
    total = int(data.lengths.sum())
    positions = torch.arange(total, dtype=torch.int32, device=data.offsets.device)
    return replace(data, tokens=data.tokens | {"positions": positions}, pad=data.pad | {"positions": 0})


def with_numbers(data: Examples) -> Examples:
    """Return the examples with a token column `numbers`: that of the example which a token belongs to."""
    numbers = torch.arange(len(data), dtype=torch.int32, device=data.offsets.device)
    column = numbers.repeat_interleave(data.device_lengths)
    return replace(data, tokens=data.tokens | {"numbers": column}, pad=data.pad | {"numbers": 0})


@torch.no_grad()
def means_of(encoder: Any, data: Examples, dtype: str) -> Tensor:
    """Return the means over each example's tokens of the encoder's states, (N, layers + 1, width) in fp32.

    Raises ConfigError if they would take more than their share of the free memory.
    """
    device, config = data.offsets.device, encoder.config
    shape = (len(data), config.num_hidden_layers + 1, config.hidden_size)
    needed, free = 4 * math.prod(shape), free_memory(device)
    if needed > SHARE * free:
        raise ConfigError(
            f"recovery.corpus has {len(data):,} texts, and the means of the dense model's states take {needed / 1e9:.1f} GB, more "
            f"than {SHARE:.0%} of the {free / 1e9:.1f} GB that are free: give less text."
        )
    means = torch.empty(shape, device=device)
    for rows, inputs, hidden in _in_batches(encoder, data, dtype):
        mask, place = inputs["attention_mask"].unsqueeze(-1), torch.from_numpy(rows).to(device)
        for layer, of_layer in enumerate(hidden):
            means[place, layer] = (of_layer.float() * mask).sum(1) / mask.sum(1)
    return means


@torch.no_grad()
def states_of(encoder: Any, data: Examples, dtype: str) -> Tensor:
    """Return the encoder's states (tokens, layers + 1, width) for examples that have positions."""
    device, config = data.offsets.device, encoder.config
    shape = (int(data.lengths.sum()), config.num_hidden_layers + 1, config.hidden_size)
    states = torch.empty(shape, dtype=dtype_of(dtype), device=device)
    for _, inputs, hidden in _in_batches(encoder, data, dtype):
        # Find the real tokens once for all layers, as that waits for the GPU.
        real = inputs["attention_mask"].flatten().nonzero().squeeze(1)
        place = inputs["positions"].flatten()[real]
        for layer, of_layer in enumerate(hidden):
            states[place, layer] = of_layer.flatten(0, 1)[real].to(states.dtype)
    return states


def _in_batches(
    encoder: Any, data: Examples, dtype: str
) -> Iterator[tuple[np.ndarray, dict[str, Tensor], Sequence[Tensor]]]:
    """Yield the numbers of ROWS rows, their inputs and the encoder's states of them.

    Rows of similar length go through the encoder together, the longest first, so that a lack of memory shows at once.
    """
    order = np.argsort(-data.lengths, kind="stable")
    for at in range(0, len(order), ROWS):
        inputs, _ = data.batch(order[at : at + ROWS])
        read = {name: value for name, value in inputs.items() if name != "positions"}
        with autocast(dtype, data.offsets.device):
            hidden = hidden_states(encoder, **read)
        yield order[at : at + ROWS], inputs, hidden
