"""Rows looked up in a table, and the gradient that they leave in it: those of torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.embeddings.lookup import MatchedLookup, OneHotLookup, OpaqueLookup, lookup

KINDS = [OneHotLookup, MatchedLookup, OpaqueLookup]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])  # codes and slots are int32
@settings(deadline=None)
@given(
    st.integers(1, 9), st.sampled_from([(1,), (4,), (3, 5), (2, 3, 4)]), st.booleans(), st.integers(0, 2**31)
)
def test_the_gradient_is_that_of_torchs_embedding(kind, dtype, rows, shape, padded, seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, rows, shape, generator=generator).to(dtype)
    gradient = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    padding = rows - 1 if padded else None
    expected, own = F.embedding(ids, table, padding), kind.apply(table, ids, padding)
    assert torch.equal(own, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(vectors, table, gradient) for vectors in (own, expected))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_exact_when_compiled_under_bf16_autocast(kind):
    table, ids = torch.randn(20, 8, requires_grad=True), torch.randint(0, 20, (4, 6))
    gradient = torch.randn(4, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = torch.compile(kind.apply, backend="aot_eager")(table, ids, None)
    torch.testing.assert_close(
        *(torch.autograd.grad(found, table, gradient) for found in (vectors, F.embedding(ids, table)))
    )


@pytest.mark.parametrize(
    ("device", "length"),
    [("cpu", 56), *(pytest.param("cuda", length, marks=pytest.mark.gpu) for length in (56, 136))],
)  # few ids, and more than UNSORTED
@pytest.mark.parametrize("rows", [2, 500, 30522])
@pytest.mark.parametrize("padding", [None, 1])
def test_a_lookup_equals_torchs_embedding_and_is_deterministic(rows, length, padding, device):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(rows, 64, generator=generator).to(device).requires_grad_()
    ids = torch.randint(0, rows, (32, length), generator=generator).to(device)
    gradient = torch.randn(32, length, 64, generator=generator).to(device)

    def found(function):
        vectors = function()
        return vectors.detach(), torch.autograd.grad(vectors, table, gradient)[0]

    own = found(lambda: lookup(table, ids, padding))
    for one, other in zip(own, found(lambda: F.embedding(ids, table, padding)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(own, found(lambda: lookup(table, ids, padding)), strict=True):
        assert torch.equal(one, other)
