"""Task distillation: the logits of the fine-tuned dense model as further labels (Hinton, Vinyals & Dean 2015, arXiv 1503.02531)."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor

from bench import backbones, store
from bench.config import RunConfig
from bench.training import processes
from bench.training.batching import Examples
from bench.training.finetune import finetune, predict
from bench.training.lane import Objective, losses_of

TEMPERATURE = 2.0
log = logging.getLogger("bench")


def taught(train: Examples, logits: Tensor, weight: float) -> tuple[Examples, Objective]:
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


def teacher_logits(config: RunConfig, canonical: dict[str, Any], train: Examples, device: torch.device, dtype: str, name: str) -> Tensor:
    """Return the logits (N, C) of the dense model fine-tuned with the same recipe and seed on the same examples.

    Kept in `cache_dir/teachers`, so that every method of a sweep learns from the same. `canonical` is the run's.
    """
    teaching = ("teacher", "teacher_weight")
    parts = {key: canonical[key] for key in ("model", "task", "data", "seed")}
    recipe = {key: value for key, value in canonical["training"].items() if key not in teaching}
    key = hashlib.sha256(json.dumps([parts, recipe, dtype], sort_keys=True).encode()).hexdigest()
    path = Path(config.cache_dir) / "teachers" / f"{key}.safetensors"
    store.make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):
        try:
            return safetensors.torch.load_file(path)["logits"]
        except FileNotFoundError:
            pass
        except (SafetensorError, OSError, KeyError) as error:
            log.warning("%s cannot be read (%s): the teacher is trained again", path, error)
        processes.refuse_several("training.teacher", "teacher")
        transformers.set_seed(config.seed)
        teacher = cast(Any, backbones.load_classifier(config.model, config.task)).to(device)
        transformers.set_seed(config.seed)
        finetune(teacher, train, config.training, seed=config.seed, dtype=dtype, name=f"{name} teacher")
        logits = torch.from_numpy(predict(teacher, train, config.training.eval_batch_size, dtype))
        store.write_atomically(path, safetensors.torch.save({"logits": logits}))
    return logits
