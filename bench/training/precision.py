"""Number formats and kernels of the forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = ("auto", "fp32", "bf16")
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # not cuDNN's, which plans anew for each length


def resolve_dtype(dtype: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 on a GPU and fp32 on a CPU."""
    return dtype if dtype != "auto" else "bf16" if device.type == "cuda" else "fp32"


@contextmanager
def autocast(dtype: str, device: torch.device) -> Iterator[None]:
    """Surround forward passes in `dtype` (fp32 | bf16); on a GPU, with the attention that is fastest for short rows.

    Without cuDNN's attention, which torch prefers there, BERT-base trains 2.5 % faster and MiniLM 3 % (H100, 32 rows).
    """
    on_gpu = device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"), sdpa_kernel(ATTENTION) if on_gpu else nullcontext():
        yield


class HalfWeights:
    """bf16 copies of a model's linear layers, which stand in the layers' place until `restore`.

    The numbers are those of autocast, which casts each weight before its product and each gradient after it: some two
    hundred small kernels a step, for which a GPU waits. Here a few large ones cast everything at once.
    """

    def __init__(self, model: nn.Module) -> None:
        elsewhere = {id(p) for layer in model.modules() if type(layer) is not nn.Linear for p in layer.parameters(recurse=False)}
        copies: dict[nn.Parameter, nn.Parameter] = {}
        self.places: list[tuple[nn.Module, str, nn.Parameter]] = []
        for layer in (layer for layer in model.modules() if type(layer) is nn.Linear):
            for name, weight in list(layer.named_parameters(recurse=False)):
                if weight.requires_grad and id(weight) not in elsewhere:  # a tied decoder's is also the embedding's
                    copy = copies.setdefault(weight, nn.Parameter(weight.detach().bfloat16()))
                    self.places.append((layer, name, weight))
                    setattr(layer, name, copy)
        self.weights: list[Tensor] = list(copies)
        self.copies: list[Tensor] = list(copies.values())

    @torch.no_grad()
    def collect(self, first: bool) -> None:
        """Add the copies' gradients to the fp32 weights', or put them there if they are the step's first."""
        used = [(weight, copy) for weight, copy in zip(self.weights, self.copies, strict=True) if copy.grad is not None]
        if not used:
            return
        for weight, _ in used:
            if weight.grad is None:
                weight.grad = torch.empty_like(weight)
        (torch._foreach_copy_ if first else torch._foreach_add_)([w.grad for w, _ in used], [c.grad for _, c in used])  # type: ignore[misc]
        for _, copy in used:
            copy.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the fp32 weights, which have made a step, into their copies."""
        if self.copies:
            torch._foreach_copy_(self.copies, self.weights)

    def forget(self) -> None:
        """Drop gradients that no step has collected."""
        for copy in self.copies:
            copy.grad = None

    def restore(self) -> None:
        """Put the fp32 weights back into their layers."""
        for layer, name, weight in self.places:
            setattr(layer, name, weight)
            weight.grad = None
