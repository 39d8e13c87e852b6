"""A trained encoder in the cache: its tensors without a pooler, and the facts of its training."""

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel

from bench import store
from bench.errors import BenchError


def state_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the encoder's tensors by name, without the pooler's."""
    state = model.base_model.state_dict()
    return {key: value for key, value in state.items() if not key.startswith("pooler.")}


def write(path: Path, model: PreTrainedModel, facts: dict[str, Any]) -> None:
    """Write the encoder, which moves to the CPU, and the facts."""
    cast(Any, model).to("cpu")
    state = {key: value.contiguous() for key, value in state_of(model).items()}
    store.write_atomically(path, save(state, {"facts": json.dumps(facts)}))


def load(path: Path, model: PreTrainedModel) -> dict[str, Any]:
    """Load the encoder into the model, and return the SHA-256 of its tensors and the facts.

    After its training too: the file holds tables in few bits rounded, and every run gets the same encoder.
    """
    facts = facts_of(path)
    missing, unexpected = model.base_model.load_state_dict(load_file(path), strict=False)
    if unexpected or any(not key.startswith("pooler.") for key in missing):
        raise BenchError(
            f"{path} does not hold this model (missing {missing}, unexpected {unexpected}): delete the file."
        )
    return facts


def facts_of(path: Path) -> dict[str, Any]:
    """Return the SHA-256 of the tensors and the facts, which hold seconds, in the file."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    with path.open("rb") as tensors:
        header = int.from_bytes(tensors.read(8), "little")  # its bytes; safetensors' format
        tensors.seek(8 + header)
        return {"sha256": hashlib.file_digest(tensors, "sha256").hexdigest(), **facts}
