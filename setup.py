"""pip install -e .            the library, AlexNet, and what training on a CPU needs
pip install -e '.[cuda12]'     and CuPy for CUDA 12 (cuda13: for CUDA 13)

All that is said of the package is in pyproject.toml.
"""

from setuptools import setup

setup()
