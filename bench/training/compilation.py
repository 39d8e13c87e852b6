"""The parts of a model that torch.compile fuses, the classes that it leaves alone, and the sizes that it chooses kernels for.

The compiler gives a sum over all tokens of a batch a form, and so its roundings, by the size of the first batch. What it compiled
serves later batches of other sizes, in later runs and from its cache on disk in later processes too. A run would depend on which
runs came before it, so that all runs of a batch size first compile for the same lengths.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

FIRST_LENGTH, ALIGNED = 64, 16  # tokens; some kernels are only for lengths that 16 divides


def first_lengths(model: nn.Module, lengths: Collection[int]) -> list[int]:
    """Return the lengths to compile for before steps of these `lengths`: one for each remainder by 16.

    The remainders 0 and 8, which most lengths have, come always and first, as kernels for 8 may serve the others. A model that
    reads fewer tokens than 128 gets none: it compiles for its own lengths.
    """
    encoders = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    limits = [getattr(each.config, "max_position_embeddings", None) for each in encoders]
    if any(limit is not None and limit < 2 * FIRST_LENGTH for limit in limits):
        return []
    others = {length % ALIGNED for length in lengths} - {0, 8}
    return [FIRST_LENGTH + remainder for remainder in (0, 8, *sorted(others))]


def with_own_code(compiled: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """Return the compiled function with code of its own for batches of so many rows, its tensors' first dimension."""

    @wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and value.ndim and len(value) == rows:
                torch._dynamo.mark_static(value, 0)
        return compiled(*args, **kwargs)

    return call


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the model's stacks, such as the layers of an encoder, or ALBERT's one group that all layers share."""
    for child in model.children():
        if isinstance(child, nn.ModuleList) and len({type(block) for block in child}) == 1:
            yield from child
        else:
            yield from blocks_of(child)


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
    """Return a subclass whose forward pass torch.compile does not trace."""
    return type(kind.__name__, (kind,), {"forward": torch.compiler.disable(kind.forward)})
