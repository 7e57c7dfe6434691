"""Runs cupy_kernels.py on the CPU: kernels.cu is compiled by g++ with sanitizers, and NumPy takes CuPy's place.

python -m tests.helpers.sanitized FLOAT.so DOUBLE.so compares each kernel with the reference.
test_sanitized.py makes the libraries.
"""

import ctypes
import re
import sys
import types

import numpy as np

from minidl.selftest import kernels as calls

POINTER = ctypes.c_void_p
TYPES = {
    np.int32: ctypes.c_int32,
    np.int64: ctypes.c_int64,
    np.uint32: ctypes.c_uint32,
    np.uint64: ctypes.c_uint64,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}


def launchers(source: str) -> str:
    """A C function launch_NAME(blocks, threads, ...) for each kernel of the source."""
    text = ""
    kernels = re.findall(r"__global__ void (\w+)\(([^)]*)\) \{\n(.*?)^\}", source, re.MULTILINE | re.DOTALL)
    for name, parameters, body in kernels:
        names = ", ".join(parameter.split()[-1] for parameter in parameters.split(","))
        together = "true" if "block_sum(" in body else "false"
        text += f'extern "C" void launch_{name}(unsigned blocks, unsigned threads, {parameters}) '
        text += f"{{ launch(blocks, threads, {together}, [&] {{ {name}({names}); }}); }}\n"
    return text


class Array(np.ndarray):
    """Stands for a CuPy array."""

    device = types.SimpleNamespace(id=0)


def made(function):
    return lambda *args, **options: function(*args, **options).view(Array)


def product(a, b, out=None):
    return np.matmul(a, b).view(Array) if out is None else np.matmul(a, b, out=out)


class Module:
    """Stands for CuPy's RawModule."""

    def __init__(self, code, options):
        self.library = ctypes.CDLL(sys.argv[1 if "-Dreal=float" in options else 2])

    def get_function(self, name):
        function = getattr(self.library, f"launch_{name}")

        def kernel(grid, block, args):
            values = [POINTER(arg.ctypes.data) if isinstance(arg, Array) else TYPES[type(arg)](arg) for arg in args]
            function(*grid, *block, *values)

        return kernel


class Library(types.ModuleType):
    """Stands for CuPy: NumPy's functions, whose results are of the class Array."""

    ndarray, RawModule = Array, Module

    def __init__(self):
        super().__init__("cupy")
        self.ReductionKernel = self.ElementwiseKernel = lambda *args: None
        self.cuda = types.ModuleType("cupy.cuda")
        self.cuda.cublas = types.SimpleNamespace()
        self.cuda.runtime = types.SimpleNamespace(getDevice=lambda: 0, CUDA_R_32F=0, CUDA_R_64F=1)

    def __getattr__(self, name):
        return made(getattr(np, name))


def main() -> None:
    cupy = Library()
    sys.modules |= {"cupy": cupy, "cupy.cuda": cupy.cuda}
    from minidl.kernels import cupy_kernels, layout, shared

    cupy_kernels.product = product
    layout.get_array_module = shared.get_array_module = lambda array: cupy
    calls.kernels_for = lambda array: cupy_kernels
    calls.to_device = lambda array, device: array.view(Array) if device == "cupy" else array
    for dtype, tolerance in calls.TOLERANCE.items():
        for name in calls.CALLS:
            largest = calls.difference(name, "cupy", dtype)
            assert largest <= tolerance, f"{name} of {dtype}: {largest}"
    assert calls.masks_are_equal("cupy")
    print(f"{len(calls.CALLS)} calls are right")


if __name__ == "__main__":
    main()
