"""The data loader and the transforms of images."""

import threading

import numpy as np
import pytest

from alexnet.augment import ColorNoise, RandomCrop, RandomHorizontalFlip
from minidl.data import Compose, DataLoader, Normalize
from minidl.kernels.layout import to_batch_last

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 6), np.uint8)
LABELS = np.arange(23)


def keep(images, indices, epoch):
    return images


def batches(loader, *arguments):
    return [list(batch.labels) for batch in loader.epoch(*arguments)]


def test_batches_come_in_order_and_the_last_may_be_smaller():
    loader = DataLoader(IMAGES, LABELS, 5, keep)
    assert len(loader) == 5
    seen = list(loader.epoch(0))
    assert [len(batch) for batch in seen] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in seen]), IMAGES)
    np.testing.assert_array_equal(np.concatenate([batch.indices for batch in seen]), LABELS)


def test_the_order_is_a_function_of_seed_and_epoch():
    one, other = (DataLoader(IMAGES, LABELS, 5, keep, shuffle=True, seed=seed) for seed in (0, 1))
    assert sorted(label for batch in batches(one, 0) for label in batch) == list(LABELS)
    assert batches(one, 0) == batches(one, 0) != batches(one, 1)
    assert batches(one, 0) != batches(other, 0)


def test_an_epoch_can_begin_at_any_batch():
    loader = DataLoader(IMAGES, LABELS, 5, keep, shuffle=True)
    for first in range(6):
        assert batches(loader, 3, first) == batches(loader, 3)[first:]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 100])
def test_prefetching_does_not_change_the_batches(prefetch):
    assert batches(DataLoader(IMAGES, LABELS, 5, keep, prefetch=prefetch), 0) == batches(DataLoader(IMAGES, LABELS, 5, keep), 0)


def test_batches_are_prepared_ahead_in_a_thread():
    names = []

    def watch(images, indices, epoch):
        names.append(threading.current_thread().name)
        ahead.release()
        return images

    ahead = threading.Semaphore(0)
    epoch = DataLoader(IMAGES, LABELS, 5, watch, prefetch=2).epoch(0)
    next(epoch)
    for _ in range(3):
        assert ahead.acquire(timeout=10), "the next two batches are prepared without being asked for"
    assert all(name.startswith("loader") for name in names)
    epoch.close()


def test_an_error_in_the_thread_is_raised_and_the_thread_ends():
    def fail(images, indices, epoch):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        batches(DataLoader(IMAGES, LABELS, 5, fail), 0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_leaving_an_epoch_ends_its_thread():
    for _ in DataLoader(IMAGES, LABELS, 5, keep).epoch(0):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="got 23 and 22"):
        DataLoader(IMAGES, LABELS[:-1], 5, keep)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        DataLoader(IMAGES, LABELS, 0, keep)
    with pytest.raises(ValueError, match="got 0 and 0"):
        DataLoader(IMAGES[:0], LABELS[:0], 5, keep)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalize(dtype):
    mean, std = np.array([100.0, 120.0, 90.0]), np.array([50.0, 60.0, 70.0])
    out = Normalize(mean, std, dtype)(IMAGES, LABELS, 0)
    expected = (IMAGES - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert out.dtype == dtype and np.shares_memory(to_batch_last(out), out)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_random_crop_moves_the_image_within_its_padding(mode):
    out = RandomCrop((8, 6), 2, 0, mode)(IMAGES, LABELS, epoch=0)
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (2, 2)))
    if mode == "reflect":  # the rows and columns next to the border, mirrored, without the border itself
        rows, columns = [2, 1, *range(8), 6, 5], [2, 1, *range(6), 4, 3]
        padded = IMAGES[:, :, rows][..., columns]
    shifts = set()
    for before, after in zip(padded, out, strict=True):
        fits = [(i, j) for i in range(5) for j in range(5) if (before[:, i : i + 8, j : j + 6] == after).all()]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) > 8
    assert {i for i, _ in shifts} == {j for _, j in shifts} == set(range(5))


def test_colour_noise_depends_on_the_image_not_on_the_batch():
    images = IMAGES.astype(np.float64)
    whole = ColorNoise(np.eye(3), 0.1, seed=3)(images.copy(), LABELS, 1)
    some = np.array([17, 2, 9])
    np.testing.assert_array_equal(ColorNoise(np.eye(3), 0.1, seed=3)(images[some].copy(), LABELS[some], 1), whole[some])
    for seed, epoch in ((4, 1), (3, 2)):
        assert (ColorNoise(np.eye(3), 0.1, seed)(images.copy(), LABELS, epoch) != whole).any()


def test_random_horizontal_flip_reflects_about_half():
    out = RandomHorizontalFlip(seed=0)(IMAGES, LABELS, epoch=0)
    reflected = [(after == before[:, :, ::-1]).all() for before, after in zip(IMAGES, out, strict=True)]
    same = [(after == before).all() for before, after in zip(IMAGES, out, strict=True)]
    assert all(a != b for a, b in zip(reflected, same, strict=True)) and 4 < sum(reflected) < 19


AUGMENTATIONS = [
    RandomCrop((8, 6), 2, seed=3),
    RandomCrop((8, 6), 2, 3, "reflect"),
    RandomHorizontalFlip(seed=3),
]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_augmentation_depends_on_the_image_not_on_the_batch(augment):
    whole = augment(IMAGES, LABELS, 1)
    some = np.array([17, 2, 9])
    np.testing.assert_array_equal(augment(IMAGES[some], some, 1), whole[some])
    assert (augment(IMAGES, LABELS, 2) != whole).any()
    other = type(augment)(**{**vars(augment), "seed": 4})
    assert (other(IMAGES, LABELS, 1) != whole).any()


@pytest.mark.parametrize("size, padding", [((5, 4), 0), ((8, 6), 1), ((9, 3), 2)])
def test_crops_of_another_size(size, padding):
    """Each crop is a part of the padded image, and every position occurs."""
    images = np.arange(40 * 8 * 6, dtype=np.int64).reshape(40, 1, 8, 6) + 1
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    crops, places = RandomCrop(size, padding, seed=1)(images, np.arange(40), 0), set()
    rows, columns = 8 + 2 * padding - size[0] + 1, 6 + 2 * padding - size[1] + 1
    for image, crop in zip(padded[:, 0], crops[:, 0], strict=True):
        found = [(i, j) for i in range(rows) for j in range(columns) if (image[i : i + size[0], j : j + size[1]] == crop).all()]
        assert len(found) == 1
        places.update(found)
    assert {i for i, _ in places} == set(range(rows)) and {j for _, j in places} == set(range(columns))


def test_colour_noise_is_the_same_for_all_pixels_of_an_image():
    """Krizhevsky 2012, section 4.1, as in the paper's code: (x + sum of a_i v_i) / 1.1, with a_i from N(0, .1)."""
    vectors, images = np.array([[3.0, 2.0, 1.0], [0.0, 1.0, -1.0], [0.5, 0.0, 0.0]]), np.zeros((3000, 3, 2, 1))
    changed = ColorNoise(vectors, 0.1, seed=5)(images.transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2), np.arange(3000), 2)
    assert (changed == changed[:, :, :1, :1]).all()
    draws = np.linalg.solve(vectors.T, 1.1 * changed[:, :, 0, 0].T) / 0.1
    assert abs(draws.mean(axis=1)).max() < 0.06 and abs(np.cov(draws) - np.eye(3)).max() < 0.08
    assert ((abs(draws) > 3).mean(axis=1) < 0.01).all() and abs(draws).max() > 2.5


def test_compose():
    out = Compose([lambda x, i, e: x + i.sum(), lambda x, i, e: x * e])(np.ones(2), np.array([1, 2]), 3)
    np.testing.assert_array_equal(out, [12, 12])
