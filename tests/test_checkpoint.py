"""A checkpoint is whole or not there."""

import os
import resource

import numpy as np
import pytest

from minidl import checkpoint
from minidl.errors import UserError

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "number": np.array(7, np.int64),
    "empty": np.zeros((0, 3)),
}
FACTS = {"epoch": 3, "loss": 0.1, "name": "a"}


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", ARRAYS, FACTS)
    arrays, facts = checkpoint.load(tmp_path / "a.safetensors")
    assert facts == FACTS and set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_save_that_breaks_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    checkpoint.save(file, ARRAYS, FACTS)
    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(file, ARRAYS, {"epoch": 4})
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]


def test_a_full_disk_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # Python ignores the signal; the write fails
        with pytest.raises(OSError):
            checkpoint.save(tmp_path / "a.safetensors", {"large": np.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)])
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
