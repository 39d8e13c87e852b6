"""Size by formula against what is really there: the parameters, the bytes of the saved file, method.md's table."""

from itertools import product

import numpy as np
import pytest
import torch
from reference import stored_shapes, tensor_bytes
from safetensors.torch import save_file

from bench.config import EmbeddingConfig
from bench.embeddings import METHODS, method
from bench.embeddings.base import Size
from bench.errors import ConfigError

VOCAB_SIZE, WIDTH = 1013, 24
SETTINGS = [("dense", {}, False)] + [
    ("subspace", {"subspaces": f, "compose": compose, "sub_dim": sub_dim, "rows": rows}, codes_stored)
    for f, compose, sub_dim, rows, codes_stored in product(
        (1, 3, 8), ("concat", "sum"), (None, 2), (None, 2, 5, 33), (False, True)
    )
]


@pytest.mark.parametrize(("name", "keys", "codes_stored"), SETTINGS)
def test_formula_is_the_modules_parameters_and_the_files_bytes(name, keys, codes_stored, tmp_path):
    chosen = method(name)
    config = chosen.resolve(EmbeddingConfig(name=name, **keys), VOCAB_SIZE, WIDTH)
    codes = None
    if chosen.assigned:
        codes = np.random.default_rng(0).integers(0, config.rows, (VOCAB_SIZE, config.subspaces), dtype=np.int32)
    module = chosen.build(config, torch.randn(VOCAB_SIZE, WIDTH), codes, 0, codes_stored, 0.02, torch.Generator())
    size = chosen.size(config, VOCAB_SIZE, WIDTH, codes_stored)
    save_file(module.state_dict(), tmp_path / "embedding.safetensors")
    assert size.params == sum(p.numel() for p in module.parameters())
    assert size.bytes == tensor_bytes(tmp_path / "embedding.safetensors")
    if codes_stored:
        assert 8 * stored_shapes(tmp_path / "embedding.safetensors")["codes"][0] - size.code_bits in range(8)
    else:
        assert size.code_bits == 0


def test_every_method_is_counted_here():
    assert {name for name, _, _ in SETTINGS} == set(METHODS)


def test_a_method_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"Unknown embedding 'subspce'\. Did you mean 'subspace'\? Available: dense, "
    ):
        method("subspce")


def test_code_bits_that_fill_no_whole_byte_are_rounded_up_once():
    assert [Size(0, bits).bytes for bits in (0, 1, 8, 9)] == [0, 1, 1, 2]
    assert Size(5, 3).bytes == 21


# method.md, section 3: f, Q, parameters and bytes with packed codes, both in % of the dense table
@pytest.mark.parametrize(
    ("vocab_size", "subspaces", "rows", "params", "stored"),
    [
        (30_522, 2, 175, 0.573, 0.638),
        (30_522, 3, 32, 0.105, 0.166),
        (30_522, 4, 14, 0.046, 0.111),
        (30_522, 8, 4, 0.013, 0.078),
        (250_002, 2, 501, 0.200, 0.274),
        (250_002, 3, 63, 0.025, 0.098),
        (250_002, 4, 23, 0.009, 0.091),
        (250_002, 8, 5, 0.002, 0.100),
    ],
)
def test_table_of_the_methods_description(vocab_size, subspaces, rows, params, stored):
    chosen = method("subspace")
    config = chosen.resolve(EmbeddingConfig(name="subspace", subspaces=subspaces), vocab_size, 768)
    size, dense = chosen.size(config, vocab_size, 768, True), method("dense").size(config, vocab_size, 768, False)
    assert config.rows == rows
    assert dense == Size(vocab_size * 768)
    assert round(100 * size.params / dense.params, 3) == params
    assert round(100 * size.bytes / dense.bytes, 3) == stored
    assert chosen.size(config, vocab_size, 768, False) == Size(size.params)
