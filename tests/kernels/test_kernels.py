"""The fast kernels, NumPy's and CuPy's, against the reference: the same functions of the same arrays."""

import pytest

from minidl.selftest.kernels import CALLS, TOLERANCE, difference, masks_are_equal


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_the_fast_kernels_give_what_the_reference_gives(device, name, dtype):
    assert difference(name, device, dtype) <= TOLERANCE[dtype]


def test_masks_are_the_same_to_the_last_bit(device):
    assert masks_are_equal(device)
