"""Fitted tables: means, the least-squares optimum given the codes, and the error that a record reports."""

import numpy as np
import pandas as pd
import pytest
import torch

from bench.assignment.digits import sequential
from bench.embeddings import method
from bench.embeddings.base import Source, Vocabulary
from bench.embeddings.subspace_layer import SubspaceEmbedding
from bench.embeddings.table_error import relative_error, squared_errors
from bench.settings.embeddings import HashingConfig, SubspaceConfig
from tests.support import reference
from tests.support.reference import dense_table


def built(
    table: torch.Tensor, codes: np.ndarray, padding_idx: int | None = None, **keys: object
) -> SubspaceEmbedding:
    config = method("subspace").resolve(SubspaceConfig(**keys), *table.shape)
    return method("subspace").build(config, Source(table, padding_idx, codes))


@pytest.mark.parametrize("padding_idx", [None, 3])
def test_fitted_tables_are_the_means_of_the_sub_vectors_that_share_a_code(padding_idx):
    rng = np.random.default_rng(0)
    table, codes = rng.normal(size=(200, 12)).astype(np.float32), rng.integers(0, 8, (200, 3), dtype=np.int32)
    layer = built(torch.from_numpy(table), codes, padding_idx, subspaces=3, rows=9)
    tokens = pd.DataFrame(table.astype(np.float64)).drop(index=[] if padding_idx is None else [padding_idx])
    for i in range(3):
        means = tokens.iloc[:, 4 * i : 4 * i + 4].groupby(codes[tokens.index, i]).mean()
        found = layer.weight.detach()[9 * i : 9 * i + 8]
        np.testing.assert_allclose(found, means, rtol=1e-5, atol=1e-6)
        # No token has the last code.
        np.testing.assert_allclose(
            layer.weight.detach()[9 * i + 8], tokens.iloc[:, 4 * i : 4 * i + 4].mean(), rtol=1e-5, atol=1e-6
        )


def test_a_token_weighs_in_the_means_what_its_count_says():
    rng = np.random.default_rng(0)  # more than two parts
    table, codes = rng.normal(size=(1200, 12)), rng.integers(0, 8, (1200, 3), dtype=np.int32)
    vocabulary = Vocabulary(rng.integers(0, 50, 1200), (), 0, power=0.5)
    weights = np.sqrt(vocabulary.counts + 1)
    config = method("subspace").resolve(SubspaceConfig(subspaces=3, rows=9), 1200, 12)
    source = Source(torch.from_numpy(table).float(), 5, codes, vocabulary=vocabulary)
    found = method("subspace").build(config, source).weight.detach().view(3, 9, 4)
    for i, piece in enumerate(np.split(table, 3, axis=1)):
        for code in range(9):  # no token has the last one
            tokens = (np.arange(1200) != 5) & ((codes[:, i] == code) | (code == 8))
            expected = np.average(piece[tokens], axis=0, weights=weights[tokens])
            np.testing.assert_allclose(found[i, code], expected, rtol=1e-5, atol=1e-6)


def squared_error(layer: SubspaceEmbedding, table: torch.Tensor) -> float:
    return (layer.materialise().detach().double() - table.double()).square().sum().item()


@pytest.mark.parametrize("compose", ["concat", "sum"])
@pytest.mark.parametrize("sub_dim", [None, 2])
def test_no_change_of_the_fitted_tables_comes_closer_to_the_pretrained_table(compose, sub_dim):
    torch.manual_seed(0)
    table = torch.randn(300, 12)
    codes = np.random.default_rng(1).integers(0, 6, (300, 3), dtype=np.int32)
    layer = built(table, codes, subspaces=3, rows=6, compose=compose, sub_dim=sub_dim)
    least = squared_error(layer, table)
    fitted = layer.weight.detach().clone()
    for step in (-1e-2, 1e-2):
        for row in range(len(fitted)):
            layer.weight.data = fitted.clone()
            layer.weight.data[row] += step * torch.randn(fitted.shape[1])
            assert squared_error(layer, table) > least


def test_fitted_sum_is_the_least_squares_solution():
    rng = np.random.default_rng(2)  # more than two parts
    table, codes = rng.normal(size=(1200, 10)) + 1, rng.integers(0, 7, (1200, 3), dtype=np.int32)
    chosen = np.concatenate([np.eye(7)[codes[:, i]] for i in range(3)], axis=1)
    optimum = np.square(table - chosen @ np.linalg.lstsq(chosen, table)[0]).sum()
    layer = built(torch.from_numpy(table).float(), codes, subspaces=3, rows=7, compose="sum")
    assert squared_error(layer, torch.from_numpy(table)) == pytest.approx(optimum, rel=1e-5)


def test_up_projection_is_fitted_to_the_principal_axes():
    rng = np.random.default_rng(3)
    # Rank 4: nothing is lost.
    table = (rng.normal(size=(60, 4)) @ rng.normal(size=(4, 12))).astype(np.float32)
    layer = built(
        torch.from_numpy(table),
        sequential(60, 2, 60).repeat(2, 1)[:, [0, 0]],
        subspaces=2,
        rows=60,
        sub_dim=2,
    )
    np.testing.assert_allclose(layer.materialise().detach(), table, atol=1e-4)


@pytest.mark.parametrize("padding_idx", [None, 0])
def test_relative_error_is_that_of_the_dense_tables(padding_idx):
    table = torch.randn(10_000, 6, generator=torch.Generator().manual_seed(4))  # more than one chunk
    table[0] *= 1000  # the padding row would decide the error if it counted
    codes = sequential(10_000, 3, 22)
    layer = built(table, codes, padding_idx, subspaces=3)
    kept = [i for i in range(10_000) if i != padding_idx]
    dense = dense_table(layer.weight.detach(), codes, "concat", None, padding_idx)
    expected = np.linalg.norm(table[kept] - dense[kept]) / np.linalg.norm(table[kept])
    assert relative_error(*squared_errors(layer, table, padding_idx)) == pytest.approx(expected, rel=1e-5)


SPREAD = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 0.0])


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("subspace", {"subspaces": 3, "rows": 900}),
        ("subspace", {"subspaces": 3, "rows": 900, "compose": "sum"}),
        ("subspace", {"subspaces": 3, "rows": 900, "sub_dim": 2}),
        ("subspace", {"subspaces": 3, "rows": 900, "sub_dim": 4, "compose": "sum"}),
        ("subspace", {"subspaces": 3, "rows": 900, "code_rows": 2000}),
        ("residual", {"subspaces": 3, "rows": 900}),
        ("codebook", {"rows": 2000}),
        ("hashing", {"rows": 2000}),
        ("quotient_remainder", {"rows": 64}),
        ("low_rank", {"rank": 5}),
        ("trimmed", {"rows": 2000}),
    ],
)
def test_random_tables_give_vectors_of_the_pretrained_spread_in_each_dimension(name, keys):
    """The rows of padding and of kept tokens have no part in it."""
    generator = torch.Generator().manual_seed(6)
    table = torch.randn(4000, 12, generator=generator) * SPREAD + 5
    table[0] = 1000
    module = reference.built(name, keys | {"init": "random", "keep_dense": 30}, 4000, 12, True, table)[1]
    ids = module.ids
    assert torch.equal(module(ids), table[ids])
    others = torch.tensor(np.setdiff1d(np.arange(1, 4000), ids))
    if name == "trimmed":  # only these have a row of their own
        others = torch.tensor(np.setdiff1d(module.inner.ids, ids))
    vectors = module(others).detach()
    ratios = vectors.std(dim=0)[:-1] / SPREAD[:-1]
    assert ratios.mean().item() == pytest.approx(1, abs=0.1) and not vectors[:, -1].any()
    np.testing.assert_allclose(ratios, 1, rtol=0.3)  # of 64 rows; 0.12 of the others
    assert (vectors.mean(dim=0).abs() <= 0.12 * SPREAD + 1e-6).all()


def test_random_numbers_of_the_kept_dimensions_have_their_spread():
    table = torch.randn(4000, 12, generator=torch.Generator().manual_seed(6)) * SPREAD
    layer = reference.built("truncated", {"rank": 4, "init": "random"}, 4000, 12, True, table)[1]
    expected = torch.where(SPREAD >= 1, SPREAD, 0)
    np.testing.assert_allclose(layer.materialise().detach()[1:].std(dim=0), expected, rtol=0.05)


def test_random_tables_are_seeded():
    def weight(seed):
        config = method("hashing").resolve(HashingConfig(init="random", rows=9), 500, 12)
        generator = torch.Generator().manual_seed(seed)
        source = Source(torch.randn(500, 12), codes=np.zeros((500, 1), np.int32), generator=generator)
        return method("hashing").build(config, source).weight

    torch.manual_seed(0)
    one = weight(1)
    torch.manual_seed(0)
    assert torch.equal(one, weight(1))
    torch.manual_seed(0)
    assert not torch.equal(one, weight(2))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("subspace", {"subspaces": 3, "rows": 5}),
        ("residual", {"subspaces": 3, "rows": 5}),
        ("codebook", {"rows": 5}),
        ("hashing", {"rows": 5}),
        ("quotient_remainder", {"rows": 20}),
        ("low_rank", {"rank": 3}),
        ("truncated", {"rank": 3}),
        ("trimmed", {"rows": 20}),
    ],
)
def test_kept_tokens_have_their_rows_and_the_fit_of_the_rest_ignores_them(name, keys):
    table = torch.randn(300, 12, generator=torch.Generator().manual_seed(5))
    _, plain, _ = reference.built(name, keys, 300, 12, True, table)
    _, module, _ = reference.built(name, keys | {"keep_dense": 9}, 300, 12, True, table)
    assert len(module.ids) == 9 and torch.equal(module(module.ids), table[module.ids])
    if name == "trimmed":  # has no second row for them but the unknown token's, 3
        assert {*module.inner.ids.tolist()} & {*module.ids.tolist()} <= {3}
    changed = table.clone()
    changed[module.ids[module.ids != 3]] *= (
        1000  # no influence on the others; 3 is the unknown token, whose row trimmed shares
    )
    _, other, _ = reference.built(name, keys | {"keep_dense": 9}, 300, 12, True, changed)
    others = torch.tensor([v for v in range(1, 300) if v not in module.ids.tolist()])
    torch.testing.assert_close(other(others), module(others))
    missed = [(layer(others) - table[others]).square().sum().item() for layer in (module, plain)]
    assert missed[0] <= 1.01 * missed[1]


def test_each_gain_is_the_least_squares_of_its_token_given_the_directions() -> None:
    table = torch.randn(1200, 12, generator=torch.Generator().manual_seed(7))
    module = reference.built("codebook", {"rows": 5}, 1200, 12, True, table)[1]
    for token in (1, 511, 512, 1199):
        direction = module.inner(torch.tensor([token])).detach().T.numpy()
        gain = np.linalg.lstsq(direction, table[token].numpy())[0]
        np.testing.assert_allclose(module.gain[token].item(), gain.item(), rtol=1e-4)


def test_tokens_with_empty_rows_get_a_gain_of_0_and_leave_the_others_as_they_are() -> None:
    table = torch.randn(300, 12, generator=torch.Generator().manual_seed(7))
    table[200:] = 0
    module = reference.built("codebook", {"rows": 5}, 300, 12, True, table)[1]
    vectors = module(torch.arange(300)).detach()
    assert vectors.isfinite().all() and not vectors[200:].any()
    assert (vectors[1:200] - table[1:200]).square().sum() < table[1:200].square().sum()
