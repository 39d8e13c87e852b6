"""A model trained alone."""

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
