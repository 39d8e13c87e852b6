"""Several seeds of one configuration as one model, so that a GPU that a single run leaves half idle is full.

All that depends on weights (linear, normalising and embedding layers) holds one set of them a seed and multiplies in
batches; everything else (attention, activations, dropout) treats the rows of a batch apart and stays as it is.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.subspace import SubspaceEmbedding
from bench.errors import BenchError


class SeedStack(nn.Module):
    """S models of one architecture as one: a batch (S * B, ...) holds the rows of the first, then of the second, ...

    Parameters have the names of the single models' and a leading axis of S. The padding token's vector needs no care:
    attention masks it, so it gets no gradient. Raises BenchError for a layer that cannot be stacked.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model = copy.deepcopy(models[0])
        for name, layer in list(self.model.named_modules()):
            if not list(layer.parameters(recurse=False)):
                continue
            if type(layer) not in LAYERS:
                raise BenchError(f"{type(layer).__name__} ({name}) cannot train several seeds at once: use seeds_at_once=1.")
            stacked = LAYERS[type(layer)]([model.get_submodule(name) for model in models])
            parent, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent), last, stacked)

    def forward(self, **inputs: Tensor) -> Any:
        """Return the model's output, whose logits (S * B, C) are in the order of the rows."""
        for layer in self.model.modules():
            if isinstance(layer, SeedEmbedding):
                layer.batch = len(inputs["input_ids"])
        return self.model(**inputs)

    @torch.no_grad()
    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Copy each seed's weights into its model."""
        for name, parameter in self.model.named_parameters():
            for model, weights in zip(models, parameter, strict=True):
                model.get_parameter(name).copy_(weights)


class SeedLayer(nn.Module):
    """A layer with the parameters of S layers, stacked along a leading axis."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.seeds = len(layers)
        for name, first in layers[0].named_parameters(recurse=False):
            values = torch.stack([layer.get_parameter(name).detach() for layer in layers])
            self.register_parameter(name, nn.Parameter(values, requires_grad=first.requires_grad))

    def by_seed(self, inputs: Tensor) -> Tensor:
        """Return `inputs` (S * B, ..., n) as (S, rows, n)."""
        return inputs.reshape(self.seeds, -1, inputs.shape[-1])

    def offset(self, index: Tensor, rows: int) -> Tensor:
        """Return `index` (S * B, ...) into tables of `rows` rows as an index into the S tables laid end to end."""
        starts = torch.arange(self.seeds, device=index.device, dtype=index.dtype).unsqueeze(1) * rows
        return (index.reshape(self.seeds, -1) + starts).view(index.shape)


class SeedLinear(SeedLayer):
    """S `nn.Linear`."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        if cast(nn.Linear, layers[0]).bias is None:
            self.bias = None

    def forward(self, inputs: Tensor) -> Tensor:
        rows, weight = self.by_seed(inputs), self.weight.transpose(1, 2)
        product = torch.bmm(rows, weight) if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), rows, weight)
        return product.view(*inputs.shape[:-1], -1)


class SeedNorm(SeedLayer):
    """S `nn.LayerNorm`."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        first = cast(nn.LayerNorm, layers[0])
        self.eps = first.eps
        if first.bias is None:
            self.bias = None

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.by_seed(F.layer_norm(inputs, inputs.shape[-1:], eps=self.eps))
        weight = self.weight.unsqueeze(1)
        result = rows * weight if self.bias is None else torch.addcmul(self.bias.unsqueeze(1), rows, weight)
        return result.view(inputs.shape)


class SeedEmbedding(SeedLayer):
    """S `nn.Embedding`. Ids (1, ...) that all rows share, such as positions, are repeated for the `batch` rows."""

    batch = 1

    def forward(self, ids: Tensor) -> Tensor:
        index = self.offset(ids.expand(self.batch, *ids.shape[1:]), self.weight.shape[1])
        return F.embedding(index, self.weight.flatten(0, 1))


class SeedSubspace(SeedLayer):
    """S `SubspaceEmbedding` with the same codes; raises BenchError if theirs differ."""

    index: Tensor

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        first = cast(SubspaceEmbedding, layers[0])
        if not all(torch.equal(first.index, cast(SubspaceEmbedding, layer).index) for layer in layers):
            raise BenchError("embedding: the seeds have different codes and cannot train at once: use seeds_at_once=1.")
        if first.kept is not None or first.gain is not None or first.rotation is not None or first.table_dtype != "fp32":
            raise BenchError("embedding: kept rows, gains, rotations and rounded tables cannot train several seeds at once: use seeds_at_once=1.")
        self.compose = first.compose
        self.register_buffer("index", first.index, persistent=False)
        self.projection = first.projection  # a linear layer, which is stacked like the others

    def forward(self, ids: Tensor) -> Tensor:
        table = F.pad(self.weight, (0, 0, 0, 1))  # a row of zeros for the padding token
        index, flat = self.offset(self.index[ids].int(), table.shape[1]), table.flatten(0, 1)
        if self.compose == "sum":
            vectors: Tensor = F.embedding_bag(index.flatten(0, -2), flat, mode="sum").view(*ids.shape, -1)
        else:
            vectors = F.embedding(index, flat).flatten(-2)
        result: Tensor = vectors if self.projection is None else self.projection(vectors)
        return result


LAYERS: dict[type[nn.Module], type[SeedLayer]] = {
    nn.Linear: SeedLinear, nn.LayerNorm: SeedNorm, nn.Embedding: SeedEmbedding, SubspaceEmbedding: SeedSubspace,
}
