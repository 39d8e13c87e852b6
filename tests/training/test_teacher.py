"""Task distillation: the loss against its formula, and one teacher for all methods of a seed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.errors import ConfigError
from bench.runs.execute import run
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.training.teacher import TEMPERATURE, with_teacher
from tests.training.test_finetune import examples


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_loss_mixes_labels_and_teacher(weight):
    torch.manual_seed(0)
    data, logits, found = examples(), torch.randn(64, 2), torch.randn(64, 2)
    both, objective = with_teacher(data, logits, weight)
    soft = F.kl_div(
        F.log_softmax(found / TEMPERATURE, -1), F.softmax(logits / TEMPERATURE, -1), reduction="none"
    ).sum(-1)
    expected = (1 - weight) * F.cross_entropy(
        found, data.labels, reduction="none"
    ) + weight * TEMPERATURE**2 * soft
    torch.testing.assert_close(objective.losses(found, both.labels), expected)
    torch.testing.assert_close(
        objective.losses(logits, both.labels),
        (1 - weight) * F.cross_entropy(logits, data.labels, reduction="none"),
    )


def test_a_regression_has_the_teachers_number_as_a_second_label():
    data, numbers, found = examples(regression=True), torch.randn(64, 1), torch.randn(64, 1)
    both, objective = with_teacher(data, numbers, 0.5)
    expected = 0.5 * (found[:, 0] - data.labels).square() + 0.5 * (found - numbers)[:, 0].square()
    torch.testing.assert_close(objective.losses(found, both.labels), expected)


def test_one_teacher_serves_every_method_of_a_seed(tiny, tmp_path):
    learned = [*tiny, "training.teacher=dense", "training.learning_rate=1e-3"]
    first = run(compose_config([*learned, "embedding=subspace", "assignment=sequential"]))
    second = run(compose_config([*learned, "embedding=mean"]))
    assert first["status"] == second["status"] == "ok"
    assert len(list((tmp_path / "cache" / "teachers").glob("*.safetensors"))) == 1
    run(compose_config([*learned, "embedding=mean", "seed=1"]))
    assert len(list((tmp_path / "cache" / "teachers").glob("*.safetensors"))) == 2
    plain = run(
        compose_config([*tiny, "training.learning_rate=1e-3", "embedding=subspace", "assignment=sequential"])
    )
    assert not np.allclose(plain["training"]["curve"], first["training"]["curve"])


def test_a_teacher_that_is_not_asked_for_is_no_part_of_the_identity():
    def run_id(*overrides: str) -> str:
        return prepare(compose_config(["task=lexical_sentiment", *overrides])).run_id

    assert run_id() == run_id("training.teacher_weight=0.9")
    assert (
        len(
            {
                run_id(),
                run_id("training.teacher=dense"),
                run_id("training.teacher=dense", "training.teacher_weight=0.9"),
            }
        )
        == 3
    )
    with pytest.raises(ConfigError, match=r"Unknown training\.teacher 'dence'\. Did you mean 'dense'"):
        prepare(compose_config(["training.teacher=dence"]))
