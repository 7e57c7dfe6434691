"""Mean, deviation and principal components of pixels, compared with NumPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alexnet.pixels import Pixels, moments


@given(shape=st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
def test_the_statistics_match_numpy(shape, seed):
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels = Pixels.of(images)
    flat = images.transpose(1, 0, 2, 3).reshape(shape[1], -1).astype(float)
    np.testing.assert_allclose(pixels.mean, flat.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(pixels.std, flat.std(axis=1), atol=1e-4)
    vectors = np.array(pixels.color_vectors)
    np.testing.assert_allclose(vectors.T @ vectors, np.cov(flat, bias=True).reshape(2 * shape[1:2]), rtol=1e-3, atol=0.05)
    assert all(row[abs(row).argmax()] >= 0 for row in vectors)


@given(seed=st.integers(0, 99), parts=st.integers(1, 7))
def test_the_sums_do_not_depend_on_the_order_of_addition(seed, parts):
    images = np.random.default_rng(seed).integers(0, 256, (7, 3, 5, 4), dtype=np.uint8)
    whole, pieces = Pixels.of(images), Pixels(3)
    for part in reversed(np.array_split(images, parts)):
        pieces.add(moments(part), part.size // 3)
    assert (pieces.count, pieces.totals) == (whole.count, whole.totals)
    assert moments(images[0]) == moments(images[:1])


def test_the_first_component_of_photographs_is_about_the_brightness():
    """Grey pictures with a little colour: the component is (1, 1, 1) times 40, the deviation of the brightness."""
    draws = np.random.default_rng(0)
    grey = draws.normal(128, 40, (50, 1, 16, 16)) + draws.normal(0, 3, (50, 3, 16, 16))
    first = np.array(Pixels.of(np.clip(grey, 0, 255).astype(np.uint8)).color_vectors[0])
    np.testing.assert_allclose(first, 40, rtol=0.03)
