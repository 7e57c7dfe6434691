"""cupy_kernels.py on the CPU: kernels.cu in libraries that g++ made, in a process under its sanitizers, and NumPy for CuPy.

python -m tests.sanitized FLOAT.so DOUBLE.so compares each kernel with NumPy's; test_sanitized.py makes the libraries.
"""

import ctypes
import re
import sys
import types

import numpy as np

from minidl.kernels import numpy_kernels
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
    """What stands for a GPU's."""

    device = types.SimpleNamespace(id=0)


def made(function):
    return lambda *args, **options: function(*args, **options).view(Array)


def product(a, b, out=None):
    return np.matmul(a, b).view(Array) if out is None else np.matmul(a, b, out=out)


class Module:
    """CuPy's RawModule."""

    def __init__(self, code, options):
        self.library = ctypes.CDLL(sys.argv[1 if "-Dreal=float" in options else 2])

    def get_function(self, name):
        function = getattr(self.library, f"launch_{name}")

        def kernel(grid, block, args):
            values = [POINTER(arg.ctypes.data) if isinstance(arg, Array) else TYPES[type(arg)](arg) for arg in args]
            function(*grid, *block, *values)

        return kernel


def library() -> types.ModuleType:
    cupy = types.ModuleType("cupy")
    for name in ("empty", "zeros", "empty_like", "asarray", "ascontiguousarray"):
        setattr(cupy, name, made(getattr(np, name)))
    cupy.ndarray, cupy.RawModule = Array, Module
    cupy.ReductionKernel = cupy.ElementwiseKernel = lambda *args: None
    cupy.cuda = types.ModuleType("cupy.cuda")
    cupy.cuda.cublas = types.SimpleNamespace()
    cupy.cuda.runtime = types.SimpleNamespace(getDevice=lambda: 0, CUDA_R_32F=0, CUDA_R_64F=1)
    return cupy


def main() -> None:
    cupy = library()
    sys.modules |= {"cupy": cupy, "cupy.cuda": cupy.cuda}
    from minidl.kernels import cupy_kernels

    cupy_kernels.product = product
    calls.kernels_for = lambda array: cupy_kernels if isinstance(array, Array) else numpy_kernels
    calls.to_device = lambda array, device: array.view(Array) if device == "cupy" else array
    for dtype, tolerance in calls.TOLERANCE.items():
        for name in calls.CALLS:
            largest = calls.difference(name, "cupy", dtype)
            assert largest <= tolerance, f"{name} of {dtype}: {largest}"
    assert calls.masks_are_equal("cupy")
    print(f"{len(calls.CALLS)} calls are right")


if __name__ == "__main__":
    main()
