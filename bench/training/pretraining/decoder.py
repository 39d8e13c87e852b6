"""The loss of hidden tokens through the tied decoder, at their positions alone: never logits of whole rows, B x L x V.

The logit of token v for a hidden state h is <h, e(v)> + b(v), and the loss of the token t is log sum_v exp(logit(v)) - logit(t).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.embeddings.subspace_layer import SubspaceEmbedding

AT_ONCE = 2**29  # logits that memory holds at once: of 4,864 states, those of 110,000 tokens
DENSEST = 4  # codes for each token up to which a sum over all codes is worth it: 63^3 for XLM-R's vocabulary are 1.0002


def decoder(embedding: nn.Module) -> "TableDecoder | CodeDecoder":
    """Return the cheapest decoder for the embedding, without its weights: its forward pass takes `table(embedding)`."""
    if (
        isinstance(embedding, SubspaceEmbedding)
        and embedding.projection is None
        and embedding.subspaces > 1
        and embedding.rows**embedding.subspaces <= DENSEST * embedding.num_embeddings
    ):
        flat = _flat_codes(embedding)
        if len(flat.unique()) == len(flat):
            return CodeDecoder(embedding, flat)
    return TableDecoder(cast(Any, embedding).num_embeddings)


def _flat_codes(embedding: SubspaceEmbedding) -> Tensor:
    """Return each token's code as one number, base Q, (V,), or (V-1,) without padding, which has no code."""
    codes = torch.from_numpy(embedding.codes()).long()
    powers = embedding.rows ** torch.arange(embedding.subspaces - 1, -1, -1)
    kept = torch.arange(len(codes)) != (-1 if embedding.padding_idx is None else embedding.padding_idx)
    return (codes[kept] * powers).sum(1)


class TableDecoder(nn.Module):
    """Logits by a product with the vectors of all tokens, for any embedding."""

    ids: Tensor  # (V,)

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.register_buffer("ids", torch.arange(vocab_size), persistent=False)

    def table(self, embedding: Any) -> Tensor:
        """Return the vectors (V, d), with gradient."""
        return cast(Tensor, embedding.weight if isinstance(embedding, nn.Embedding) else embedding(self.ids))

    def parts(self, states: int) -> int:
        """Return in how many parts the logits of so many states fit into memory."""
        return -(-states * len(self.ids) // AT_ONCE)

    def forward(self, hidden: Tensor, table: Tensor, tokens: Tensor) -> Tensor:
        """Return the loss (n,) in fp32 of the tokens (n,) given the states (n, d)."""
        logits = F.linear(hidden, table).float() + self.bias
        return F.cross_entropy(logits, tokens, reduction="none")


class CodeDecoder(nn.Module):
    """The loss of a subspace embedding whose tokens' codes all differ and are nearly all Q^f codes, without any logits.

    With P_i(q) = <h_i, C_i[q]>, the sum over the tokens is one over codes, sum_q W(q_1, ..., q_f) prod_i exp P_i(q_i), where W is
    exp b of the code's token, and 0 for a code without a token. Split into the first f/2 digits and the rest, it is a product
    with W as a matrix: 2 Q^f operations a state instead of 2 V d, and memory for Q^(f/2) numbers instead of V. Padding has the
    zero vector and no code, and is added to the sum.

    Forward and backward of 152 states take 1.3 ms of CPU time instead of the dense decoder's 165 (one core, d = 384, f = 3,
    V = 30,522), and 7 ms instead of 1,394 at V = 250,002.
    """

    flat: Tensor  # (T,): the codes of the tokens that have one
    owners: Tensor  # (T,): their ids

    def __init__(self, embedding: SubspaceEmbedding, flat: Tensor) -> None:
        super().__init__()
        self.subspaces, self.rows, self.compose = embedding.subspaces, embedding.rows, embedding.compose
        self.padding_idx = embedding.padding_idx
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        ids = torch.arange(embedding.num_embeddings)
        owners = ids if self.padding_idx is None else ids[ids != self.padding_idx]
        codes = torch.from_numpy(embedding.codes()).long()
        for name, values in (("flat", flat), ("owners", owners), ("codes", codes)):
            self.register_buffer(name, values, persistent=False)

    def table(self, embedding: Any) -> Tensor:
        """Return the stacked sub-tables (f Q, s), with gradient."""
        return cast(Tensor, embedding.table())

    def parts(self, states: int) -> int:
        """Return 1: whatever there is of the states fits into memory."""
        return 1

    def forward(self, hidden: Tensor, table: Tensor, tokens: Tensor) -> Tensor:
        """Return the loss (n,) in fp32 of the tokens (n,), none of them padding, given the states (n, d)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self._losses(hidden.float(), table.float(), tokens)

    def _losses(self, hidden: Tensor, table: Tensor, tokens: Tensor) -> Tensor:
        # The products P, (f, n, Q), and their exponentials, the largest of each being 1.
        tables = table.view(self.subspaces, self.rows, -1)
        pieces = hidden.unflatten(-1, (self.subspaces, -1)) if self.compose == "concat" else hidden[:, None]
        products = torch.matmul(pieces.transpose(0, 1), tables.transpose(1, 2))
        tops = products.detach().amax(-1, keepdim=True)
        powers = (products - tops).exp()

        # W, whose largest number is 1, too.
        highest = self.bias.detach().amax()
        weights = (self.bias[self.owners] - highest).exp()
        whole = weights.new_zeros(self.rows**self.subspaces).index_copy(0, self.flat, weights)

        # The sum over all codes, and padding.
        half = self.subspaces // 2
        left, right = _outer(powers[:half]), _outer(powers[half:])
        total = (left * (right @ whole.view(left.shape[1], right.shape[1]).T)).sum(1)
        normaliser = total.log() + tops.sum((0, 2)) + highest
        if self.padding_idx is not None:
            normaliser = torch.logaddexp(normaliser, self.bias[self.padding_idx])

        own = cast(Tensor, self.codes)[tokens].T.unsqueeze(-1)  # (f, n, 1)
        return normaliser - products.gather(-1, own).sum((0, 2)) - self.bias[tokens]


def _outer(powers: Tensor) -> Tensor:
    """Return the products of one number of each of the factors (m, n, Q), (n, Q^m), the last factor varying fastest."""
    product = powers[0]
    for factor in powers[1:]:
        product = (product.unsqueeze(2) * factor.unsqueeze(1)).flatten(1)
    return product
