"""pip install -e .            the library, AlexNet, and what training on a CPU needs
pip install -e '.[cuda12]'     and CuPy for CUDA 12 (cuda13: for CUDA 13)

CuPy is no dependency of its own, and never under the name `cupy`: that package builds from source, which takes long and needs
a CUDA toolkit. The wheels are called after the CUDA version of the driver, and only one of them may be installed.
"""

from pathlib import Path

from setuptools import find_packages, setup

MPI = ["mpi4py>=4; platform_system != 'Windows'", "mpich>=4; platform_system != 'Windows'"]  # the wheels need no system package

setup(
    name="minidl",
    version="0.1.0",
    description="A tiny layer library with automatic differentiation on NumPy or CuPy, and AlexNet built on it",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "alexnet/digits/NOTICE.md"],
    python_requires=">=3.10",
    packages=find_packages(include=["minidl*", "alexnet*"]),
    package_data={"alexnet": ["digits/*"], "minidl.kernels": ["*.cu"]},
    install_requires=[
        "numpy>=2.0,<3",
        "safetensors>=0.4.3",
        "threadpoolctl>=3.5",
        "tqdm>=4.64",
        "pooch>=1.8",
        "requests>=2.28",
        "matplotlib>=3.8",
    ],
    extras_require={
        "cuda12": ["cupy-cuda12x[ctk]>=14,<15", "nvidia-nccl-cu12"],
        "cuda13": ["cupy-cuda13x[ctk]>=14,<15", "nvidia-nccl-cu13"],
        "graph": ["pygraphviz>=2"],  # its wheels have Graphviz in them
        "mpi": MPI,
        "test": [
            "pytest>=8",
            "hypothesis>=6.100",
            "mpi4py>=4; platform_system == 'Linux'",
            "mpich>=4; platform_system == 'Linux'",
        ],
        "docs": ["sphinx>=8", "myst-nb>=1.4", "furo", "pygraphviz>=2", "pytest-check-links"],
        "dev": ["pytest>=8", "hypothesis>=6.100", "ruff", "mypy"],
    },
)
