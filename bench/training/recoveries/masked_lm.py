"""`recovery=masked_lm`: guess masked tokens through the decoder that is tied to the embedding: Devlin et al., NAACL 2019."""

from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.models import pretrained
from bench.settings.schema import RunConfig

# share of the tokens that are to be guessed; of these 80 % are hidden, 10 % replaced, 10 % left
MASKED = 0.15


def learner(
    model: PreTrainedModel, config: RunConfig, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[nn.Module, PreTrainedModel]:
    """Return the loss of guessing, and the pretrained model with a masked-LM head around the embedding of `model`.

    Raises ConfigError where the checkpoint has no such head.
    """
    pretrained.check_masked_lm_head(config.model)
    guesser = pretrained.load_model(config.model, "masked_lm")
    pretrained.swap_embedding(guesser, model.get_input_embeddings())
    cast(Any, guesser).to(device)
    return MaskedTokens(guesser, tokenizer), guesser


class MaskedTokens(nn.Module):
    """The cross-entropy of tokens that were masked: 15 % of a row's, the special ones excepted."""

    special: Tensor

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.mask, self.vocab_size = model, cast(int, tokenizer.mask_token_id), len(tokenizer)
        device = next(model.parameters()).device
        self.register_buffer(
            "special", torch.tensor(tokenizer.all_special_ids, device=device), persistent=False
        )

    def forward(self, input_ids: Tensor, **inputs: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): each row's part of the mean cross-entropy of the batch's chosen tokens, times B."""
        draw, kind = torch.rand(2, *input_ids.shape, device=input_ids.device)
        chosen = (draw < MASKED) & ~torch.isin(input_ids, self.special)
        shown = input_ids.masked_fill(chosen & (kind < 0.8), self.mask)
        shown = torch.where(chosen & (kind >= 0.9), torch.randint_like(input_ids, self.vocab_size), shown)
        logits = self.model(input_ids=shown, **inputs).logits.float()
        losses = (
            F.cross_entropy(logits.flatten(0, 1), input_ids.flatten(), reduction="none").view_as(draw)
            * chosen
        )
        return SimpleNamespace(logits=losses.sum(1) * len(input_ids) / chosen.sum().clamp(min=1))
