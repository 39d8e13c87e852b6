"""What torch.compile fuses of a lane, and that it leaves no trace."""

import shutil

import numpy as np
import pytest
import torch
from transformers import MPNetConfig, MPNetForSequenceClassification

from bench.assignment.digits import sequential
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.models.pretrained import swap_embedding
from tests.training.test_engine import examples, lane, model, weights_of

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
