"""CIFAR-10 files of random pixels, in the official layout and the official pickle dialect: Python 2, protocol 2."""

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


def write(folder):
    """The six files, 10,000 random images each, under folder/cifar-10-batches-py."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        labels = rng.permutation(np.repeat(np.arange(10), 1000))
        # A class has a brightness of its own, so that there is something to learn.
        pixels = (rng.integers(0, 60, (10000, 3072)) + 20 * labels[:, None]).astype(np.uint8)
        batch = {
            b"batch_label": b"a batch",
            b"labels": [int(label) for label in labels],
            b"data": pixels,
            b"filenames": [b"%05d.png" % i for i in range(10000)],
        }
        with open(place / name, "wb") as file:
            Python2Pickler(file, protocol=2).dump(batch)
    return place
