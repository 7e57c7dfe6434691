"""Checks without a GPU: NVRTC compiles kernels.cu for every architecture, and every CuPy name that minidl uses exists.

Both need CuPy for CUDA and its compiler (cupy-cuda13x, nvidia-cuda-nvrtc, nvidia-cuda-runtime), but no driver: make test-nvrtc.
"""

import ast
import functools
import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "minidl/kernels/kernels.cu"
USERS = ["kernels/cuda.py", "kernels/cupy_kernels.py", "parallel/nccl.py", "parallel/input_batches.py", "backend.py"]
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]


@pytest.fixture(scope="module")
def cupy():
    if not any((d.name or "").startswith("cupy-cuda") for d in importlib.metadata.distributions()):
        pytest.skip("a CuPy for CUDA is not installed")
    return pytest.importorskip("cupy")


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_the_kernels(cupy, architecture, real):
    from cupy.cuda import compiler

    try:
        program = compiler._NVRTCProgram(SOURCE.read_text(), "kernels.cu", method="cubin")
    except RuntimeError as error:
        pytest.skip(f"no NVRTC ({error})")
    binary, _ = program.compile((f"-arch=sm_{architecture}", f"-Dreal={real}"))
    for name in kernels():
        assert name.encode() in binary


def kernels():
    return re.findall(r"__global__ void (\w+)\(", SOURCE.read_text())


def test_the_launched_kernels_are_those_of_the_source():
    text = (ROOT / "minidl/kernels/cupy_kernels.py").read_text()
    launched = re.findall(r"\beach(?:_channel)?\(\s*\"(\w+)\"", text)
    assert set(launched) == set(kernels())


@pytest.mark.parametrize("name", kernels())
def test_a_launch_names_the_parameters_of_its_kernel(name):
    """A launch without ** names all of them. Each launch checks the names again when it runs."""
    declared = re.search(rf"__global__ void {name}\(([^)]*)\)", SOURCE.read_text())[1]
    parameters = {parameter.split()[-1] for parameter in declared.split(",")}
    tree = ast.parse((ROOT / "minidl/kernels/cupy_kernels.py").read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("each", "each_channel")
        if isinstance(node.args[0], ast.Constant) and node.args[0].value == name
    ]
    assert calls
    for call in calls:
        named = {keyword.arg for keyword in call.keywords} | {"each": {"count"}, "each_channel": {"length"}}[call.func.id]
        assert named - {None} <= parameters
        assert None in named or named == parameters


@pytest.mark.parametrize("file", USERS)
def test_the_cupy_names_in_use_exist(cupy, file):
    """cp.empty, cupy.cuda.Device, ...: each dotted name that begins with an import of CuPy."""
    tree = ast.parse((ROOT / "minidl" / file).read_text())
    roots = {"cp": cupy, "cupy": cupy, "_cupy()": cupy}
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    checked = [chain for chain in chains if re.fullmatch(r"[\w.]+", chain) and chain.partition(".")[0] in roots]
    assert checked or file == "backend.py"
    for chain in checked:
        functools.reduce(getattr, chain.split(".")[1:], roots[chain.partition(".")[0]])
