"""The reference kernels compared with the loops of naive.py, by the same tests as the fast kernels."""

import numpy as np
import pytest

import minidl.functional as F
from minidl import Tensor, use_kernels

from ..functional import test_functions
from ..helpers import naive

FUNCTIONS = ["conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "local_response_norm", "linear"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_reference_matches_the_definition(name):
    with use_kernels("reference"):
        getattr(test_functions, f"test_{name}_matches_its_definition")(device="numpy")


def test_normalisation_and_losses_match_their_definitions():
    rng = np.random.default_rng(0)
    x, weight, bias, labels = rng.standard_normal((4, 3, 2, 5)), rng.standard_normal(3), rng.standard_normal(3), np.arange(4) % 3
    with use_kernels("reference"):
        normalized = F.batch_norm(Tensor(x), None, None, Tensor(weight), Tensor(bias), training=True)
        logits = Tensor(x[:, :, 0, 0].copy())
        losses = F.cross_entropy(logits, labels, 0.1, "none")
        probabilities = F.softmax(logits)
    np.testing.assert_allclose(normalized.data, naive.batch_norm(x, weight, bias, 1e-5), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(losses.data, naive.cross_entropy(logits.data, labels, 0.1), rtol=1e-10)
    np.testing.assert_allclose(probabilities.data, naive.softmax(logits.data), rtol=1e-10)
