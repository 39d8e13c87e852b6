"""Equal rows, against NumPy, which sorts them."""

import numpy as np
import pytest

from bench.assignment.rows import first_rows


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_distinct_rows_are_those_of_numpy_and_stand_where_they_come_first(
    dtype: type, order: str
) -> None:
    array = np.array(np.random.default_rng(0).integers(-1, 2, (400, 5)), dtype, order=order)
    array[array == 0] *= -1  # of floats -0.0, which equals 0.0
    array[:9] = abs(array[:9])
    expected = np.unique(array, axis=0, return_index=True)[1]
    assert first_rows(array).tolist() == sorted(expected) and 9 < len(expected) < 243
