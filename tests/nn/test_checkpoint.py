"""Files of arrays, checkpoints among them, are written atomically: complete or not there."""

import os
import resource

import numpy as np
import pytest
from PIL import Image

import minidl
from minidl import Tensor, checkpoint, nn
from minidl.errors import UserError

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "number": np.array(7, np.int64),
    "empty": np.zeros((0, 3)),
}
FACTS = {"epoch": 3, "loss": 0.1, "name": "a"}


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", ARRAYS, FACTS)
    arrays, facts = checkpoint.load(tmp_path / "a.safetensors")
    assert facts == FACTS and set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    checkpoint.save(file, ARRAYS, FACTS)
    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(file, ARRAYS, {"epoch": 4})
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]


def test_a_full_disk_leaves_no_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # Python ignores SIGXFSZ, so the write fails
        with pytest.raises(OSError):
            checkpoint.save(tmp_path / "a.safetensors", {"large": np.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


DAMAGE = [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(tmp_path, damage):
    file = tmp_path / "a.safetensors"
    checkpoint.save(file, ARRAYS, FACTS)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="a.safetensors is not a checkpoint, or is damaged"):
        checkpoint.load(file)


def test_another_safetensors_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "missing.safetensors")


STATE = ARRAYS | {
    "truth": np.array([True, False]),
    "half": np.array([0.1, -np.inf], np.float16),
    "bytes": np.arange(3, dtype=np.uint8),
    "every other": np.arange(6)[::2],
    "big-endian": np.arange(3, dtype=">f4"),
    "scalar": np.float32(0.1),
    "tensor": Tensor(np.ones((2, 1), np.float32)),
}


def test_a_state_is_loaded_as_it_was_saved(tmp_path):
    file = tmp_path / "a.safetensors"
    minidl.save(STATE, file)
    loaded = minidl.load(str(file))
    assert set(loaded) == set(STATE)
    for name, value in STATE.items():
        array = value.data if isinstance(value, Tensor) else value
        assert type(loaded[name]) is np.ndarray and loaded[name].flags.writeable
        assert loaded[name].dtype == array.dtype.newbyteorder("=") and loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name], array)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_network_can_be_saved_and_loaded(tmp_path):
    one, two = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    one(Tensor(np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype(np.float32)))
    minidl.save(one.state_dict(), tmp_path / "net.safetensors")
    two.load_state_dict(minidl.load(tmp_path / "net.safetensors"))
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(two.state_dict()[name], array)


def test_a_failed_save_keeps_the_old_state(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    minidl.save(ARRAYS, file)
    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        minidl.save(STATE, file)
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    "state, problem",
    [
        (nn.ReLU(), r"save takes names and arrays, such as net.state_dict\(\); got a ReLU"),
        ({"a": np.ones(2), "group": {"b": np.ones(2)}}, "one level deep; group is a dict"),
        ({"picture": Image.new("L", (2, 2))}, "one level deep; picture is a Image"),
        ({"lr": 0.1}, "save takes arrays and Tensors by name, one level deep; lr is a float"),
        ({3: np.ones(2)}, "save takes names that are strings, other than __metadata__; got 3"),
        ({"__metadata__": np.ones(2)}, "other than __metadata__; got '__metadata__'"),
        ({"words": np.array(["a"])}, "floats of up to 64 bits; words is <U1"),
        ({"z": np.ones(2, np.complex64)}, "floats of up to 64 bits; z is complex64"),
    ],
)
def test_states_that_cannot_be_saved_are_refused(tmp_path, state, problem):
    with pytest.raises(TypeError, match=problem):
        minidl.save(state, tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path}/no to save a.safetensors in; make it first"):
        minidl.save(ARRAYS, tmp_path / "no/a.safetensors")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused(tmp_path, damage):
    file = tmp_path / "a.safetensors"
    minidl.save(ARRAYS, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="a.safetensors is not a safetensors file that NumPy can hold, or is damaged"):
        minidl.load(file)


def test_a_missing_file_or_an_unsupported_dtype_is_refused(tmp_path):
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"there is no file {path}"):
            minidl.load(path)
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(ValueError, match=r"not a safetensors file that NumPy can hold, .*bfloat16"):
        minidl.load(tmp_path / "a.safetensors")


def test_save_replaces_only_regular_files(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match="is not a regular file"):
            minidl.save({"w": np.ones(2)}, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]
