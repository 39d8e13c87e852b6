"""An encoder read as it was trained: by the mean of its last states, or by the first one; alone, or below a classifier."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import ModelOutput


@dataclass
class SentenceOutput(ModelOutput):
    """What `PooledEncoder` returns."""

    sentence_embedding: Tensor | None = None


class PooledEncoder(PreTrainedModel):
    """The encoder, and one vector of length 1 for each row.

    `mean` is over the tokens that the attention mask leaves; `cls` is the first token's state. The encoder's own pooler
    goes: where no pretraining used it, its weights are random.
    """

    # The encoder has checked its attention by the time that it is put in here.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, encoder: PreTrainedModel, pooling: str) -> None:
        super().__init__(encoder.config)
        self.pooling, self.base_model_prefix = pooling, encoder.base_model_prefix
        if getattr(encoder, "pooler", None) is not None:
            cast(Any, encoder).pooler = None
        setattr(self, self.base_model_prefix, encoder)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor | None, **inputs: Tensor) -> Tensor:
        """Return what `pooling` names for each row of the tokens (B, L): (B, d)."""
        states: Tensor = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, **inputs
        ).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weights = mask.unsqueeze(-1).float()
        return (states.float() * weights).sum(1) / weights.sum(1)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Tensor
    ) -> ModelOutput:
        """Return `sentence_embedding` (B, d) of the tokens (B, L); the product of two is their cosine."""
        pooled = self.pooled(input_ids, attention_mask, **inputs)
        return SentenceOutput(nn.functional.normalize(pooled, dim=-1))


class PooledClassifier(PooledEncoder):
    """The encoder, one vector for each row, dropout, and a linear layer for the classes."""

    def __init__(self, encoder: PreTrainedModel, pooling: str) -> None:
        super().__init__(encoder, pooling)
        config: Any = encoder.config
        dropout = getattr(config, "classifier_dropout", None)
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.0) if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        nn.init.normal_(self.classifier.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Tensor
    ) -> ModelOutput:
        """Return `logits` (B, classes) of the tokens (B, L)."""
        pooled = self.pooled(input_ids, attention_mask, **inputs)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))
