"""What torch.compile fuses of a model, and for which sizes.

The compiler chooses the form of a sum, and so its roundings, by the sizes of the first call. The code then serves calls of other
sizes, also in later runs and, from the cache on disk, in later processes. A run must not depend on those before it. So each number
of rows has code of its own, and all runs first compile for the same lengths.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

FIRST_LENGTHS = (64, 72)  # tokens; some kernels are only for lengths that 16 divides
ODD_LENGTHS = (68, 66, 65)  # first, too, where a run has lengths that 8 does not divide
LEAST = 128  # tokens that a model has to read for it


def first_lengths(model: nn.Module, lengths: Collection[int]) -> list[int]:
    """Return the lengths to compile for before steps of these `lengths`.

    They take the memory of their tokens. A model that reads few tokens gets none: it compiles for its own lengths.
    """
    encoders = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    limits = [getattr(each.config, "max_position_embeddings", None) for each in encoders]
    if any(limit is not None and limit < LEAST for limit in limits):
        return []
    return [*FIRST_LENGTHS, *(ODD_LENGTHS if any(length % 8 for length in lengths) else ())]


def as_static(tensor: Tensor, dimension: int) -> Tensor:
    """Return the tensor, marked so that a compiled function has code of its own for each size of the dimension."""
    torch._dynamo.mark_static(tensor, dimension)
    return tensor


def with_own_code(compiled: Callable[..., Any], sizes: Collection[int]) -> Callable[..., Any]:
    """Return the compiled function with code of its own for batches of these numbers of rows, its tensors' first dimension."""

    @wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and value.ndim and len(value) in sizes:
                as_static(value, 0)
        return compiled(*args, **kwargs)

    return call


def embeddings_of(model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the modules that add up embeddings: those that hold an `nn.Embedding` and neither hold a block nor lie in one."""
    within_blocks = {module for block in blocks for module in block.modules()}
    return [
        module
        for module in model.modules()
        if any(isinstance(child, nn.Embedding) for child in module.children())
        and within_blocks.isdisjoint(module.modules())
    ]


@cache
def eager_class(kind: type[Any]) -> type[Any]:
    """Return a subclass whose forward pass torch.compile does not trace; what follows has code of its own for each batch size."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        return as_static(kind.forward(self, *args, **kwargs), 0)

    return type(kind.__name__, (kind,), {"forward": torch.compiler.disable(forward)})
