"""`recovery=distil`: match the dense model's embeddings and hidden states (TinyBERT, Jiao et al., Findings of EMNLP 2020).

They are matched token by token. Where an embedding has removed tokens, student and teacher split a text differently: then the
means over its tokens are matched, in each layer.
"""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.models import pretrained
from bench.models.layers import hidden_states
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import RunConfig
from bench.training import stored_states
from bench.training.batching import Examples
from bench.training.compilation import as_static

log = logging.getLogger("bench")


def learners(
    models: Sequence[PreTrainedModel],
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    data: Examples,
    whole: Examples,
    dtype: str,
) -> tuple[list[tuple[nn.Module, PreTrainedModel]], Examples]:
    """Return the distance between each model and the dense model, which all share, with the model; and the examples.

    Where the steps take more rows than there are texts, the dense model's states are computed once if they fit. `whole` are the
    texts as the dense model reads them: if these are not `data`, means are matched, which are always computed once. Raises
    ConfigError if they do not fit.
    """
    device = data.offsets.device
    transformers.set_seed(0)  # random weights, of a model that has them, are the same in any company
    teacher: Any = cast(Any, pretrained.load_model(config.model, "none")).to(device).eval()
    for model in models:
        cast(Any, model).to(device)

    if whole is not data:
        means = stored_states.means_of(teacher, whole, dtype)
        numbered = stored_states.with_numbers(data)
        return [(TextMeans(model.base_model, means), model) for model in models], numbered

    # Store the teacher's states, or run it in each step. Both round differently, and a model recovered beside others is to the
    # last bit the one recovered alone: so the number of models decides nothing.
    recovery = cast(TrainedRecoveryConfig, config.recovery)
    rows = recovery.steps * recovery.batch_size
    size, free = stored_states.size(teacher, data, dtype), stored_states.free_memory(device)
    if rows > len(data) and size <= stored_states.SHARE * free:
        log.info(
            "the teacher's states of %d texts are stored: %.1f of %.1f GB", len(data), size / 1e9, free / 1e9
        )
        data = stored_states.with_positions(data)
        teacher = stored_states.states_of(teacher, data, dtype)
    else:
        log.info(
            "the teacher runs in each step: %d rows of %d texts, %.1f GB of states, %.1f GB free",
            rows,
            len(data),
            size / 1e9,
            free / 1e9,
        )
    return [(HiddenStates(model.base_model, teacher), model) for model in models], data


class Distance(nn.Module):
    """The distance in one layer; a module, so that a lane compiles it, for all layers together."""

    def forward(self, hidden: Tensor, target: Tensor, positions: Tensor | None, mask: Tensor) -> Tensor:
        """Return ||S - T||^2 / ||T||^2 (B,) over each row's real tokens, in fp32.

        `hidden` is S (B, L, d), `mask` (B, L, 1); `target` is T or, with `positions` (B, L), a flat tensor that has T there.
        """
        target = (target if positions is None else target[positions]).float()
        distance = ((hidden.float() - target).square() * mask).sum((1, 2))
        return distance / (target.square() * mask).sum((1, 2))


class MeanDistance(nn.Module):
    """The distance in one layer between means over a text's tokens; a module as `Distance` is one."""

    def forward(self, hidden: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return ||s - t||^2 / ||t||^2 (B,) in fp32; s is the mean of `hidden` (B, L, d) where `mask` (B, L, 1), t `target` (B, d)."""
        mean = (hidden.float() * mask).sum(1) / mask.sum(1)
        return (mean - target).square().sum(1) / target.square().sum(1)


class HiddenStates(nn.Module):
    """The distance between student and teacher: the mean over layers of ||S - T||^2 / ||T||^2 over a row's tokens.

    Neither uses dropout, so that the teacher is a fixed target and the distance of the dense student, the control, is zero.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | Tensor) -> None:
        """`teacher`: the model, which is not trained, or its states as `stored_states.states_of` returns them."""
        super().__init__()
        self.student = student.eval()
        self.teacher = teacher.eval().requires_grad_(False) if isinstance(teacher, nn.Module) else teacher
        layers = cast(Any, student).config.num_hidden_layers + 1
        self.distances = nn.ModuleList(Distance() for _ in range(layers))

    def train(self, mode: bool = True) -> "HiddenStates":
        return super().train(False)

    def forward(self, positions: Tensor | None = None, **inputs: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): each row's distance. `positions` (B, L) are the tokens' in stored states."""
        if isinstance(self.teacher, Tensor):
            targets = self.teacher.unbind(1)
        else:
            with torch.no_grad():
                targets = hidden_states(self.teacher, **inputs)
        hidden = hidden_states(self.student, **inputs)
        mask = inputs["attention_mask"].unsqueeze(-1)
        layers = zip(self.distances, hidden, targets, strict=True)
        distances = [
            distance(
                as_static(states, 2), as_static(target, target.ndim - 1), positions, mask
            )  # models of another width
            for distance, states, target in layers
        ]
        return SimpleNamespace(logits=torch.stack(distances).mean(0))


class TextMeans(nn.Module):
    """The distance between student and teacher where they split texts differently: the mean over layers of `MeanDistance`."""

    def __init__(self, student: nn.Module, means: Tensor) -> None:
        """`means`: the teacher's, as `stored_states.means_of` returns them."""
        super().__init__()
        self.student, self.means = student.eval(), means
        self.distances = nn.ModuleList(MeanDistance() for _ in range(means.shape[1]))

    def train(self, mode: bool = True) -> "TextMeans":
        return super().train(False)

    def forward(self, numbers: Tensor, **inputs: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): each text's distance. `numbers` (B, L) says at its first token which of `means` is the text's."""
        targets = self.means[numbers[:, 0]].unbind(1)
        hidden, mask = hidden_states(self.student, **inputs), inputs["attention_mask"].unsqueeze(-1)
        layers = zip(self.distances, hidden, targets, strict=True)
        distances = [
            distance(as_static(states, 2), as_static(target, 1), mask) for distance, states, target in layers
        ]
        return SimpleNamespace(logits=torch.stack(distances).mean(0))
