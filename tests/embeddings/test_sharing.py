"""Shared rows of codes: a plain computation of the same vectors, who shares with whom, state, budget, and what the layer holds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save
from scipy.spatial.distance import cdist

from bench import store
from bench.assignment.clusters import nearest_rows
from bench.cli.main import main
from bench.embeddings import method
from bench.embeddings.base import Source, Vocabulary
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.embeddings.wrappers import Kept, Shared
from bench.models import storage
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.settings.embeddings import SubspaceConfig
from tests.support.reference import LargestTensor, dense_table, empty


def shared_codes(
    table: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
    special: list[int],
    number: int,
    kept: int,
    padding: int,
) -> np.ndarray:
    """Return the codes (V, f) by the words of the setting: each token those of the nearest of the frequent ones that keep no row."""
    rank = [
        (0, 0, token) if token in special else (1, -counts[token], token)
        for token in range(len(table))
        if token != padding
    ]
    order = [token for *_, token in sorted(rank)]
    sharers = sorted(order[kept : kept + number])
    nearest = cdist(table.astype(np.float64), table[sharers].astype(np.float64)).argmin(1)
    nearest[sharers] = range(number)
    return codes[sharers][nearest]


def sharing(inner: SubspaceEmbedding, share: np.ndarray, padding_idx: int | None = None) -> Shared:
    layer = Shared(inner, len(share), padding_idx)
    layer.set_integers("share", share)
    return layer


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_vectors_and_logits_are_those_of_a_dense_table_of_the_shared_codes(data):
    vocab_size, f, rows = (
        data.draw(st.integers(6, 40)),
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(2, 5)),
    )
    compose, init = (data.draw(st.sampled_from(some)) for some in (("concat", "sum"), ("random", "fitted")))
    kept = data.draw(st.integers(0, vocab_size - 2))
    number, padding = (
        data.draw(st.integers(1, vocab_size - kept - 1)),
        data.draw(st.integers(0, vocab_size - 1)),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    table, codes = (
        rng.normal(size=(vocab_size, 2 * f)).astype(np.float32),
        rng.integers(0, rows, (vocab_size, f), dtype=np.int32),
    )
    counts, special = rng.integers(0, 4, vocab_size), [0, vocab_size - 1]
    config = method("subspace").resolve(
        SubspaceConfig(
            subspaces=f,
            rows=rows,
            compose=compose,
            init=init,
            keep_dense=kept,
            code_rows=number,
        ),
        vocab_size,
        2 * f,
    )
    vocabulary = Vocabulary(counts, tuple(special), special[0], 0.5)
    source = Source(torch.from_numpy(table), padding, codes, vocabulary=vocabulary)
    layer = method("subspace").build(config, source)
    shared = layer.inner if kept else layer

    expected = shared_codes(table, codes, counts, special, number, kept, padding)
    own = np.arange(vocab_size) != padding
    assert (shared.codes()[own] == expected[own]).all()
    dense = dense_table(shared.inner.weight, expected, compose, None, padding)
    dense = dense.index_copy(0, layer.ids, torch.from_numpy(table)[layer.ids]) if kept else dense
    torch.testing.assert_close(layer.materialise(), dense)
    hidden = torch.randn(3, 2 * f)
    torch.testing.assert_close(layer.decoder(None)(hidden), hidden @ dense.T, rtol=1e-4, atol=1e-4)
    assert len(layer.state_dict()["codes"]) == -(-number * f * (rows - 1).bit_length() // 8)
    assert len(layer.state_dict()["share"]) == -(-vocab_size * (number - 1).bit_length() // 8)
    # Tables are the weighted means of the tokens that share a code.
    if init == "fitted" and compose == "concat":
        fitted = np.flatnonzero(own & ~np.isin(np.arange(vocab_size), layer.ids.numpy() if kept else []))
        for code in np.unique(expected[fitted, 0]):
            them = fitted[expected[fitted, 0] == code]
            mean = np.average(table[them, :2].astype(np.float64), axis=0, weights=np.sqrt(counts[them] + 1))
            np.testing.assert_allclose(shared.inner.weight.detach()[code], mean, rtol=1e-4, atol=1e-5)


def test_the_nearest_row_is_found_over_many_parts_and_of_equals_the_lowest_is_taken():
    points = np.random.default_rng(0).normal(size=(9000, 5)).astype(np.float32)
    rows = np.sort(np.random.default_rng(1).permutation(9000)[:301])
    points[rows[200:]] = points[rows[:101]]  # 101 of them are there twice
    found, expected = nearest_rows(points, rows), cdist(points, points[rows]).argmin(1)
    expected[rows] = np.arange(301)
    assert found.dtype == np.int32 and (found == expected).all()
    others = np.delete(found, rows)
    assert others.max() < 200 and len(np.unique(others)) == 200


@pytest.mark.parametrize(("number", "dtype"), [(2**15 - 1, torch.int16), (2**15, torch.int32)])
def test_shares_are_kept_narrow_and_the_padding_row_still_fits(number, dtype):
    codes = np.arange(number, dtype=np.int32)[:, None] % 100
    inner = SubspaceEmbedding(codes, 100, 3, sub_dim=3)
    layer = sharing(inner, np.arange(40_000) % number, padding_idx=7)
    torch.nn.init.normal_(inner.weight)
    assert layer.share.dtype == dtype and layer.share.shape == (40_000,) and inner.index.shape == (number, 1)
    torch.testing.assert_close(
        layer(torch.tensor([number - 1, number, 39_999])),
        inner.weight[[(number - 1) % 100, 0, (39_999 - number) % 100]],
    )
    assert not layer(torch.tensor([7])).any() and layer(torch.tensor([number + 7])).any()


def test_a_share_that_is_missing_or_damaged_is_refused():
    config = SubspaceConfig(subspaces=3, sub_dim=2, rows=5, code_rows=10)
    source = sharing(
        SubspaceEmbedding(np.ones((10, 3), dtype=np.int32), 5, 6, sub_dim=2), np.arange(100) % 10
    )
    state, copy = load(save(source.state_dict())), empty(config, 100, 6, None)
    copy.load_state_dict(state)
    assert torch.equal(copy.share, source.share) and torch.equal(copy.inner.index, source.inner.index)
    with pytest.raises(RuntimeError, match="share"):
        copy.load_state_dict({key: value for key, value in state.items() if key != "share"})
    with pytest.raises(ValueError, match="go up to 15, but there are 10 rows"):
        copy.load_state_dict(state | {"share": torch.full_like(state["share"], 255)})


@pytest.mark.parametrize("compose", ["concat", "sum"])
def test_training_and_inference_never_expand_the_codes_to_all_tokens(compose):
    vocab_size, width, f, number, masked = 50_000, 48, 24, 1000, 2
    codes, share = np.zeros((number, f), dtype=np.int32), np.arange(vocab_size) % number
    sub_dim = 2 if compose == "concat" else width
    inner = SubspaceEmbedding(codes, 16, width, sub_dim=sub_dim, compose=compose)
    layer = sharing(inner, share, padding_idx=1)
    torch.nn.init.normal_(inner.weight)
    with LargestTensor() as largest:
        layer(torch.arange(40)).square().sum().backward()
        layer.decoder(None)(torch.randn(masked, width)).square().sum().backward()
    assert inner.weight.grad is not None and largest.numel == masked * vocab_size


def test_names_and_identities_of_runs_include_code_rows():
    keys = [
        "task=lexical_sentiment",
        "assignment=pq",
        "embedding.subspaces=8",
        "embedding.rows=16",
        "embedding.keep_dense=100",
    ]
    one, other = (prepare(compose_config([*keys, *more])) for more in (["embedding.code_rows=900"], []))
    assert (
        "/subspace-concat-f8-q16-pq-fitted-keep-dense100-code-rows900/" in one.name
        and "code-rows" not in other.name
    )
    assert one.canonical["embedding"]["code_rows"] == 900 and "code_rows" not in other.canonical["embedding"]


def test_a_run_records_its_codes_and_bytes_and_its_files_load_again(tiny, tmp_path):
    overrides = [
        *tiny,
        "embedding=subspace",
        "embedding.budget=2.5%",
        "embedding.keep_dense=50",
        "embedding.code_rows=700",
        "assignment=pq",
    ]
    assert main(["export", *overrides, "--onnx", "--to", str(tmp_path / "out")]) == 0
    (record,), _ = store.read_all(tmp_path / "results")
    assert 600 < record["fit"]["distinct_codes"] <= 700 and record["fit"]["relative_error"] < 1
    size, embedding = record["size"], storage.load_compressed(tmp_path / "out").get_input_embeddings()
    packed = sum(tensor.numel() * tensor.element_size() for tensor in embedding.state_dict().values())
    assert size["embedding_bytes"] == packed <= 0.025 * size["dense_embedding_bytes"]
    assert isinstance(embedding, Kept) and len(embedding.kept) == 50
    shared = embedding.inner
    assert len(shared.inner.index) == 700 and len(shared.share) == embedding.num_embeddings == 30522
    assert main(["export", *overrides, "--materialise", "--to", str(tmp_path / "dense")]) == 0
    weights = load_file(tmp_path / "dense" / "model.safetensors")
    assert torch.equal(weights["bert.embeddings.word_embeddings.weight"], embedding.materialise())
