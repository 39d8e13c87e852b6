"""Bytes and parameters of a model, as they go into a record."""

import safetensors.torch
from torch import nn
from transformers import PreTrainedModel

from bench.embeddings.base import Size
from bench.models.body import stored_bytes
from bench.store import SizePart


def sizes(
    model: PreTrainedModel, embedding: nn.Module, size: Size, dense: Size, body: str = "fp32"
) -> SizePart:
    """Return the record's size part: the embedding by formula, the rest in the form `body`, the file as measured.

    `size` and `dense` are the formula's answers for this embedding and for the dense table.
    """
    inside = {id(parameter) for parameter in embedding.parameters()}
    others = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in inside)
    return {
        "embedding_params": size.params,
        "code_bits": size.code_bits,
        "embedding_bytes": size.bytes,
        "dense_embedding_params": dense.params,
        "dense_embedding_bytes": dense.bytes,
        "total_params": others + size.params,
        "total_bytes": stored_bytes(model, body) + size.bytes,
        "file_bytes": len(safetensors.torch.save(embedding.state_dict())),
        "memory_bytes": sum(tensor.nbytes for tensor in (*embedding.parameters(), *embedding.buffers())),
        "param_saving": 1 - size.params / dense.params,
        "byte_saving": 1 - size.bytes / dense.bytes,
    }
