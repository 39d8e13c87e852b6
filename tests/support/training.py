"""A model trained alone, and the digest of a trained encoder's file."""

import hashlib
import json
from pathlib import Path

from safetensors.numpy import load_file

from bench.settings.schema import TrainingConfig
from bench.training.batching import Examples
from bench.training.checkpoint import Checkpoint
from bench.training.finetune import Diverged, Outcome, Trainee, finetune_together
from bench.training.lane import TASK, Objective


def finetune(
    model,
    train: Examples,
    config: TrainingConfig,
    *,
    seed: int,
    dtype: str,
    name: str,
    objective: Objective = TASK,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train `model` in place and return the outcome; raises Diverged."""
    (outcome,) = finetune_together([Trainee(model, train, config, seed, name, objective, checkpoint)], dtype)
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def tensors_sha256(path: Path) -> str:
    """Return the SHA-256 of the tensors of a safetensors file, in its order, without its metadata."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    names = sorted(header.keys() - {"__metadata__"}, key=lambda name: header[name]["data_offsets"])
    tensors = load_file(path)
    return hashlib.sha256(b"".join(tensors[name].tobytes() for name in names)).hexdigest()
