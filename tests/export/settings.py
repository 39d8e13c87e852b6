"""Every method with settings that reach all of its parts, in a model so small that a test of each is affordable."""

from typing import Any

import torch
import transformers as tf

from bench.embeddings.wrappers import Gain
from bench.models import pretrained
from bench.settings.embeddings import EmbeddingConfig
from tests.support.reference import built

VOCAB_SIZE, WIDTH = 1009, 24
SMALL = {
    "vocab_size": VOCAB_SIZE,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "num_labels": 3,
    "initializer_range": 0.2,
}
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}), ("subspace", {}), ("subspace", {"subspaces": 4, "compose": "sum", "keep_dense": 5}),
    ("subspace", {"subspaces": 4, "sub_dim": 3, "table_dtype": "int8", "keep_dense": 5}), ("subspace", {"subspaces": 2, "rows": 300}),
    ("subspace", {"code_rows": 300, "keep_dense": 5}),
    ("subspace", {"subspaces": 4, "rows": 9, "code_rows": 40, "compose": "sum", "keep_dense": 5, "table_dtype": "int8"}),
    ("subspace", {"table_dtype": "int8"}), ("codebook", {"rows": 40}), ("codebook", {"rows": 40, "keep_dense": 5, "table_dtype": "int8"}),
    ("low_rank", {"rank": 4, "keep_dense": 5, "table_dtype": "int8"}), ("trimmed", {"rows": 50, "keep_dense": 5, "table_dtype": "int8"}),
    ("residual", {"subspaces": 3, "rows": 9}), ("hashing", {"rows": 40}), ("quotient_remainder", {"rows": 40}),
    ("low_rank", {"rank": 4}), ("truncated", {"rank": 5}), ("trimmed", {"rows": 50}), ("quantised", {"bits": 8, "group": 8}),
    ("quantised", {"bits": 4, "group": 8}), ("mean", {}), ("hash_only", {}),
]  # fmt: skip
FAMILIES = {
    "bert": tf.BertConfig(**SMALL), "roberta": tf.RobertaConfig(**SMALL), "xlm-r": tf.XLMRobertaConfig(**SMALL),
    "distilbert": tf.DistilBertConfig(vocab_size=VOCAB_SIZE, n_layers=1, n_heads=2, dim=WIDTH, hidden_dim=32, max_position_embeddings=40,
                                      num_labels=3, initializer_range=0.2),
}  # fmt: skip


def compressed(family: str, name: str, keys: dict[str, Any]) -> tuple[tf.PreTrainedModel, EmbeddingConfig]:
    """Return a classifier of random weights with its embedding swapped, codes stored, and the resolved configuration."""
    torch.manual_seed(0)
    model = tf.AutoModelForSequenceClassification.from_config(FAMILIES[family]).eval()
    config, module, _ = built(name, keys, VOCAB_SIZE, WIDTH, True, pretrained.table(model).clone())
    for part in module.modules():
        if isinstance(part, Gain):
            torch.nn.init.uniform_(part.gain, 0.5, 1.5)
    pretrained.swap_embedding(model, module)
    return model, config


@torch.no_grad()
def logits(model: tf.PreTrainedModel) -> torch.Tensor:
    """Return the logits (4, 3) of tokens of the whole vocabulary, with padding."""
    ids = torch.randint(10, VOCAB_SIZE, (4, 30), generator=torch.Generator().manual_seed(1))
    ids[:, :6], ids[0, 20:] = torch.tensor([2, 3, 4, 5, 6, 7]), model.config.pad_token_id
    found: torch.Tensor = model.eval()(
        input_ids=ids, attention_mask=(ids != model.config.pad_token_id).long()
    ).logits
    return found
