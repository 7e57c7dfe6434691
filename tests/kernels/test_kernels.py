"""The fast kernels of NumPy and CuPy compared with the reference kernels, on the same arrays."""

import pytest

from minidl.selftest.kernels import CALLS, TOLERANCE, difference, masks_are_equal


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_the_fast_kernels_agree_with_the_reference(device, name, dtype):
    assert difference(name, device, dtype) <= TOLERANCE[dtype]


def test_masks_are_equal_bit_for_bit(device):
    assert masks_are_equal(device)
