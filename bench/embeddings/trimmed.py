"""Vocabulary trimming: some tokens keep their rows, and texts are tokenised with these (`bench.models.trimmed_tokenizer`).

The most frequent tokens stay, as in Abdaoui, Pradel & Sigel, "Load What You Need" (SustaiNLP 2020). Characters come before them, as
in SentencePiece's vocabularies (Kudo & Richardson 2018, arXiv 1808.06226), so that few words are unknown.
"""

import numpy as np
import torch
from torch import Tensor, nn

from bench.embeddings.base import EmbeddingMethod, Source
from bench.embeddings.layer import CompressedEmbedding
from bench.embeddings.lookup import lookup
from bench.embeddings.packing import bits_per_code
from bench.settings.embeddings import TrimmedConfig


class TrimmedEmbedding(CompressedEmbedding):
    """K rows and their tokens' ids; the first row, the unknown token's, also stands for all other tokens."""

    ids: Tensor  # (K,)
    slot: Tensor  # (V,): row of each token

    def __init__(self, num_embeddings: int, embedding_dim: int, number: int, padding_idx: int | None) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.weight, self.tables = nn.Parameter(torch.zeros(number, embedding_dim)), {"weight": number}
        self.register_buffer("ids", torch.empty(0), persistent=False)
        self.register_buffer("slot", torch.empty(0), persistent=False)
        self.set_integers("ids", np.arange(number))

    def rows_of(self, input_ids: Tensor) -> Tensor:
        return lookup(self.table(), self.slot[input_ids])

    def usable_ids(self) -> Tensor:
        return self.ids

    def integers(self) -> dict[str, tuple[np.ndarray, int]]:
        return {"ids": (self.ids.cpu().numpy(), self.num_embeddings)}

    def set_integers(self, name: str, numbers: np.ndarray) -> None:
        ids = torch.from_numpy(numbers.astype(np.int64))
        slot = torch.zeros(self.num_embeddings, dtype=torch.int32)
        slot[ids] = torch.arange(len(ids), dtype=torch.int32)
        self.ids, self.slot = ids.to(self.ids.device), slot.to(self.slot.device)


class Trimmed(EmbeddingMethod[TrimmedConfig]):
    """`embedding.rows` tokens keep a row: special tokens, then characters up to half of the rows, then the most frequent tokens."""

    version = 3
    scaled = "rows"
    trims_tokenizer = True

    def limits(self, config: TrimmedConfig, vocab_size: int, width: int) -> tuple[int, int]:
        return 2, vocab_size - 1 - config.keep_dense

    def needs_counts(self, config: TrimmedConfig) -> bool:
        return True

    def tables(self, config: TrimmedConfig, vocab_size: int, width: int) -> list[tuple[int, int]]:
        return [(config.rows or 0, width)]

    def code_bits(self, config: TrimmedConfig, vocab_size: int, width: int, codes_stored: bool) -> int:
        return (config.rows or 0) * bits_per_code(vocab_size)

    def layer(self, config: TrimmedConfig, source: Source) -> nn.Module:
        return TrimmedEmbedding(*source.shape, config.rows or 0, source.padding_idx)

    def fit(self, layer: TrimmedEmbedding, config: TrimmedConfig, source: Source) -> None:
        # Characters come before all tokens but the special ones; kept tokens have a row elsewhere.
        vocabulary, number = source.needed_vocabulary(), config.rows or 0
        assert vocabulary.characters is not None
        alphabet = np.argsort(-vocabulary.characters, kind="stable")[: number // 2]
        alphabet = alphabet[vocabulary.characters[alphabet] > 0]
        rank = vocabulary.rank(source.padding_idx)
        rank[alphabet] += vocabulary.counts.max() + 1
        if source.kept is not None:
            rank[source.kept.numpy()] = -2

        ids = np.argsort(-rank, kind="stable")[:number]
        if vocabulary.unknown not in ids:
            ids[-1] = vocabulary.unknown
        layer.set_integers("ids", np.r_[vocabulary.unknown, np.sort(ids[ids != vocabulary.unknown])])
        layer.weight.copy_(source.table[layer.ids])


METHOD = Trimmed()
