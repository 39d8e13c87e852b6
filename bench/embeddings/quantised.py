"""The dense table in 8 or 4 bits a number, packed in memory and in the file.

Groups of numbers share an fp16 scale; the rounding is symmetric and to the nearest. The integers are frozen and the rest of
the model trains, the standard for weights quantised after training (Dettmers et al., QLoRA, NeurIPS 2023).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.embeddings import rounding
from bench.embeddings.base import EmbeddingMethod, Size, Source
from bench.embeddings.budget import Budget
from bench.embeddings.layer import CompressedEmbedding
from bench.errors import ConfigError
from bench.settings.embeddings import QuantisedConfig

DEFAULT_GROUP = 32


class QuantisedEmbedding(CompressedEmbedding):
    """V rows of integers, one byte (8 bits) or half a byte (4 bits) each, and d / group scales a row."""

    weight: Tensor  # (V, d) int8, or (V, d / 2) uint8 with the even dimension in the low half
    scales: Tensor  # (V, d / group) fp16

    def __init__(
        self, num_embeddings: int, embedding_dim: int, bits: int, group: int, padding_idx: int | None
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.bits = bits
        columns, dtype = embedding_dim * bits // 8, torch.int8 if bits == 8 else torch.uint8
        scales = torch.zeros(num_embeddings, embedding_dim // group, dtype=torch.float16)
        self.register_buffer("weight", torch.zeros(num_embeddings, columns, dtype=dtype))
        self.register_buffer("scales", scales)

    def rows_of(self, input_ids: Tensor) -> Tensor:
        numbers = self.weight[input_ids] if self.bits == 8 else rounding.unpack_int4(self.weight[input_ids])
        scales = self.scales[input_ids].float()
        vectors: Tensor = (numbers.unflatten(-1, (scales.shape[-1], -1)) * scales.unsqueeze(-1)).flatten(-2)
        return vectors


class Quantised(EmbeddingMethod[QuantisedConfig]):
    """The dense table in int8 or int4 groups."""

    trained = False

    def _groups(self, width: int) -> list[int]:
        return [n for n in range(1, width + 1) if width % n == 0]

    def complete(self, config: QuantisedConfig, vocab_size: int, width: int) -> QuantisedConfig:
        if config.bits not in (4, 8):
            raise ConfigError(f"embedding.bits ({config.bits}) must be 4 or 8.")
        if config.bits == 4 and width % 2:
            raise ConfigError(
                f"embedding.bits (4) packs two numbers into a byte, but the model's width ({width}) is odd: use embedding.bits=8."
            )
        group = config.group
        if group is None:
            group = max(n for n in self._groups(width) if n <= DEFAULT_GROUP)
        if group < 1 or width % group:
            near = sorted(self._groups(width), key=lambda n: (abs(n - group), n))[:2]
            raise ConfigError(
                f"embedding.group ({group}) must divide the model's width ({width}): use {min(near)} or {max(near)}."
            )
        return replace(config, group=group)

    def within(self, config: QuantisedConfig, budget: Budget) -> tuple[int, QuantisedConfig | None]:
        """Choose among both numbers of bits and all groups."""
        if config.group is not None:
            raise ConfigError(
                f"embedding.group ({config.group}) and embedding.budget cannot both be set: the budget decides it."
            )
        vocab_size, width = budget.vocab_size, budget.width
        sizes = {}
        for bits in (4, 8) if width % 2 == 0 else (8,):
            for group in self._groups(width):
                choice = replace(config, bits=bits, group=group)
                sizes[self.size(choice, vocab_size, width, codes_stored=False).bytes] = choice
        fitting = [size for size in sizes if size <= budget.bytes]
        return min(sizes), sizes[max(fitting)] if fitting else None

    def size(self, config: QuantisedConfig, vocab_size: int, width: int, codes_stored: bool) -> Size:
        numbers = vocab_size * width
        groups = numbers // (config.group or 1)
        stored = rounding.stored_bytes(groups, config.group or 1, f"int{config.bits}")
        return Size(params=0, code_bits=8 * stored)

    def layer(self, config: QuantisedConfig, source: Source) -> nn.Module:
        return QuantisedEmbedding(*source.shape, config.bits, config.group or 1, source.padding_idx)

    def fit(self, layer: QuantisedEmbedding, config: QuantisedConfig, source: Source) -> None:
        numbers, scales = rounding.quantise(source.table.reshape(-1, config.group or 1), f"int{config.bits}")
        numbers = numbers.view_as(source.table)
        layer.weight.copy_(numbers if config.bits == 8 else rounding.pack_int4(numbers))
        layer.scales.copy_(scales.view_as(layer.scales))


METHOD = Quantised()
