"""CIFAR-10 files of random pixels, in the official layout and the official pickle dialect: Python 2, protocol 2."""

import io
import pickle

import numpy as np


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 wrote its str, and arrays under numpy's old name."""

    dispatch = pickle._Pickler.dispatch.copy()

    def write_str(self, value):
        head = (
            pickle.SHORT_BINSTRING + bytes([len(value)])
            if len(value) < 256
            else pickle.BINSTRING + len(value).to_bytes(4, "little")
        )
        self.write(head + value)
        self.memoize(value)

    def write_array(self, array):
        self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.save((np.ndarray, (0,), b"b"))
        self.write(pickle.REDUCE)
        self.memoize(array)
        self.write(pickle.MARK)
        self.save(1), self.save(array.shape)
        self.write(b"cnumpy\ndtype\n")
        self.save((b"u1", 0, 1))
        self.write(pickle.REDUCE)
        self.save((3, b"|", None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)
        self.save(False), self.save(array.tobytes())
        self.write(pickle.TUPLE + pickle.BUILD)

    dispatch[bytes] = write_str
    dispatch[np.ndarray] = write_array


NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def batch(images, seed=0):
    """The content of a batch file of random images. Each class has its own brightness, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 10)
    pixels = (rng.integers(0, 60, (images, 3072)) + 20 * labels[:, None]).astype(np.uint8)
    return {
        b"batch_label": b"a batch",
        b"labels": [int(label) for label in labels],
        b"data": pixels,
        b"filenames": [b"%05d.png" % i for i in range(images)],
    }


def official(content):
    """The content of a batch file as a pickle, as Python 2 wrote it."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def write(folder, images=10_000):
    """Write the six files, with `images` images each, into folder/cifar-10-batches-py."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        (place / name).write_bytes(official(batch(images, seed)))
    return place
