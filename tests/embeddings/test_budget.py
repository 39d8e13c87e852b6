"""A budget picks the largest configuration that fits; one that is too small says what would be needed."""

import itertools
import math

import pytest

from bench.assignment import kind
from bench.embeddings import method
from bench.errors import ConfigError
from bench.settings.choices import CHOICES
from bench.settings.embeddings import DenseConfig, EmbeddingConfig, QuantisedConfig, SubspaceConfig
from tests.support.reference import configured

VOCAB_SIZE, WIDTH = 1013, 24
DENSE = 4 * VOCAB_SIZE * WIDTH


def stored(name: str, config: EmbeddingConfig, codes_stored: bool = True) -> int:
    return method(name).size(config, VOCAB_SIZE, WIDTH, codes_stored).bytes


def with_budget(name: str, budget: str, **keys: object) -> EmbeddingConfig:
    return method(name).resolve(configured(name, budget=budget, **keys), VOCAB_SIZE, WIDTH)


@pytest.mark.parametrize("budget", ["5%", "12.5%", "30%", "60%"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("low_rank", "rank"),
        ("truncated", "rank"),
        ("trimmed", "rows"),
        ("hashing", "rows"),
        ("quotient_remainder", "rows"),
        ("codebook", "rows"),
    ],
)
def test_the_largest_number_that_fits_is_chosen(name, key, budget):
    most = float(budget[:-1]) / 100 * DENSE
    low, high = method(name).limits(configured(name), VOCAB_SIZE, WIDTH)
    sizes = {
        n: stored(name, method(name).resolve(configured(name, **{key: n}), VOCAB_SIZE, WIDTH))
        for n in range(low, high + 1)
    }
    fitting = [n for n, size in sizes.items() if size <= most]
    if not fitting:
        with pytest.raises(
            ConfigError,
            match=rf"embedding\.budget \({budget}\) is {int(most):,} bytes, .* needs {min(sizes.values()):,}",
        ):
            with_budget(name, budget)
        return
    chosen = with_budget(name, budget)
    assert chosen.budget is None
    assert sizes[getattr(chosen, key)] == max(sizes[n] for n in fitting)


@pytest.mark.parametrize("budget", ["5%", "12.5%", "30%"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("subspace", {}),
        ("subspace", {"compose": "sum"}),
        ("subspace", {"keep_dense": 5}),
        ("subspace", {"table_dtype": "int8"}),
        ("subspace", {"subspaces": 8}),
        ("residual", {}),
        ("residual", {"keep_dense": 5, "table_dtype": "int8"}),
        ("subspace", {"code_rows": 200, "keep_dense": 5}),
    ],
)
def test_the_subspaces_and_rows_with_the_most_informative_codes_are_chosen(name, keys, budget):
    most, fitting = float(budget[:-1]) / 100 * DENSE, []
    for f, rows in itertools.product(range(1, 33), range(2, VOCAB_SIZE + 1)):
        if keys.get("subspaces", f) != f or (
            WIDTH % f and keys.get("compose") != "sum" and name != "residual"
        ):
            continue
        config = method(name).resolve(
            configured(name, **keys | {"subspaces": f, "rows": rows}), VOCAB_SIZE, WIDTH
        )
        if stored(name, config) <= most:
            fitting.append(f * (math.log2(rows) - 0.5))
    chosen = with_budget(name, budget, **keys)
    assert stored(name, chosen) <= most
    assert chosen.subspaces * (math.log2(chosen.rows) - 0.5) == pytest.approx(max(fitting))


def test_quantised_takes_the_largest_of_bits_and_groups():
    sizes = {
        (b, g): stored("quantised", QuantisedConfig(bits=b, group=g))
        for b in (4, 8)
        for g in (1, 2, 3, 4, 6, 8, 12, 24)
    }
    for budget in ("15%", "26%", "40%"):
        chosen = with_budget("quantised", budget)
        most = float(budget[:-1]) / 100 * DENSE
        assert sizes[chosen.bits, chosen.group] == max(size for size in sizes.values() if size <= most)


def test_the_smallest_budget_that_an_error_names_is_enough():
    for name in set(CHOICES["embedding"]) - {"dense", "mean", "hash_only"}:
        with pytest.raises(ConfigError, match="use embedding.budget=") as error:
            with_budget(name, "0.01%")
        enough = str(error.value).rpartition("embedding.budget=")[2].split()[0]
        assert stored(name, with_budget(name, enough)) <= float(enough[:-1]) / 100 * DENSE


def test_an_injective_assignment_gets_enough_rows_and_free_codes_leave_room():
    tight = SubspaceConfig(budget="10%")
    injective, free = (
        method("subspace").resolve(tight, VOCAB_SIZE, WIDTH, kind(name))
        for name in ("contextual", "sequential")
    )
    assert injective.rows**injective.subspaces >= VOCAB_SIZE
    # Digits that are always 0 say nothing.
    assert free.rows**free.subspaces >= VOCAB_SIZE > free.rows ** (free.subspaces - 1)
    assert stored("subspace", free, codes_stored=False) <= 0.1 * DENSE < stored("subspace", free)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"budget": "half"}, r"embedding\.budget \(half\) must be a share .* such as 0\.5%"),
        ({"budget": "0%"}, r"embedding\.budget \(0%\)"),
        (
            {"budget": "5%", "subspaces": 3, "rows": 5},
            r"embedding\.subspaces \(3\), embedding\.rows \(5\) and embedding\.budget",
        ),
    ],
)
def test_an_invalid_budget_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        method("subspace").resolve(SubspaceConfig(**keys), VOCAB_SIZE, WIDTH)


def test_the_reference_stands_beside_every_budget():
    assert with_budget("dense", "0.5%") == DenseConfig()
