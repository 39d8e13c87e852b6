"""What torch.compile fuses of a lane, and that it leaves no trace."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AlbertConfig, AlbertModel, MPNetConfig, MPNetForSequenceClassification

from bench.assignment.digits import sequential
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.models.pretrained import swap_embedding
from bench.training.compilation import first_lengths
from bench.training.finetune import Trainee
from bench.training.lane import Objective
from bench.training.recoveries.distil import HiddenStates
from tests.training.test_engine import CONFIG, examples, lane, model, weights_of

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)


@needs_compiler
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 2e-5), ("bf16", 2e-3)])
def test_compiled_modules_train_like_eager_ones_and_leave_the_model_unchanged(dtype, tolerance):
    plain, compiled = lane(model(), examples(), dtype), lane(model(), examples(), dtype)
    compiled.compile()
    assert any(matrix.copy is not None for matrix in compiled.fused.matrices) == (dtype == "bf16")
    for own in (plain, compiled):
        for step in range(10):
            own.step(int(own.schedule.lengths[step]))
    np.testing.assert_allclose(compiled.losses, plain.losses, atol=tolerance)
    modules = [compiled.model.bert.embeddings, *compiled.model.bert.encoder.layer]
    assert all("forward" in vars(module) for module in modules)
    for own in (plain, compiled):
        own.close()
    np.testing.assert_allclose(weights_of(compiled.model), weights_of(plain.model), atol=tolerance)
    assert not any("forward" in vars(module) for module in compiled.model.modules())


def test_an_encoder_that_holds_a_table_is_not_compiled_around_its_blocks():
    """MPNet's encoder looks relative positions up."""
    config = MPNetConfig(
        vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    own = lane(MPNetForSequenceClassification(config), examples())
    own.compile()
    compiled = [module for module in own.model.modules() if "forward" in vars(module)]
    assert compiled == [own.model.mpnet.embeddings, *own.model.mpnet.encoder.layer]


def test_the_group_of_layers_that_albert_repeats_is_compiled_in_student_and_teacher():
    shape = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    student, teacher = (
        AlbertModel(AlbertConfig(vocab_size=30, embedding_size=12, **shape)) for _ in range(2)
    )
    learner = HiddenStates(student, teacher)
    own = Trainee(learner, examples(), CONFIG, 0, "t", Objective(lambda rows, _: rows)).lane("fp32")
    own.compile()
    expected = [*learner.distances]
    for encoder in (student, teacher):
        expected += [encoder.embeddings, *encoder.encoder.albert_layer_groups]
    assert {module for module in learner.modules() if "forward" in vars(module)} == set(expected)


@needs_compiler
def test_compiled_code_serves_other_runs_and_other_sizes_of_the_embedding():
    def trained(rows):
        smaller = model()
        swap_embedding(
            smaller, SubspaceEmbedding(sequential(30, 2, rows), rows, 32, sub_dim=16, padding_idx=0)
        )
        kinds = [type(module) for module in smaller.modules()]
        own = lane(smaller, examples())
        own.compile()
        for step in range(3):
            own.step(int(own.schedule.lengths[step]))
        own.close()
        assert [type(module) for module in smaller.modules()] == kinds

    trained(6)
    with torch.compiler.set_stance("fail_on_recompile"):
        trained(8)


@needs_compiler
@pytest.mark.parametrize("kind", ["compressed", "recovery"])
def test_batches_of_another_size_have_code_of_their_own_and_other_lengths_have_none(kind):
    def compiled(batch_size, lengths):
        """Return how many functions are compiled."""
        before, trained = counters["stats"]["unique_graphs"], model()
        if kind == "compressed":
            table = SubspaceEmbedding(sequential(30, 2, 6), 6, 32, sub_dim=16, padding_idx=0)
            swap_embedding(trained, table)
        if kind == "recovery":
            recipe = replace(CONFIG, batch_size=batch_size)
            learner = HiddenStates(trained.bert, model().bert)
            own = Trainee(learner, examples(), recipe, 0, "t", Objective(lambda rows, _: rows)).lane("fp32")
        else:
            own = lane(trained, examples(), batch_size=batch_size)
        own.compile()
        for length in lengths:
            own.rehearse()
            own.step(length)
        own.close()
        return counters["stats"]["unique_graphs"] - before

    torch.compiler.reset()
    of_eight = compiled(8, first_lengths(model(), [40, 39]))
    assert compiled(8, [128, 40, 8, 39]) == 0
    assert compiled(4, first_lengths(model(), [40, 39])) == of_eight - 2, (
        "the updates of one and six matrices serve both"
    )


def test_a_lane_is_compiled_for_the_same_lengths_before_its_own():
    assert first_lengths(model(), [120, 64, 8]) == [64, 72] == first_lengths(model(), [])
    assert first_lengths(model(), [45, 96, 39]) == first_lengths(model(), [4]) == [64, 72, 68, 66, 65]
    small = model()
    small.config.max_position_embeddings = 100
    assert first_lengths(small, [40]) == []


@needs_compiler
def test_lanes_compile_a_teacher_that_they_share_once_and_leave_it_unchanged():
    def learners():
        teacher, students = model().bert, (model(), model())
        with torch.no_grad():
            for number, student in enumerate(students):
                student.get_input_embeddings().weight.mul_(1.1 + number / 10)
        return [HiddenStates(student.bert, teacher) for student in students], teacher

    def losses(compiled):
        trained, teacher = learners()
        objective = Objective(lambda rows, _: rows)
        lanes = [
            Trainee(one, examples(), replace(CONFIG, max_steps=2), 0, "t", objective).lane("bf16")
            for one in trained
        ]
        for own in lanes * compiled:
            own.compile()
        parts = [teacher.embeddings, *teacher.encoder.layer, *trained[0].distances, *trained[1].distances]
        assert all(("forward" in vars(module)) == compiled for module in parts)
        for step in range(2):
            for own in lanes:
                own.step(int(own.schedule.lengths[step]))
        for own in lanes:
            own.close()
        modules = [module for one in trained for module in one.modules()]
        assert not any("forward" in vars(module) for module in modules)
        assert {p.dtype for p in teacher.parameters()} == {torch.float32}
        return torch.stack([own.losses for own in lanes])

    eager, compiled = losses(False), losses(True)
    np.testing.assert_allclose(compiled, eager, rtol=2e-2)
    assert (eager[1] > eager[0]).all()
