"""Size by formula against what is really there: the parameters, the bytes of the saved file, a table computed apart from this code."""

from itertools import product

import pytest
import torch
from safetensors.torch import load, save, save_file

from bench.embeddings import method
from bench.embeddings.base import Size
from bench.errors import ConfigError
from bench.report.sizes import memory_bytes
from bench.settings.choices import CHOICES
from bench.settings.embeddings import SubspaceConfig
from tests.support.reference import built, empty, stored_shapes, tensor_bytes

VOCAB_SIZE, WIDTH = 1013, 24
SETTINGS = [("dense", {}, False)] + [
    ("subspace", {"subspaces": f, "compose": compose, "sub_dim": sub_dim, "rows": rows}, codes_stored)
    for f, compose, sub_dim, rows, codes_stored in product(
        (1, 3, 8), ("concat", "sum"), (None, 2), (None, 2, 5, 33), (False, True)
    )
]
SETTINGS += [
    (
        "subspace",
        {
            "subspaces": 3,
            "rows": 11,
            "keep_dense": kept,
            "table_dtype": dtype,
        },
        True,
    )
    for kept, dtype in product((0, 7), ("fp32", "int8"))
]
SETTINGS += [
    (
        "subspace",
        {"subspaces": f, "rows": 11, "compose": compose, "code_rows": shared, "keep_dense": kept} | more,
        True,
    )
    for (f, compose), (shared, kept), more in product(
        ((3, "concat"), (4, "sum")),
        ((1, 0), (50, 7), (256, 0), (1005, 7)),
        ({}, {"table_dtype": "int8"}, {"sub_dim": 2}),
    )
]
SETTINGS += [
    ("codebook", {"rows": 20}, True), ("codebook", {"rows": 20, "keep_dense": 5, "table_dtype": "int8"}, True),
    ("residual", {"subspaces": 4, "rows": 9}, True), ("residual", {"rows": 11, "table_dtype": "int8"}, True),
    ("hashing", {"rows": 20}, False), ("quotient_remainder", {"rows": 50}, False), ("low_rank", {"rank": 5}, False),
    ("low_rank", {"rank": 5, "frequency_power": 0.5}, False), ("truncated", {"rank": 5}, False), ("trimmed", {"rows": 33}, False),
    ("quantised", {}, False), ("quantised", {"bits": 4, "group": 8}, False), ("mean", {}, False), ("hash_only", {}, False),
]  # fmt: skip
SETTINGS += [  # kept rows and int8 tables fit every method whose tables are trained
    (name, keys | more, name in ("codebook", "residual"))
    for (name, keys), more in product(
        (
            ("low_rank", {"rank": 5}), ("trimmed", {"rows": 33}), ("truncated", {"rank": 5}), ("hashing", {"rows": 20}),
            ("residual", {"rows": 11}), ("codebook", {"rows": 20}), ("quotient_remainder", {"rows": 50}),
        ),
        ({"keep_dense": 7}, {"table_dtype": "int8"}, {"keep_dense": 7, "table_dtype": "int8"}),
    )
]  # fmt: skip


@pytest.mark.parametrize(("name", "keys", "codes_stored"), SETTINGS)
def test_formula_is_the_modules_parameters_and_the_files_bytes(name, keys, codes_stored, tmp_path):
    config, module, _ = built(name, keys, VOCAB_SIZE, WIDTH, codes_stored)
    size = method(name).size(config, VOCAB_SIZE, WIDTH, codes_stored)
    state = module.state_dict()
    save_file(state, tmp_path / "embedding.safetensors")
    assert size.params == sum(p.numel() for p in module.parameters())
    assert size.bytes == tensor_bytes(tmp_path / "embedding.safetensors")
    ids = sum(8 * tensor.numel() for key, tensor in state.items() if key in ("kept_ids", "share", "ids"))
    if codes_stored:
        assert 8 * stored_shapes(tmp_path / "embedding.safetensors")["codes"][
            0
        ] + ids - size.code_bits in range(8)
    elif name == "quantised":
        assert size.code_bits == 8 * size.bytes
    elif name not in ("trimmed", "truncated"):
        assert size.code_bits == ids


@pytest.mark.parametrize(("name", "keys", "codes_stored"), SETTINGS)
def test_the_reports_bytes_in_memory_are_those_of_the_modules_tensors(name, keys, codes_stored):
    config, module, codes = built(name, keys, VOCAB_SIZE, WIDTH, codes_stored)
    size = method(name).size(config, VOCAB_SIZE, WIDTH, codes_stored)
    part = {"embedding_params": size.params, "embedding_bytes": size.bytes}
    held = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    assert memory_bytes(method(name).identity(config), VOCAB_SIZE, part, codes is not None) == held


@pytest.mark.parametrize(("name", "keys", "codes_stored"), [case for case in SETTINGS if case[0] != "dense"])
def test_a_saved_embedding_loads_with_the_same_vectors_and_saves_the_same_file(name, keys, codes_stored):
    config, module, codes = built(name, keys, VOCAB_SIZE, WIDTH, codes_stored)
    copy = empty(config, VOCAB_SIZE, WIDTH, 0, None if codes_stored else codes)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.01 * torch.randn_like(parameter)  # as after training
    copy.load_state_dict(load(save(module.state_dict())))
    assert torch.equal(copy.materialise(), module.materialise())
    assert save(copy.state_dict()) == save(module.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        copy.load_state_dict({})


@pytest.mark.parametrize(("name", "keys", "codes_stored"), [case for case in SETTINGS if case[0] != "dense"])
def test_padding_is_zero_and_the_tied_decoder_is_that_of_the_materialised_table(name, keys, codes_stored):
    _, module, _ = built(name, keys, VOCAB_SIZE, WIDTH, codes_stored)
    table = module.materialise()
    assert table.shape == (VOCAB_SIZE, WIDTH) and not table[0].any() and table[1:].any(dim=1).all()
    hidden, bias = torch.randn(2, 3, WIDTH), torch.nn.Parameter(torch.randn(VOCAB_SIZE))
    logits = module.decoder(bias)(hidden)
    torch.testing.assert_close(logits, hidden @ table.T + bias, rtol=1e-4, atol=1e-4)
    trained = list(module.parameters())
    if trained:
        upstream = torch.randn_like(logits)
        one = torch.autograd.grad((logits * upstream).sum(), trained)
        other = torch.autograd.grad(((hidden @ module.materialise().T) * upstream).sum(), trained)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_hashed_vectors_distinguish_tokens():
    _, module, _ = built("hash_only", {}, VOCAB_SIZE, 64, False)
    signs = module.materialise()[1:].sign().detach()
    likeness = (signs @ signs.T / 64).fill_diagonal_(0)
    assert len(torch.unique(signs, dim=0)) == VOCAB_SIZE - 1
    assert abs(likeness.mean()) < 0.01 and likeness.std().item() == pytest.approx(64**-0.5, rel=0.1)


def test_every_method_is_counted_here():
    assert {name for name, _, _ in SETTINGS} == set(CHOICES["embedding"])


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError,
        match=r"Unknown embedding 'subspce'\. Did you mean 'subspace'\? Available: codebook, dense, ",
    ):
        method("subspce")


def test_code_bits_are_rounded_up_to_whole_bytes_once():
    assert [Size(0, bits).bytes for bits in (0, 1, 8, 9)] == [0, 1, 1, 2]
    assert Size(5, 3).bytes == 21


# computed apart from this code: f, Q, parameters and bytes with packed codes, both in % of the dense table
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
def test_sizes_equal_the_table_of_the_methods_description(vocab_size, subspaces, rows, params, stored):
    chosen = method("subspace")
    config = chosen.resolve(SubspaceConfig(subspaces=subspaces), vocab_size, 768)
    size, dense = (
        chosen.size(config, vocab_size, 768, True),
        method("dense").size(config, vocab_size, 768, False),
    )
    assert config.rows == rows
    assert dense == Size(vocab_size * 768)
    assert round(100 * size.params / dense.params, 3) == params
    assert round(100 * size.bytes / dense.bytes, 3) == stored
    assert chosen.size(config, vocab_size, 768, False) == Size(size.params)
