"""A model's tokenizer, checked against the embedding table that its ids index."""

import logging
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from bench.errors import ConfigError
from bench.models import location, pretrained
from bench.settings.recoveries import TrainedRecoveryConfig
from bench.settings.schema import ModelConfig, RunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST, USUAL = 0.5, 0.9  # tokens for each row of the table: below LEAST refused, below USUAL logged
MUCH_UNKNOWN = 0.05  # share of unknown tokens from which a warning is logged

log = logging.getLogger("bench")


def load_tokenizer(config: ModelConfig) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer, whose ids all have a row in the embedding table.

    Raises EnvironmentBroken where its files cannot be read, and ConfigError where they are missing, belong to another
    model or name no padding token. transformers accepts all of these: without files it builds a tokenizer to which
    every word is unknown, and an id beyond the table fails only when a text contains it.
    """
    where, options = location.locate(config)
    tokenizer = pretrained.from_pretrained("AutoTokenizer", config, where, options)
    key = f"model.path ({config.path})"
    if tokenizer.pad_token_id is None:
        raise ConfigError(
            f"{key}: the tokenizer has no padding token; set pad_token in its tokenizer_config.json."
        )
    ids, rows = tokenizer.get_vocab().values(), pretrained.shape(config)[0]
    if len(ids) < LEAST * rows:
        raise ConfigError(
            f"{key}: the tokenizer has {len(ids):,} tokens for a table of {rows:,} rows, so its files are missing, cut "
            "short or another model's; put the model's own (tokenizer.json, or its vocabulary) into the folder."
        )
    if max(ids) >= rows:
        raise ConfigError(
            f"{key}: the tokenizer has ids up to {max(ids):,}, but the table has {rows:,} rows; use the tokenizer that the "
            "model was trained with, or add rows to the table (resize_token_embeddings)."
        )
    if len(ids) < USUAL * rows:
        log.warning("%s: the tokenizer has %d tokens for a table of %d rows", key, len(ids), rows)
    return cast("PreTrainedTokenizerBase", tokenizer)


def check_for_run(tokenizer: "PreTrainedTokenizerBase", config: RunConfig) -> None:
    """Raise ConfigError unless the tokenizer has the special tokens, and sequences the room for text, that the run needs."""
    if config.recovery.needs_masked_lm_head and tokenizer.mask_token_id is None:
        raise ConfigError(
            f"recovery={config.recovery.name} needs a mask token, which the tokenizer of {config.model.name} lacks: use recovery=distil."
        )
    texts = len(config.task.columns)
    special = tokenizer.num_special_tokens_to_add(pair=texts > 1)
    if not special:
        log.warning(
            "The tokenizer of %s puts no special token ([CLS], [SEP]) around a text", config.model.name
        )
    lengths = [("training", config.training.max_length, special + texts)]
    if isinstance(config.recovery, TrainedRecoveryConfig):
        lengths.append(("recovery", config.recovery.max_length, tokenizer.num_special_tokens_to_add() + 1))
    for key, length, least in lengths:
        if length < least:
            raise ConfigError(
                f"{key}.max_length ({length}) leaves no room for text beside the special tokens: use {least} or more."
            )


def compact_json(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return tokenizer.json without white space: half of the bytes where the vocabulary is large."""
    return cast(str, cast(Any, tokenizer).backend_tokenizer.to_str())


def unknown_share(tokenizer: "PreTrainedTokenizerBase", ids: Tensor) -> float:
    """Return the share of unknown tokens among `ids` (N,), special tokens aside."""
    unknown, words = tokenizer.unk_token_id, without_special(tokenizer, ids)
    return int((words == unknown).sum()) / max(len(words), 1) if unknown is not None else 0.0


def without_special(tokenizer: "PreTrainedTokenizerBase", ids: Tensor) -> Tensor:
    """Return those of `ids` (N,) that are text, unknown tokens among them."""
    special = [token for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id]
    return ids[~torch.isin(ids, torch.tensor(special, device=ids.device))]
