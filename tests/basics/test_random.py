"""Random numbers: Philox's published vectors, and what masks, orders and initial weights depend on."""

import numpy as np
import pytest

import minidl.functional as F
from minidl import Tensor, nn, random


@pytest.mark.parametrize(
    "counter, key, words",
    [  # kat_vectors of Random123, the library of Philox's authors
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, words):
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    assert [int(word) for word in random.philox4x32(numbers[0], tuple(numbers[1]))] == numbers[2]


def test_each_sample_has_its_own_column_of_words():
    together = random.words(10, stream=5, samples=[3, 8, 2**31], time=4, seed=2**40 + 1)
    assert together.shape == (10, 3)
    for j, sample in enumerate((3, 8, 2**31)):
        np.testing.assert_array_equal(random.words(10, 5, [sample], 4, 2**40 + 1)[:, 0], together[:, j])
    for other in (dict(stream=6), dict(time=5), dict(seed=1), dict(samples=[4, 9, 1])):
        arguments = dict(stream=5, samples=[3, 8, 2**31], time=4, seed=2**40 + 1) | other
        assert (random.words(10, **arguments) != together).mean() > 0.9


def test_permutation_is_a_pure_function_of_seed_and_time():
    order = random.permutation(1000, random.SHUFFLE, time=1, seed=0)
    assert sorted(order) == list(range(1000))
    assert list(order) == list(random.permutation(1000, random.SHUFFLE, 1, 0))
    assert list(order) != list(random.permutation(1000, random.SHUFFLE, 2, 0))
    assert list(order) != list(random.permutation(1000, random.SHUFFLE, 1, 1))


def mask(seed=0, step=0, first_sample=0, samples=6, key=None):
    with random.context(seed, step, first_sample):
        return F.dropout(Tensor(np.ones((samples, 40))), key=key).data


def test_a_mask_depends_on_seed_step_key_and_sample():
    np.testing.assert_array_equal(mask(), mask())
    for change in (dict(seed=1), dict(step=1), dict(key=1), dict(first_sample=6)):
        assert (mask() != mask(**change)).mean() > 0.3


def test_a_mask_does_not_depend_on_how_the_batch_is_divided():
    whole = mask(samples=6)
    parts = [mask(samples=2), mask(samples=0, first_sample=2), mask(samples=4, first_sample=2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_calls_within_a_context_are_numbered():
    x = Tensor(np.ones((4, 40)))
    with random.context(0, 0):
        one, two = F.dropout(x), F.dropout(x)
    with random.context(0, 0):
        np.testing.assert_array_equal(F.dropout(x).data, one.data)
        np.testing.assert_array_equal(F.dropout(x, key=1).data, two.data)
    assert (one.data != two.data).mean() > 0.3


def test_outside_a_context_every_call_differs_and_the_seed_repeats_them():
    x = Tensor(np.ones((4, 40)))
    random.manual_seed(5)
    one, two = F.dropout(x), F.dropout(x)
    assert (one.data != two.data).mean() > 0.3
    random.manual_seed(5)
    np.testing.assert_array_equal(F.dropout(x).data, one.data)


def test_a_wrong_seed_changes_nothing():
    x = Tensor(np.ones((4, 40)))
    random.manual_seed(5)
    expected = F.dropout(x).data
    random.manual_seed(5)
    for seed in (1.5, "a", -1):
        with pytest.raises((TypeError, ValueError)):
            random.manual_seed(seed)
    np.testing.assert_array_equal(F.dropout(x).data, expected)


def test_the_fraction_of_zeros_is_p():
    for p in (0.1, 0.5, 0.9):
        y = F.dropout(Tensor(np.ones((100, 1000))), p, key=0).data
        assert abs((y == 0).mean() - p) < 0.01
        assert abs(y.mean() - 1) < 0.02


def test_the_initial_weights_depend_on_the_seed():
    def weights(seed):
        random.manual_seed(seed)
        return nn.Linear(3, 4).weight.data

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).all()


def test_normal_numbers_are_normal():
    """They have the moments of N(0, 1) up to the fourth, are a pure function of the sample, and their rows are uncorrelated."""
    draws = random.normal(4, 5, np.arange(50_000), 0, 1)
    assert draws.shape == (4, 50_000) and np.isfinite(draws).all()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        np.testing.assert_allclose((draws**power).mean(axis=1), moment, atol=0.15)
    assert abs(np.corrcoef(draws) - np.eye(4)).max() < 0.02
    np.testing.assert_array_equal(random.normal(4, 5, np.array([7, 3]), 0, 1), draws[:, [7, 3]])
