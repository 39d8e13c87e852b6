"""Task distillation: the logits of the fine-tuned dense model as further labels (Hinton, Vinyals & Dean 2015, arXiv 1503.02531)."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from filelock import FileLock
from torch import Tensor

from bench import store
from bench.models import pretrained
from bench.settings.schema import RunConfig
from bench.training import processes
from bench.training.batching import Examples
from bench.training.finetune import Diverged, Trainee, finetune_together, predict
from bench.training.lane import Objective, losses_of

TEMPERATURE = 2.0


def with_teacher(train: Examples, logits: Tensor, weight: float) -> tuple[Examples, Objective]:
    """Return the examples with labels (N, 1 + C), the label before the teacher's logits, and the loss that reads them.

    The loss is (1 - weight) of the task's own and `weight` of T^2 KL(teacher || student) at temperature T, or of the
    squared distance from the teacher's number where the task is a regression.
    """
    regression = train.labels.is_floating_point()

    def losses(found: Tensor, labels: Tensor) -> Tensor:
        own = losses_of(found, labels[:, 0] if regression else labels[:, 0].long())
        if regression:
            theirs = losses_of(found, labels[:, 1])
        else:
            ours, wanted = (F.log_softmax(x.float() / TEMPERATURE, dim=-1) for x in (found, labels[:, 1:]))
            theirs = TEMPERATURE**2 * F.kl_div(ours, wanted, reduction="none", log_target=True).sum(-1)
        return (1 - weight) * own + weight * theirs

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
        """Return where its teacher's logits lie."""
        parts = {key: self.canonical[key] for key in ("model", "task", "data", "seed")}
        recipe = {
            key: value
            for key, value in self.canonical["training"].items()
            if key not in ("teacher", "teacher_weight")
        }
        key = store.key(parts, recipe, dtype)
        return Path(self.config.cache_dir) / "teachers" / f"{key}.safetensors"


def teacher_logits(students: Sequence[Student], device: torch.device, dtype: str) -> list[Tensor]:
    """Return for each the logits (N, C) of the dense model fine-tuned with the same recipe and seed on the same examples.

    Kept in `cache_dir/teachers`, so that every method of a sweep learns from the same. Those that are not there yet are
    trained side by side.
    """
    paths = {student.path(dtype): student for student in students}
    for path in paths:
        store.make_folder(path.parent)
    with ExitStack() as locks:
        for path in sorted(
            paths
        ):  # in one order everywhere: two that wait for each other would wait for ever
            locks.enter_context(FileLock(path.with_suffix(".lock")))
        known = {path: store.read_cached(path, store.load_array) for path in paths}
        if missing := {path: paths[path] for path, logits in known.items() if logits is None}:
            known |= _teach(missing, device, dtype)
    return [torch.from_numpy(known[student.path(dtype)]) for student in students]


def _teach(students: dict[Path, Student], device: torch.device, dtype: str) -> dict[Path, np.ndarray]:
    """Return the logits of new teachers, each written to its path; raises Diverged once the others are written."""
    processes.refuse_several("training.teacher", "teacher")
    trainees = []
    for student in students.values():
        transformers.set_seed(student.config.seed)
        teacher = cast(Any, pretrained.load_classifier(student.config.model, student.config.task)).to(device)
        trainees.append(
            Trainee(
                teacher,
                student.train,
                student.config.training,
                student.config.seed,
                f"{student.name} teacher",
            )
        )
    transformers.set_seed(trainees[0].seed)
    found, diverged = dict[Path, np.ndarray](), list[Diverged]()
    for path, trainee, outcome in zip(students, trainees, finetune_together(trainees, dtype), strict=True):
        if isinstance(outcome, Diverged):
            diverged.append(outcome)
            continue
        found[path] = predict(trainee.model, trainee.train, trainee.config.eval_batch_size, dtype)
        with store.atomic(path) as temporary:
            store.save_array(found[path], temporary)
    for outcome in diverged:
        raise Diverged(outcome.done, outcome.steps, "teacher's ")
    return found
