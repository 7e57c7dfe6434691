"""minidl: a tiny layer library with automatic differentiation, on NumPy or CuPy."""

from . import functional, nn, optim, random
from .autodiff import Function, Tensor, no_grad
from .gradcheck import GradientError, gradcheck

__version__ = "0.1.0"
__all__ = ["Function", "GradientError", "Tensor", "functional", "gradcheck", "nn", "no_grad", "optim", "random"]
