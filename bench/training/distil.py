"""Recovery: what a smaller embedding lost is trained back on text without labels, once for every task of a sweep.

`distil` matches the dense model's embeddings and hidden states (after Jiao et al., TinyBERT, Findings of EMNLP 2020);
`masked_lm` guesses masked tokens (Devlin et al., NAACL 2019) through the decoder that is tied to the embedding.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench import store
from bench.errors import BenchError, DataError
from bench.models import pretrained
from bench.settings.schema import RunConfig, TrainedRecovery, TrainingConfig
from bench.training import processes
from bench.training.batching import Examples
from bench.training.finetune import Outcome, finetune
from bench.training.lane import Objective

VERSION = 1  # raised whenever a change here changes a recovered model
# share of the tokens that are to be guessed; of these 80 % are hidden, 10 % replaced, 10 % left
MASKED = 0.15


def recover(
    model: PreTrainedModel,
    config: RunConfig,
    identity: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    device: torch.device,
    dtype: str,
    name: str,
) -> dict[str, Any]:
    """Put the recovered encoder into `model`, whose embedding has been swapped, and return the record's `recovery`.

    It is trained if no equal one lies in `cache_dir/recovered`; equal are those of the same model and initial embedding,
    recipe, texts and number format. The pooler is no part of it. `identity` is the model's. Raises DataError for a corpus
    without text, ConfigError where a masked-LM head is needed and the model has none, Diverged.
    """
    if not texts:
        raise DataError(
            f"recovery.corpus ({cast(TrainedRecovery, config.recovery).corpus}) is empty: give one with text."
        )
    path = Path(config.cache_dir) / "recovered" / f"{_key(model, config, identity, texts, dtype)}.safetensors"
    store.make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):  # others who need the same model wait for it
        reused = store.read_cached(path, load_file) is not None
        if not reused:
            processes.refuse_several("recovery", "recovered model")
            outcome = _train(model, config, tokenizer, texts, device, dtype, name)
            facts = {key: getattr(outcome, key) for key in ("steps", "seconds", "engine", "curve")}
            cast(Any, model).to("cpu")
            state = {key: value.contiguous() for key, value in _encoder(model).items()}
            store.write_atomically(path, save(state, {"facts": json.dumps(facts)}))
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    # Also where it was trained just now: tables in few bits are stored rounded, and every user gets the same.
    missing, unexpected = model.base_model.load_state_dict(load_file(path), strict=False)
    if unexpected or any(not key.startswith("pooler.") for key in missing):
        raise BenchError(
            f"{path} does not hold this model (missing {missing}, left over {unexpected}): delete it."
        )
    return {
        "name": config.recovery.name,
        "sha256": pretrained.digest(path),
        "reused": reused,
        "texts": len(texts),
        **facts,
    }


def _encoder(model: PreTrainedModel) -> dict[str, Tensor]:
    return {
        key: value for key, value in model.base_model.state_dict().items() if not key.startswith("pooler.")
    }


def _key(
    model: PreTrainedModel, config: RunConfig, identity: dict[str, Any], texts: Sequence[str], dtype: str
) -> str:
    recipe = {key: value for key, value in vars(config.recovery).items() if key != "corpus"}
    embedding = {name: part.cpu().numpy() for name, part in model.get_input_embeddings().state_dict().items()}
    return store.key(VERSION, recipe, identity, dtype, embedding, list(texts))


def _train(
    model: PreTrainedModel,
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    device: torch.device,
    dtype: str,
    name: str,
) -> Outcome:
    """Train the encoder in place; return what was done."""
    recovery = cast(TrainedRecovery, config.recovery)
    data = unlabelled(tokenizer, texts, recovery.max_length, device)
    embedding = model.get_input_embeddings()
    learner: nn.Module
    if recovery.name == "distil":
        cast(Any, model).to(device)
        teacher = pretrained.load_model(config.model, "none")
        learner = HiddenStates(model.base_model, cast(Any, teacher).to(device))
    else:
        pretrained.check_masked_lm_head(config.model)
        guesser = pretrained.load_model(config.model, "masked_lm")
        pretrained.swap_embedding(guesser, embedding)
        learner = MaskedTokens(cast(PreTrainedModel, cast(Any, guesser).to(device)), tokenizer)
    transformers.set_seed(recovery.seed)
    objective = Objective(lambda rows, _: rows, frozenset(embedding.parameters()), recovery.table_factor)
    part = config.training.device_batch or config.training.batch_size
    recipe = TrainingConfig(
        max_steps=recovery.steps,
        batch_size=recovery.batch_size,
        learning_rate=recovery.learning_rate,
        weight_decay=0.0,
        engine=config.training.engine,
        device_batch=-(-recovery.batch_size * part // config.training.batch_size),
    )
    outcome = finetune(
        learner,
        data,
        recipe,
        seed=recovery.seed,
        dtype=dtype,
        name=f"{name} {recovery.name}",
        objective=objective,
    )
    if recovery.name == "masked_lm":
        model.base_model.load_state_dict(_encoder(guesser), strict=False)
    return outcome


def unlabelled(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, device: torch.device
) -> Examples:
    """Return the texts as examples without meaning in their labels."""
    ids = cast(list[list[int]], tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"])
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    return Examples(
        tokens={"input_ids": torch.from_numpy(np.concatenate(ids).astype(np.int32)).to(device)},
        offsets=torch.from_numpy(np.cumsum(lengths) - lengths).to(device),
        lengths=lengths,
        labels=torch.zeros(len(ids), dtype=torch.int64, device=device),
        pad={"input_ids": cast(int, tokenizer.pad_token_id)},
    )


class HiddenStates(nn.Module):
    """The student's distance from the teacher: of each layer ||S - T||^2 / ||T||^2 over a row's tokens, the mean over layers.

    Both without dropout: only so is the teacher a fixed target, and the dense student, the control, at zero from the start.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self._teacher = (
            student.eval(),
            (teacher.eval().requires_grad_(False),),
        )  # in a tuple: not trained, not saved

    def train(self, mode: bool = True) -> "HiddenStates":
        return super().train(False)

    def forward(self, **inputs: Tensor) -> SimpleNamespace:
        """Return `logits` (B,): each row's distance."""
        with torch.no_grad():
            wanted = torch.stack(self._teacher[0](**inputs, output_hidden_states=True).hidden_states).float()
        found = torch.stack(self.student(**inputs, output_hidden_states=True).hidden_states).float()
        real = inputs["attention_mask"][None, :, :, None]
        distance = ((found - wanted).square() * real).sum((2, 3)) / (wanted.square() * real).sum((2, 3))
        return SimpleNamespace(logits=distance.mean(0))


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
