"""Task distillation: the logits of the fine-tuned dense model as additional labels (Hinton et al. 2015, arXiv 1503.02531)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from bench import store
from bench.models import pretrained
from bench.settings.schema import RunConfig
from bench.training import processes
from bench.training.batching import Examples, evaluation_tokens
from bench.training.finetune import Diverged, Trainee, finetune_together, predict
from bench.training.lane import Objective, losses_of

TEMPERATURE = 2.0


def with_teacher(train: Examples, logits: Tensor, weight: float) -> tuple[Examples, Objective]:
    """Return the examples with labels (N, 1 + C), the label followed by the teacher's logits, and the loss of both.

    The loss is (1 - weight) times the task's loss plus `weight` times T^2 KL(teacher || student) at temperature T. In a
    regression the second term is the squared distance from the teacher's number.
    """
    regression = train.labels.is_floating_point()

    def losses(logits: Tensor, labels: Tensor) -> Tensor:
        if regression:
            from_labels = losses_of(logits, labels[:, 0])
            from_teacher = losses_of(logits, labels[:, 1])
        else:
            from_labels = losses_of(logits, labels[:, 0].long())
            student, teacher = (
                F.log_softmax(x.float() / TEMPERATURE, dim=-1) for x in (logits, labels[:, 1:])
            )
            divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
            from_teacher = TEMPERATURE**2 * divergence
        return (1 - weight) * from_labels + weight * from_teacher

    both = torch.cat([train.labels.float().unsqueeze(1), logits.to(train.labels.device)], dim=1)
    return replace(train, labels=both), Objective(losses)


@dataclass(frozen=True)
class Student:
    """A run that learns from a teacher; `canonical` is its canonical configuration."""

    config: RunConfig
    canonical: dict[str, Any]
    train: Examples
    name: str

    def path(self, dtype: str) -> Path:
        """Return the path of its teacher's logits."""
        parts = {key: self.canonical[key] for key in ("model", "task", "data", "seed")}
        training, of_student = self.canonical["training"], ("teacher", "teacher_weight")
        recipe = {key: value for key, value in training.items() if key not in of_student}
        key = store.key(parts, recipe, dtype)
        return Path(self.config.cache_dir) / "teachers" / f"{key}.safetensors"


def teacher_logits(students: Sequence[Student], device: torch.device, dtype: str) -> list[Tensor]:
    """Return, for each student, the logits (N, C) of the dense model fine-tuned with the same recipe, seed and examples.

    They are cached in `cache_dir/teachers`, so that every method of a sweep learns from the same teacher. Teachers that are
    missing train side by side. Raises Diverged for a teacher whose training diverges.
    """
    paths = {student.path(dtype): student for student in students}
    with store.locked(*paths):
        logits = {path: store.read_cached(path, store.load_array) for path in paths}
        if missing := {path: paths[path] for path, cached in logits.items() if cached is None}:
            logits |= _train_teachers(missing, device, dtype)
    return [torch.from_numpy(logits[student.path(dtype)]) for student in students]


def _train_teachers(
    students: dict[Path, Student], device: torch.device, dtype: str
) -> dict[Path, np.ndarray]:
    """Return the logits of new teachers, each written to its path; raises Diverged once the others are written."""
    processes.refuse_several("training.teacher", "teacher")

    # Load a dense model for each student.
    trainees = []
    for student in students.values():
        config = student.config
        transformers.set_seed(config.seed)
        teacher = cast(Any, pretrained.load_classifier(config.model, config.task)).to(device)
        name = f"{student.name} teacher"
        trainees.append(Trainee(teacher, student.train, config.training, config.seed, name))

    # Train the models, and write the logits of those that converge.
    logits, diverged = dict[Path, np.ndarray](), list[Diverged]()
    for path, trainee, outcome in zip(students, trainees, finetune_together(trainees, dtype), strict=True):
        if isinstance(outcome, Diverged):
            diverged.append(outcome)
            continue
        tokens = evaluation_tokens(trainee.config, device)
        logits[path] = predict(trainee.model, trainee.train, tokens, dtype)
        with store.atomic(path) as temporary:
            store.save_array(logits[path], temporary)
    for outcome in diverged:
        raise Diverged(outcome.done, outcome.steps, "teacher's ")
    return logits
