"""pip install -e .            the library, AlexNet, and what training on a CPU needs
pip install -e '.[cuda12]'     and CuPy for CUDA 12 (cuda13: for CUDA 13)

The package is described in pyproject.toml.
"""

from setuptools import setup

setup()
