"""The parts of a model that torch.compile fuses, and the classes that it leaves alone."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn


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
