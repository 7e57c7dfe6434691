"""The data sets: read correctly, or refused with one line that says what to do."""

import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest

from alexnet import datasets
from minidl.errors import UserError

from ..helpers import cifar_files


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data directory with random CIFAR-10 files."""
    place = tmp_path_factory.mktemp("cifar")
    cifar_files.write(place)
    return place


@pytest.fixture
def place(original, tmp_path):
    """A copy to damage. Its files are hard links: replace a file, do not write into it."""
    shutil.copytree(original, tmp_path / "data", copy_function=os.link)
    return tmp_path / "data"


def replace(file, content):
    file.unlink()
    file.write_bytes(content)


@pytest.fixture(scope="module")
def packed(original, tmp_path_factory):
    """The folder as an archive like the official one."""
    file = tmp_path_factory.mktemp("packed") / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        tar.add(original / "cifar-10-batches-py", "cifar-10-batches-py")
    return file


@pytest.fixture
def archive(packed, tmp_path):
    """A copy of the archive to damage, alone in a folder; a hard link too."""
    file = tmp_path / "archive" / "cifar-10-python.tar.gz"
    file.parent.mkdir()
    os.link(packed, file)
    return file


def check(data):
    assert data.train.images.shape == (50000, 3, 32, 32) and data.test.images.shape == (10000, 3, 32, 32)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int64
    assert (np.bincount(data.train.labels) == 5000).all() and (np.bincount(data.test.labels) == 1000).all()
    assert len(data.classes) == 10 and data.image_shape == (3, 32, 32)


def test_the_folder_and_the_archive_give_the_same_images(original, archive):
    folder, unpacked = datasets.cifar10(str(original)), datasets.cifar10(str(archive.parent))
    check(folder)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(unpacked, part).images, getattr(folder, part).images)
        np.testing.assert_array_equal(getattr(unpacked, part).labels, getattr(folder, part).labels)
    assert os.listdir(archive.parent) == [archive.name]


def test_a_row_holds_the_red_green_and_blue_planes(original):
    with open(original / "cifar-10-batches-py" / "data_batch_1", "rb") as file:
        raw = pickle.load(file, encoding="bytes")[b"data"][7]
    data = datasets.cifar10(str(original))
    np.testing.assert_array_equal(data.train.images[7], raw.reshape(3, 32, 32))


def test_mean_and_std_are_of_all_training_images(original):
    data = datasets.cifar10(str(original))
    np.testing.assert_allclose(data.pixels.mean, data.train.images.mean(axis=(0, 2, 3)), atol=5.1e-5, rtol=0)
    np.testing.assert_allclose(data.pixels.std, data.train.images.std(axis=(0, 2, 3)), atol=5.1e-5, rtol=0)


@pytest.mark.parametrize("given", ["option", "variable", "home"])
def test_only_the_first_given_place_is_searched(original, tmp_path, monkeypatch, given):
    empty = tmp_path / "empty"
    monkeypatch.setattr(datasets, "_download", lambda place: (_ for _ in ()).throw(UserError(f"download to {place}")))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    option = None
    if given == "home":
        (tmp_path / ".cache").mkdir()
        os.symlink(original, tmp_path / ".cache" / "minidl")
    if given == "variable":
        monkeypatch.setenv("MINIDL_DATA", str(original))
    if given == "option":
        monkeypatch.setenv("MINIDL_DATA", str(empty))
        option = str(original)
    check(datasets.cifar10(option))
    monkeypatch.setenv("MINIDL_DATA", str(original))
    with pytest.raises(UserError, match=f"download to {empty}"):
        datasets.cifar10(str(empty))


def test_a_missing_file_is_named(place):
    (place / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(UserError, match="incomplete: data_batch_3 is missing"):
        datasets.cifar10(str(place))


def test_an_incomplete_folder_is_refused_even_beside_an_archive(place, packed):
    os.link(packed, place / packed.name)
    (place / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(UserError, match="incomplete: test_batch is missing"):
        datasets.cifar10(str(place))


class Attack:
    """To unpickle it is to call os.system."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize(
    "content, message",
    [
        (lambda raw: raw[: len(raw) // 2], "damaged"),
        (lambda raw: b"", "damaged"),
        (lambda raw: b"not a pickle", "damaged"),
        (lambda raw: pickle.dumps([1, 2]), "holds no data and labels"),
        (lambda raw: pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [0] * 10}), "not 10,000 images"),
        (lambda raw: pickle.dumps({b"data": np.zeros((10000, 3072), np.int8), b"labels": [0] * 10000}), "not of bytes"),
        (lambda raw: pickle.dumps({b"data": np.zeros((10000, 3072), np.uint8), b"labels": [10] * 10000}), "from 0 to 9"),
        (lambda raw: pickle.dumps({b"data": np.zeros((10000, 3072), np.uint8), b"labels": [0] * 9999}), "10,000 numbers"),
        (lambda raw: pickle.dumps({b"data": np.zeros((10000, 3072), np.uint8), b"labels": ["0"] * 10000}), "10,000 numbers"),
        (lambda raw: pickle.dumps(np.load), "names 'numpy.load'"),
        (lambda raw: pickle.dumps(np.testing.assert_equal), "names 'numpy.testing"),
        (lambda raw: b"cnumpy\nndarray.tofile\n.", "names 'numpy.ndarray.tofile'"),
    ],
)
def test_a_damaged_or_hostile_batch_is_refused(place, content, message):
    file = place / "cifar-10-batches-py" / "test_batch"
    replace(file, content(file.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        datasets.cifar10(str(place))
    assert "test_batch is damaged" in str(error.value) and "\n" not in str(error.value)


def test_a_pickle_cannot_run_commands(place, tmp_path):
    witness = tmp_path / "witness"
    replace(place / "cifar-10-batches-py" / "data_batch_1", pickle.dumps(Attack(witness)))
    with pytest.raises(UserError, match="names 'posix.system'"):
        datasets.cifar10(str(place))
    assert not witness.exists()


def test_a_cut_archive_is_refused(archive):
    replace(archive, archive.read_bytes()[:-1000])
    with pytest.raises(UserError, match="cifar-10-python.tar.gz is damaged"):
        datasets.cifar10(str(archive.parent))


def test_a_flipped_bit_in_an_archive_is_noticed(archive):
    """In the data of a file, and in the last bytes, which hold the checksum."""
    whole = archive.read_bytes()
    for at in (len(whole) // 3, len(whole) // 2, len(whole) - 5):
        replace(archive, whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(UserError, match="cifar-10-python.tar.gz is damaged"):
            datasets.cifar10(str(archive.parent))


def test_an_archive_of_other_files_is_refused(archive):
    archive.unlink()
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(UserError, match="incomplete: data_batch_1, .*test_batch missing"):
        datasets.cifar10(str(archive.parent))
    replace(archive, gzip.compress(b"no tar"))
    with pytest.raises(UserError, match="is damaged"):
        datasets.cifar10(str(archive.parent))


# --- the download, from a server on this machine -------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(address, folder it serves) of an HTTP server on the loopback interface, which is reached without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=served)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/cifar-10-python.tar.gz", served
        httpd.shutdown()
        thread.join()


def test_a_missing_archive_is_downloaded_once(archive, server, tmp_path, monkeypatch):
    url, served = server
    shutil.move(archive, served / "cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets, "CIFAR10_URL", url)
    digest = hashlib.md5((served / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets, "CIFAR10_MD5", digest)
    check(datasets.cifar10(str(tmp_path / "new" / "place")))
    assert os.listdir(tmp_path / "new" / "place") == ["cifar-10-python.tar.gz"]
    (served / "cifar-10-python.tar.gz").unlink()
    check(datasets.cifar10(str(tmp_path / "new" / "place")))


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot download CIFAR-10: get http://127.0.0.1.* or run train.py --data digits"),
        (b"x", "wrong md5.* --data digits"),
    ],
)
def test_a_failed_download_leaves_nothing(server, tmp_path, monkeypatch, content, message):
    url, served = server
    if content:
        (served / "cifar-10-python.tar.gz").write_bytes(content)
    monkeypatch.setattr(datasets, "CIFAR10_URL", url)
    with pytest.raises(UserError, match=message):
        datasets.cifar10(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_without_a_network_an_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10_URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(UserError, match=f"get http://127.0.0.1:9/cifar.* put it into {tmp_path}, or run train.py --data digits"):
        datasets.cifar10(str(tmp_path))


# --- digits, and parts of a data set -------------------------------------------------------------------------------


def test_digits():
    data = datasets.digits()
    assert data.train.images.shape == (1437, 1, 16, 16) and data.test.images.shape == (360, 1, 16, 16)
    assert (np.bincount(data.test.labels) == 36).all()
    small = {image.tobytes() for image in data.train.images}, {image.tobytes() for image in data.test.images}
    assert not small[0] & small[1], "no test image is among the training images"
    assert data.train.images.max() == 240
    again = datasets.digits()
    np.testing.assert_array_equal(again.test.images, data.test.images)


@pytest.mark.parametrize("n", [1, 7, 10, 25, 1437])
def test_a_part_is_the_start_of_one_balanced_order(n):
    split = datasets.digits().train
    part = split.first(n, "--limit-train")
    assert len(part) == n
    np.testing.assert_array_equal(split.first(1437, "--limit-train").images[:n], part.images)
    counts = np.bincount(part.labels, minlength=10)
    if n <= 1000:
        assert counts.max() - counts.min() <= 1


def test_without_a_limit_the_order_is_unchanged():
    split = datasets.digits().train
    assert split.first(None, "--limit-train") is split


@pytest.mark.parametrize("n", [0, -1, 1438])
def test_a_part_of_an_impossible_size_is_refused(n):
    with pytest.raises(UserError, match=f"--limit-train {n}: give a number from 1 to 1437"):
        datasets.digits().train.first(n, "--limit-train")


def test_unknown_names_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such data set and no such folder; give cifar10, digits, or a folder"):
        datasets.load("imagenet")
    with pytest.raises(UserError, match="there are no images in"):
        datasets.load(str(tmp_path))
