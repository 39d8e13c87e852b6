"""The layer and its tied decoder against a dense table: values, gradients, padding, stored state, memory."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from bench.assignment.digits import sequential
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.settings.embeddings import SubspaceConfig
from tests.support.reference import LargestTensor, dense_table, empty


@dataclass
class Case:
    """One layer in float64, with the codes it was made from."""

    layer: SubspaceEmbedding
    codes: np.ndarray

    def table(self) -> torch.Tensor:
        projection = None if self.layer.projection is None else self.layer.projection.weight
        return dense_table(
            self.layer.weight, self.codes, self.layer.compose, projection, self.layer.padding_idx
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    f, s, rows = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 9))
    vocab_size = draw(st.integers(2, 40))
    compose = draw(st.sampled_from(["concat", "sum"]))
    width = s * (f if compose == "concat" else 1) + draw(st.sampled_from([0, 3]))  # 3: an up-projection
    padding_idx = draw(st.none() | st.integers(0, vocab_size - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, rows, (vocab_size, f), dtype=np.int32)
    layer = SubspaceEmbedding(
        codes, rows, width, sub_dim=s, compose=compose, padding_idx=padding_idx
    ).double()
    for parameter in layer.parameters():
        parameter.data = torch.from_numpy(rng.normal(size=tuple(parameter.shape)))
    return Case(layer, codes)


def gradients(loss: torch.Tensor, *tensors: torch.Tensor | None) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [t for t in tensors if t is not None]))


@settings(deadline=None, max_examples=60)
@given(cases(), st.data())
def test_lookup_and_gradient_equal_a_dense_table(case, data):
    layer = case.layer
    ids = torch.tensor(
        data.draw(st.lists(st.integers(0, layer.num_embeddings - 1), min_size=6, max_size=6))
    ).view(2, 3)
    vectors, expected = layer(ids), case.table()[ids]
    assert vectors.shape == (2, 3, layer.embedding_dim)
    torch.testing.assert_close(vectors, expected)
    torch.testing.assert_close(layer.materialise(), case.table())
    upstream = torch.randn_like(expected)
    parameters = list(layer.parameters())
    torch.testing.assert_close(
        gradients((vectors * upstream).sum(), *parameters),
        gradients((expected * upstream).sum(), *parameters),
    )


@settings(deadline=None, max_examples=60)
@given(cases(), st.booleans())
def test_tied_decoder_and_its_gradients_equal_a_dense_head(case, with_bias):
    layer = case.layer
    bias = torch.nn.Parameter(torch.randn(layer.num_embeddings, dtype=torch.float64)) if with_bias else None
    hidden = torch.randn(2, 3, layer.embedding_dim, dtype=torch.float64, requires_grad=True)
    logits = layer.decoder(bias)(hidden)
    expected = hidden @ case.table().T + (0 if bias is None else bias)
    torch.testing.assert_close(logits, expected)
    upstream = torch.randn_like(expected)
    leaves = [hidden, *layer.parameters(), *([] if bias is None else [bias])]
    torch.testing.assert_close(
        gradients((logits * upstream).sum(), *leaves), gradients((expected * upstream).sum(), *leaves)
    )


def test_decoder_holds_the_same_tables_and_codes_and_registers_only_its_bias():
    layer = SubspaceEmbedding(sequential(20, 2, 5), 5, 6, sub_dim=3)
    bias = torch.nn.Parameter(torch.zeros(20))
    decoder = layer.decoder(bias)
    assert [id(p) for p in decoder.parameters()] == [id(bias)]
    hidden = torch.randn(4, 6)
    with torch.no_grad():
        layer.weight += 1
    torch.testing.assert_close(decoder(hidden), hidden @ layer.materialise().T)


@pytest.mark.parametrize("compose", ["concat", "sum"])
@pytest.mark.parametrize("sub_dim", [4, 2])
def test_padding_stays_zero_and_leaves_the_tokens_that_share_its_codes_alone(compose, sub_dim):
    # Token 0 has the codes (0, 0, 0): 18 of the 26 others share one or two of them.
    codes = sequential(27, 3, 3)
    layer = SubspaceEmbedding(
        codes, 3, 12 if compose == "concat" else 4, sub_dim=sub_dim, compose=compose, padding_idx=0
    )
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert not layer(torch.tensor([0])).any()
    without = SubspaceEmbedding(codes, 3, layer.embedding_dim, sub_dim=sub_dim, compose=compose)
    without.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(torch.arange(1, 27)), without(torch.arange(1, 27)))

    with_padding, alone = (
        layer(torch.tensor([0, 0, 5, 9])).square().sum(),
        layer(torch.tensor([5, 9])).square().sum(),
    )
    padding_only = gradients((layer(torch.tensor([0, 0])) * 7).sum(), *layer.parameters())
    assert not any(g.any() for g in padding_only)
    torch.testing.assert_close(
        gradients(with_padding, *layer.parameters()), gradients(alone, *layer.parameters())
    )

    before = layer.weight.detach().clone()
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (
            layer(torch.tensor([[0, 5, 9, 0]])).sum()
            + layer.decoder(None)(torch.ones(2, layer.embedding_dim)).sum()
        ).backward()
        optimiser.step()
    assert not torch.equal(before, layer.weight)
    assert not layer(torch.tensor([0])).any()
    assert not layer.decoder(None)(torch.randn(3, layer.embedding_dim))[:, 0].any()


@pytest.mark.parametrize(("rows", "dtype"), [(2**15 - 1, torch.int16), (2**15, torch.int32)])
def test_codes_are_kept_narrow_and_the_padding_row_still_fits(rows, dtype):
    layer = SubspaceEmbedding(sequential(40_000, 1, rows), rows, 1, sub_dim=1, padding_idx=7)
    torch.nn.init.normal_(layer.weight)
    assert layer.index.dtype == dtype
    ids = torch.tensor([7, rows - 1, rows, 39_999])
    torch.testing.assert_close(layer(ids)[1:, 0], layer.weight[[rows - 1, 0, 39_999 - rows], 0])
    assert layer(ids)[0] == 0


@settings(deadline=None, max_examples=30)
@given(cases(), st.booleans())
def test_state_round_trips_bit_for_bit_through_safetensors(case, codes_stored):
    source = case.layer.float()
    source.codes_stored = codes_stored
    f, s, rows = source.subspaces, source.sub_dim, source.rows
    state = load(save(source.state_dict()))
    assert set(state) == {"weight"} | ({"projection.weight"} if source.projection is not None else set()) | (
        {"codes"} if codes_stored else set()
    )
    config = SubspaceConfig(subspaces=f, sub_dim=s, rows=rows, compose=source.compose)
    copy = empty(
        config,
        source.num_embeddings,
        source.embedding_dim,
        source.padding_idx,
        None if codes_stored else case.codes,
    )
    copy.load_state_dict(state)
    assert torch.equal(copy.materialise(), source.materialise())
    assert torch.equal(copy.index, source.index)
    if codes_stored:
        assert state["codes"].dtype == torch.uint8
        assert len(state["codes"]) == -(-case.codes.size * int(np.ceil(np.log2(rows))) // 8)


def test_state_holds_no_dense_table():
    layer = SubspaceEmbedding(sequential(30_522, 3, 32), 32, 768, sub_dim=256)
    assert max(tensor.numel() for tensor in layer.state_dict().values()) < 30_522 * 6


def empty_layer() -> SubspaceEmbedding:
    config = SubspaceConfig(subspaces=3, sub_dim=2, rows=5, compose="concat")
    return empty(config, 100, 6, None)


def test_missing_and_damaged_codes_are_refused():
    layer = SubspaceEmbedding(sequential(100, 3, 5), 5, 6, sub_dim=2)
    state = layer.state_dict()
    empty_layer().load_state_dict(state)
    with pytest.raises(RuntimeError, match="codes"):
        empty_layer().load_state_dict({"weight": state["weight"]})
    with pytest.raises(ValueError, match=r"112 bytes .* need 113"):
        empty_layer().load_state_dict(state | {"codes": state["codes"][:-1]})
    with pytest.raises(ValueError, match="go up to 7, but there are 5 rows"):
        empty_layer().load_state_dict(state | {"codes": torch.full_like(state["codes"], 255)})
    with pytest.raises(RuntimeError, match="size mismatch"):
        empty_layer().load_state_dict(state | {"weight": state["weight"][:-1]})
    assert empty_layer().load_state_dict({"weight": state["weight"]}, strict=False).missing_keys == ["codes"]


@pytest.mark.parametrize("compose", ["concat", "sum"])
def test_training_and_inference_never_build_a_dense_table(compose):
    vocab_size, width, tokens, masked = 250_002, 768, 64, 4
    layer = SubspaceEmbedding(
        sequential(vocab_size, 3, 63),
        63,
        width,
        sub_dim=256 if compose == "concat" else width,
        compose=compose,
        padding_idx=1,
    )
    torch.nn.init.normal_(layer.weight)
    ids = torch.randint(vocab_size, (4, tokens // 4))
    with LargestTensor() as largest:
        layer(ids).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.any()
    # With the padding row.
    assert largest.numel == max(tokens * width, layer.weight.numel() + layer.weight.shape[1])
    with LargestTensor() as largest:
        logits = layer.decoder(torch.nn.Parameter(torch.zeros(vocab_size)))(torch.randn(masked, width))
    assert largest.numel == masked * vocab_size == logits.numel()
    with LargestTensor() as largest:
        logits.square().mean().backward()
    assert largest.numel == masked * vocab_size


def test_the_recorder_of_the_largest_tensor_sees_a_dense_gradient():
    layer = torch.nn.Embedding(5000, 48)
    with LargestTensor() as largest:
        layer(torch.tensor([1, 2])).sum().backward()
    assert largest.numel == 5000 * 48
