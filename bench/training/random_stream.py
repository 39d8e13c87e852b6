"""A lane's stream of random numbers: its dropout and masks depend on its seed alone, whichever lanes train beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomStream:
    """PyTorch's generators as a seed leaves them, kept from one step of a lane to its next."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.gpu = seed, device.index or 0 if device.type == "cuda" else None
        self.renew()

    def renew(self) -> None:
        """Begin again with new generators: a capture that fails leaves the GPU's unusable."""
        if self.gpu is not None:
            self.gpu_generator = torch.Generator(f"cuda:{self.gpu}")
        self.reset()

    def reset(self) -> None:
        """Begin again with the same generators, which CUDA graphs hold."""
        self.cpu_state: Tensor = torch.Generator().manual_seed(self.seed).get_state()
        if self.gpu is not None:
            self.gpu_generator.manual_seed(self.seed)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream within the block. The generators are afterwards as they were before.

        On a GPU the default generator takes over this one's state, which a CUDA graph captured in the block keeps.
        """
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.cpu_state)
            if self.gpu is None:
                yield
            else:
                default = torch.cuda.default_generators[self.gpu]
                before = default.graphsafe_get_state()
                default.graphsafe_set_state(self.gpu_generator)
                try:
                    yield
                finally:
                    default.graphsafe_set_state(before)
            self.cpu_state = torch.get_rng_state()

    def state(self) -> dict[str, Tensor]:
        """Return the states of the generators, on the CPU."""
        states = {"cpu": self.cpu_state}
        return states if self.gpu is None else states | {"gpu": self.gpu_generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, with the same generators."""
        self.cpu_state = state["cpu"]
        if self.gpu is not None:
            self.gpu_generator.set_state(state["gpu"])
