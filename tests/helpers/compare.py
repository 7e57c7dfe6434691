"""numpy.testing's comparisons, for arrays of either library."""

import numpy as np

from minidl.backend import to_numpy


def host(value):
    """An array is copied to the host; anything else is returned as it is."""
    return to_numpy(value) if hasattr(value, "get") and hasattr(value, "device") else value


def assert_allclose(actual, desired, **options):
    np.testing.assert_allclose(host(actual), host(desired), **options)


def assert_array_equal(actual, desired):
    np.testing.assert_array_equal(host(actual), host(desired))
