"""`recovery=distil`: match the dense model's embeddings and hidden states (TinyBERT, Jiao et al., Findings of EMNLP 2020)."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.models import pretrained
from bench.settings.schema import RunConfig


def learner(
    model: PreTrainedModel, config: RunConfig, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[nn.Module, PreTrainedModel]:
    """Return the distance between the model and the dense model, and the model."""
    cast(Any, model).to(device)
    teacher = cast(Any, pretrained.load_model(config.model, "none")).to(device)
    return HiddenStates(model.base_model, teacher), model


class HiddenStates(nn.Module):
    """The distance between student and teacher: the mean over layers of ||S - T||^2 / ||T||^2 over a row's tokens.

    Neither uses dropout, so that the teacher is a fixed target and the distance of the dense student, the control, is zero.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student.eval()
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple: not trained, not saved

    def train(self, mode: bool = True) -> "HiddenStates":
        return super().train(False)

    def forward(self, **inputs: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): each row's distance."""
        with torch.no_grad():
            target = torch.stack(self._teacher[0](**inputs, output_hidden_states=True).hidden_states).float()
        hidden = torch.stack(self.student(**inputs, output_hidden_states=True).hidden_states).float()
        real = inputs["attention_mask"][None, :, :, None]
        distance = ((hidden - target).square() * real).sum((2, 3)) / (target.square() * real).sum((2, 3))
        return SimpleNamespace(logits=distance.mean(0))
