"""A lane's stream of random numbers: its dropout and masks depend on its seed alone, whichever lanes train beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RandomStream:
    """The state of PyTorch's generators that a seed gives, kept from one step of a lane to its next."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.gpus = [device.index or 0] if device.type == "cuda" else []
        self.cpu_state = torch.Generator().manual_seed(seed).get_state()
        self.gpu_states = [torch.Generator(f"cuda:{gpu}").manual_seed(seed).get_state() for gpu in self.gpus]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream within the block. The generators are afterwards as they were before."""
        with torch.random.fork_rng(devices=self.gpus):
            torch.set_rng_state(self.cpu_state)
            for gpu, state in zip(self.gpus, self.gpu_states, strict=True):
                torch.cuda.set_rng_state(state, gpu)
            yield
            self.cpu_state = torch.get_rng_state()
            self.gpu_states = [torch.cuda.get_rng_state(gpu) for gpu in self.gpus]
