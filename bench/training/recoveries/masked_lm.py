"""`recovery=masked_lm`: predict masked tokens through the decoder tied to the embedding (Devlin et al., NAACL 2019)."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.models import pretrained
from bench.settings.schema import RunConfig
from bench.training.batching import Examples

MASKED = 0.15  # share of tokens to predict; of these, 80 % are masked, 10 % replaced and 10 % kept


def learners(
    models: Sequence[PreTrainedModel],
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    data: Examples,
    whole: Examples,
    dtype: str,
) -> tuple[list[tuple[nn.Module, PreTrainedModel]], Examples]:
    """Return the loss of the predictions, and the pretrained masked-LM model, with the embedding of each model; the examples.

    Raises ConfigError if the checkpoint has no masked-LM head.
    """
    pretrained.check_masked_lm_head(config.model)
    made = list[tuple[nn.Module, PreTrainedModel]]()
    for model in models:
        transformers.set_seed(0)  # random weights, of a model that has them, are the same in any company
        predictor = pretrained.load_model(config.model, "masked_lm")
        pretrained.swap_embedding(predictor, model.get_input_embeddings())
        cast(Any, predictor).to(data.offsets.device)
        made.append((MaskedTokens(predictor, tokenizer), predictor))
    return made, data


class MaskedTokens(nn.Module):
    """The cross-entropy of masked tokens: 15 % of a row's tokens, never special tokens."""

    special: Tensor

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.mask, self.vocab_size = model, cast(int, tokenizer.mask_token_id), len(tokenizer)
        device = next(model.parameters()).device
        special = torch.tensor(tokenizer.all_special_ids, device=device)
        self.register_buffer("special", special, persistent=False)

    def forward(self, input_ids: Tensor, **inputs: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): B times each row's part of the mean cross-entropy over the batch's chosen tokens."""
        # Choose the tokens, and hide them.
        draw, kind = torch.rand(2, *input_ids.shape, device=input_ids.device)
        chosen = (draw < MASKED) & ~torch.isin(input_ids, self.special)
        shown = input_ids.masked_fill(chosen & (kind < 0.8), self.mask)
        shown = torch.where(chosen & (kind >= 0.9), torch.randint_like(input_ids, self.vocab_size), shown)

        # Predict them.
        logits = self.model(input_ids=shown, **inputs).logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), input_ids.flatten(), reduction="none")
        losses = losses.view_as(draw) * chosen
        return SimpleNamespace(logits=losses.sum(1) * len(input_ids) / chosen.sum().clamp(min=1))
