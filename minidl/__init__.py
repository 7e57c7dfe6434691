"""minidl: a tiny neural network library with automatic differentiation, on NumPy or CuPy."""

from . import functional, nn, optim, random
from .autodiff import Function, Tensor, no_grad
from .backend import get_matmul_precision, set_matmul_precision
from .inspection import GradientError, gradcheck, graph
from .kept import detect_anomaly
from .kernels import use_kernels
from .serialization import load, save
from .threads import get_num_threads, set_num_threads

__version__ = "0.1.0"
__all__ = [
    "Function",
    "GradientError",
    "Tensor",
    "detect_anomaly",
    "functional",
    "get_matmul_precision",
    "get_num_threads",
    "gradcheck",
    "graph",
    "load",
    "nn",
    "no_grad",
    "optim",
    "random",
    "save",
    "set_matmul_precision",
    "set_num_threads",
    "use_kernels",
]
