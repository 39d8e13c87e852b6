"""Settings of a subspace embedding: nulls filled in, contradictions named with key, value and way out."""

import pytest

from bench.embeddings import method
from bench.errors import ConfigError
from bench.settings.embeddings import SubspaceConfig


def resolved(vocab_size: int, width: int, **keys: object) -> SubspaceConfig:
    return method("subspace").resolve(SubspaceConfig(**keys), vocab_size, width)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"subspaces": 5},
            r"embedding\.subspaces \(5\) must divide .* \(384\): use 4 or 6, or set embedding\.sub_dim",
        ),
        ({"subspaces": 0}, r"embedding\.subspaces \(0\) must be at least 1"),
        ({"sub_dim": 129}, r"embedding\.sub_dim \(129\) .* 387, .* 384: use embedding\.sub_dim=128 or less"),
        (
            {"sub_dim": 385, "compose": "sum"},
            r"embedding\.sub_dim \(385\) .* use embedding\.sub_dim=384 or less",
        ),
        ({"code_rows": 0}, r"embedding\.code_rows \(0\) must be from 1 to 30,521"),
        (
            {"code_rows": 30_322, "keep_dense": 200},
            r"embedding\.code_rows \(30322\) .* from 1 to 30,321: .*embedding\.keep_dense \(200\)",
        ),
        ({"keep_dense": 30_522}, r"embedding\.keep_dense \(30522\) must be from 0 to 30,521"),
        (
            {"table_dtype": "int4"},
            r"Unknown embedding\.table_dtype 'int4'\. Did you mean 'int8'\? Available: fp32, int8",
        ),
        ({"rows": 1}, r"embedding\.rows \(1\) must lie between 2 and .*\(30,522\)"),
        ({"rows": 30_523}, r"embedding\.rows \(30523\) must lie between 2 and .*\(30,522\)"),
        (
            {"compose": "concta"},
            r"Unknown embedding\.compose 'concta'\. Did you mean 'concat'\? Available: concat, sum",
        ),
        (
            {"init": "fited"},
            r"Unknown embedding\.init 'fited'\. Did you mean 'fitted'\? Available: fitted, random",
        ),
    ],
)
def test_a_contradictory_setting_names_its_key_its_value_and_the_way_out(keys, message):
    with pytest.raises(ConfigError, match=message):
        resolved(30_522, 384, **keys)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"subspaces": 3}, (32, 128)),
        ({"subspaces": 3, "compose": "sum"}, (32, 384)),
        ({"subspaces": 5, "sub_dim": 7}, (8, 7)),
        ({"subspaces": 8, "rows": 64}, (64, 48)),
    ],
)
def test_nulls_are_filled_in(keys, expected):
    config = resolved(30_522, 384, **keys)
    assert (config.rows, config.sub_dim) == expected


@pytest.mark.parametrize("root", [2, 5, 63, 64, 181])
def test_default_rows_are_the_integer_root_even_of_perfect_powers(root):
    for f in (1, 2, 3, 4):
        assert resolved(root**f, 24, subspaces=f).rows == root
        if root**f > 2:
            assert resolved(root**f + 1, 24, subspaces=f).rows == root + 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sub_dim": 0}, ["embedding.sub_dim (0)", "embedding.sub_dim=8"]),
        ({"subspaces": 500, "sub_dim": 1}, ["embedding.subspaces (500)", "fewer subspaces"]),
    ],
)
def test_an_impossible_width_says_what_to_change(changes, words):
    with pytest.raises(ConfigError) as error:
        method("subspace").resolve(SubspaceConfig(**changes), 1000, 24)
    for word in words:
        assert word in str(error.value)
