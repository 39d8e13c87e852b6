"""Encoders with random weights, built from their architecture: for speed and memory, never for accuracy."""

from typing import Any, cast

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from bench.assignment import integer_root
from bench.assignment.digits import sequential
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.models.pretrained import swap_embedding

SUBSPACES = 3
ARCHITECTURES: dict[str, tuple[type[PreTrainedModel], type[PretrainedConfig], dict[str, Any]]] = {
    "minilm": (
        BertForSequenceClassification,
        BertConfig,
        {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    ),
    "bert-base": (BertForSequenceClassification, BertConfig, {}),
    "e5-small": (
        BertForSequenceClassification,
        BertConfig,
        {
            "vocab_size": 250037,
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "intermediate_size": 1536,
            "pad_token_id": 1,
        },
    ),
    "xlm-r-small": (
        XLMRobertaForSequenceClassification,
        XLMRobertaConfig,
        {
            "vocab_size": 250002,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "intermediate_size": 1536,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
        },
    ),
    "xlm-r-base": (
        XLMRobertaForSequenceClassification,
        XLMRobertaConfig,
        {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
}
EMBEDDINGS = ("dense", "subspace")


def build(backbone: str, embedding: str, device: torch.device, seed: int = 0) -> PreTrainedModel:
    """Return the classifier with random weights on the device; its table is dense, or 3 sub-tables with sequential codes."""
    config = architecture(backbone)
    torch.manual_seed(seed)
    with device:
        model = ARCHITECTURES[backbone][0](config)
    if embedding == "subspace":
        rows = integer_root(config.vocab_size, SUBSPACES)
        codes = sequential(config.vocab_size, SUBSPACES, rows)
        module = SubspaceEmbedding(
            codes,
            rows,
            config.hidden_size,
            sub_dim=config.hidden_size // SUBSPACES,
            padding_idx=config.pad_token_id,
            codes_stored=False,
        )
        nn.init.normal_(module.weight, std=config.initializer_range)
        swap_embedding(model, module)
    return cast(PreTrainedModel, cast(Any, model).to(device))


def architecture(backbone: str) -> PretrainedConfig:
    """Return the backbone's configuration, with two classes."""
    _, config_class, sizes = ARCHITECTURES[backbone]
    return config_class(**sizes)


def placeholder_tokenizer(padding: int, tokens: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with `tokens` tokens and no words, whose padding token has the id `padding`."""
    names = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names.insert(padding, "[PAD]")
    names += [f"[unused{i}]" for i in range(len(names), tokens)]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
