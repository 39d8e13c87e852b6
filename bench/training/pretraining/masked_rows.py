"""The learner of `pretraining=masked_lm`: an encoder and a tied decoder that guess the hidden tokens of packed rows."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bench.training.compilation import as_static
from bench.training.pretraining.decoder import decoder

MASKED = 0.15  # share of a row's tokens to predict; of these, 80 % are masked, 10 % replaced and 10 % kept
# PyTorch's attention under a name that transformers makes no mask for: full rows need none. Under its own name transformers 5.17
# makes one while a CUDA graph is captured, but not in the rehearsal before, so that torch.compile would have to compile again.
MASKLESS = "sdpa_without_mask"
AttentionInterface.register(MASKLESS, sdpa_attention_forward)
VALIDATION = -1  # in place of a step's number: these masks are the same for every seed


def mixed(x: Tensor) -> Tensor:
    """Return 64 pseudo-random bits for each number (int64): the output function of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> 30 & 2**34 - 1)) * -0x40A7B892E31B1A47
    x = (x ^ (x >> 27 & 2**37 - 1)) * -0x6B2FB644ECCEEE15
    return x ^ (x >> 31 & 2**33 - 1)


class Guess(nn.Module):
    """The head of BERT (Devlin et al., NAACL 2019): a dense layer, GELU and normalisation before the tied decoder."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        config, embedding = encoder.config, encoder.get_input_embeddings()
        width = embedding.embedding_dim
        self.dense = nn.Linear(config.hidden_size, width)
        nn.init.normal_(self.dense.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(width, eps=getattr(config, "layer_norm_eps", 1e-12))
        self.decoder = decoder(embedding)

    def forward(self, states: Tensor, table: Tensor, tokens: Tensor) -> Tensor:
        """Return the loss (n,) of the tokens (n,) given the encoder's states (n, d); `table` is the decoder's."""
        hidden = self.norm(nn.functional.gelu(self.dense(states)))
        return cast(Tensor, self.decoder(hidden, table, tokens))


class MaskedRows(nn.Module):
    """The cross-entropy of hidden tokens: 15 % of each row's, as many in every row, never special tokens.

    Which ones, and what stands in their place, is a hash of seed, step and row: drawn anew in each step, and the same by any
    engine, beside any other model, and in any number of processes. There is no dropout, as in a short pretraining it costs
    accuracy and time (Geiping & Goldstein, ICML 2023).
    """

    special: Tensor

    def __init__(self, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        super().__init__()
        self.encoder, self.seed = encoder.eval(), seed
        if encoder.config._attn_implementation == "sdpa":
            encoder.set_attn_implementation(MASKLESS)
        # A second name of the table keeps `compacted` from training only the rows that occur: the decoder reads them all.
        self.embedding = encoder.get_input_embeddings()
        self.heads = nn.ModuleList([Guess(encoder)])  # in a list, so that a lane compiles it
        self.mask, self.vocab_size = cast(int, tokenizer.mask_token_id), len(tokenizer)
        self.register_buffer("special", torch.tensor(tokenizer.all_special_ids), persistent=False)
        # A pooler has no part in this.
        for name, parameter in encoder.named_parameters():
            if name.startswith("pooler."):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "MaskedRows":
        return super().train(False)

    def hidden(self, input_ids: Tensor, rows: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens to show (B, L), and which are to be guessed: their columns (B, k), and whether they count (B, k).

        Only where a row has fewer than k tokens that are not special, some do not count.
        """
        # Draw a number for each token; the k smallest of a row's text are hidden.
        length = input_ids.shape[1]
        of_step = mixed(torch.where(step == VALIDATION, 0, self.seed + 1) + mixed(step))
        bits = mixed(mixed(of_step + rows.unsqueeze(1)) + torch.arange(length, device=rows.device))  # (B, L)
        is_special = torch.isin(input_ids, self.special)
        order = (bits & 2**62 - 1).masked_fill(is_special, 2**62)
        count = max(1, round(MASKED * (length - 2)))
        columns = order.topk(count, largest=False, sorted=False).indices
        counts = ~is_special.gather(1, columns)

        # Mask most of them, and replace some.
        draws = mixed(bits.gather(1, columns))
        kind, replacement = (draws & 2**24 - 1) / 2**24, (draws >> 24 & 2**32 - 1) % self.vocab_size
        own = input_ids.gather(1, columns)
        new = torch.where(kind < 0.8, self.mask, torch.where(kind < 0.9, replacement, own))
        return input_ids.scatter(1, columns, torch.where(counts, new, own)), columns, counts

    def forward(self, input_ids: Tensor, rows: Tensor, step: Tensor, **_: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): the mean cross-entropy of each row's hidden tokens.

        `rows` (B,) are the rows' numbers, `step` (1,) the step's. Rows are full, so that no attention mask is needed.
        """
        shown, columns, counts = self.hidden(input_ids, rows, step)
        states = self.encoder(input_ids=shown).last_hidden_state.flatten(0, 1)

        # Guess at the hidden tokens' places.
        starts = torch.arange(len(input_ids), device=rows.device).unsqueeze(1) * input_ids.shape[1]
        places = (starts + columns).flatten()
        head = cast(Guess, self.heads[0])
        tokens = input_ids.flatten().index_select(0, places)
        losses = self._guessed(head, states.index_select(0, places), tokens).view_as(counts) * counts
        return SimpleNamespace(logits=losses.sum(1) / counts.sum(1).clamp(min=1))

    def _guessed(self, head: Guess, states: Tensor, tokens: Tensor) -> Tensor:
        """Return the loss (n,) of the tokens (n,) given the states (n, d).

        Where not all logits fit into memory, part by part, and the backward pass computes a part's logits again.
        """
        table, parts = head.decoder.table(self.embedding), head.decoder.parts(len(tokens))
        if parts == 1:
            return cast(Tensor, head(as_static(states, 0), table, as_static(tokens, 0)))
        again = partial(checkpoint, head, use_reentrant=False, preserve_rng_state=False)
        pairs = zip(states.chunk(parts), tokens.chunk(parts), strict=True)
        return torch.cat([again(as_static(part, 0), table, as_static(own, 0)) for part, own in pairs])
