"""Choosing a device: one line says what is missing and what to do. A stand-in for CuPy raises the errors of the real one."""

import importlib.metadata
import sys
import types

import pytest

from minidl import backend
from minidl.backend import get_matmul_precision, set_matmul_precision, to_device, use_device
from minidl.errors import UserError


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        super().__init__(f"cudaError: {status}")
        self.status = status


class DynamicLibNotFoundError(RuntimeError):
    pass


@pytest.fixture
def installed(monkeypatch):
    """installed(*names, module=...) simulates these installed packages; `import cupy` gives the module."""
    backend._cupy.cache_clear()

    def installed(*names, module=None):
        distributions = [types.SimpleNamespace(name=name) for name in ("numpy", *names)]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: distributions)
        monkeypatch.setitem(sys.modules, "cupy", module)

    yield installed
    backend._cupy.cache_clear()


def cupy(devices=1, status=None, multiplies=lambda: None):
    def count():
        if status is not None:
            raise CUDARuntimeError(status)
        return devices

    class Vector:
        def __matmul__(self, other):
            multiplies()

    used = []
    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    device = lambda number: types.SimpleNamespace(use=lambda: used.append(number))
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime, Device=device), arange=lambda n: Vector(), used=used)


def refused(device="cupy:0"):
    with pytest.raises(UserError) as error:
        use_device(device)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_existing_gpu_is_used(installed):
    module = cupy(devices=2)
    installed("cupy-cuda12x", module=module)
    use_device("cupy:1")
    use_device("numpy")
    assert module.used == [1]


def test_cupy_is_not_installed(installed):
    installed()
    assert "pip install -e '.[cuda12]' or '.[cuda13]' in minidl's folder" in refused()


def test_cupy_is_installed_but_broken(installed):
    installed("cupy-cuda12x")
    assert "cupy-cuda12x is installed, but does not work" in refused()


@pytest.mark.parametrize("names", [("cupy", "cupy-cuda12x"), ("cupy-cuda12x", "cupy-cuda13x"), ("cupy-cuda13x", "cupy-rocm-7-0")])
def test_two_cupy_packages_are_refused(installed, names):
    installed(*names, "cupyx-something", module=cupy())
    assert refused() == f"two CuPy packages are installed, {names[0]} and {names[1]}: uninstall both, then install one again"


@pytest.mark.parametrize(
    "status, advice",
    [
        (35, "there is no NVIDIA driver"),
        (100, "no GPU can be used"),
        (3, "spawn it instead"),
        (999, "cudaError: 999; or use the numpy"),
    ],
)
def test_without_a_gpu_an_error_says_what_to_do(installed, status, advice):
    installed("cupy-cuda12x", module=cupy(status=status))
    assert advice in refused() and refused().endswith("or use the numpy back end")


def test_a_gpu_number_that_does_not_exist_is_refused(installed):
    installed("cupy-cuda12x", module=cupy(devices=2))
    assert refused("cupy:2") == "cupy:2: there is no such GPU; there are 2, numbered from 0"


def test_a_missing_cuda_library_is_named(installed):
    def multiplies():
        raise DynamicLibNotFoundError("libnvrtc.so.12 was not found\nin any of the places")

    installed("cupy-cuda12x", module=cupy(multiplies=multiplies))
    assert "a CUDA library is missing (libnvrtc.so.12 was not found): pip install" in refused()


def test_another_error_is_not_hidden(installed):
    def multiplies():
        raise MemoryError

    installed("cupy-cuda12x", module=cupy(multiplies=multiplies))
    with pytest.raises(MemoryError):
        use_device("cupy")


@pytest.mark.parametrize("device", ["cuda", "cupy:", "cupy:-1", "cupy:0 ", "gpu0"])
def test_invalid_device_names_are_refused(device):
    for choose in (use_device, lambda device: to_device([1.0], device)):
        with pytest.raises(ValueError, match='a device is "numpy", "cupy" or "cupy:0"'):
            choose(device)


def test_an_unknown_precision_is_refused():
    assert get_matmul_precision() == "fp32"
    with pytest.raises(ValueError, match="set_matmul_precision takes one of fp32, tf32, fp16; got 'fp8'"):
        set_matmul_precision("fp8")
    assert get_matmul_precision() == "fp32"
