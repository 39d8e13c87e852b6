"""Packed codes: as short as the formula says, the bits where they should be, and nothing damaged accepted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bench.embeddings.packing import bits_per_code, pack, unpack


@given(st.integers(2, 2**20))
def test_bits_distinguish_all_rows_and_are_as_few_as_possible(rows):
    bits = bits_per_code(rows)
    assert 2**bits >= rows > 2 ** (bits - 1)


@given(st.data(), st.integers(2, 70_000), array_shapes(max_dims=2, max_side=20))
def test_codes_survive_packing_in_the_bytes_of_the_formula(data, rows, shape):
    codes = data.draw(arrays(np.int32, shape, elements=st.integers(0, rows - 1)))
    packed = pack(codes, rows)
    assert packed.dtype == np.uint8
    assert packed.size == math.ceil(codes.size * math.ceil(math.log2(rows)) / 8)
    found = unpack(packed, rows, shape)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, codes)


@given(st.data(), st.integers(2, 300))
def test_a_file_reads_as_one_number_whose_lowest_digits_are_the_first_code(data, rows):
    codes = data.draw(arrays(np.int32, (5, 3), elements=st.integers(0, rows - 1)))
    bits = math.ceil(math.log2(rows))
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes.ravel()))
    assert int.from_bytes(pack(codes, rows).tobytes(), "little") == number


@pytest.mark.parametrize("change", [1, -1])
def test_a_wrong_length_is_refused(change):
    packed = np.resize(pack(np.zeros((100, 3), np.int32), 5), 113 + change)
    with pytest.raises(ValueError, match=rf"{113 + change} bytes .*\(100, 3\) codes of 3 bits need 113"):
        unpack(packed, 5, (100, 3))


def test_a_code_beyond_the_rows_is_refused():
    packed = pack(np.array([[4, 6]]), 8)
    with pytest.raises(ValueError, match="go up to 6, but there are 5 rows"):
        unpack(packed, 5, (1, 2))
