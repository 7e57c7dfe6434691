"""The CUDA kernels compiled for the CPU, with checks of every memory access and of the arithmetic."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minidl.selftest.kernels import CALLS

from ..helpers.sanitized import launchers

ROOT = Path(__file__).parents[2]
SOURCE = (ROOT / "minidl/kernels/kernels.cu").read_text()
FLAGS = ["-std=c++20", "-g", "-O1", "-pthread", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture
def check(tmp_path):
    """check(source): the finished process of python -m tests.helpers.sanitized, with this text as kernels.cu."""
    compiler = shutil.which("g++")
    runtime = (
        compiler and subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    )
    if not runtime or not Path(runtime).is_absolute():
        pytest.skip("no g++ with an address sanitizer")

    def check(source):
        (tmp_path / "kernels.cpp").write_text("\n".join(['#include "cuda_on_cpu.h"', source, launchers(source)]))
        libraries = [tmp_path / f"{real}.so" for real in ("float", "double")]
        for library in libraries:
            command = [
                compiler,
                *FLAGS,
                f"-Dreal={library.stem}",
                f"-I{ROOT / 'tests' / 'helpers'}",
                "kernels.cpp",
                "-o",
                library,
            ]
            subprocess.run(command, cwd=tmp_path, check=True)
        options = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
        command = [sys.executable, "-m", "tests.helpers.sanitized", *libraries]
        return subprocess.run(command, cwd=ROOT, env=os.environ | options, capture_output=True, text=True, timeout=300)

    return check


def test_the_sanitizers_find_nothing_in_the_kernels(check):
    done = check(SOURCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(CALLS)} calls are right\n"


@pytest.mark.parametrize(
    "right, wrong, message",
    [
        ("i < (count)", "i <= (count)", "AddressSanitizer: heap-buffer-overflow"),
        ("const int left = w + PW - j,", "const int left = w + PW - j, none = KW / (j - j),", "division by zero"),
    ],
)
def test_the_sanitizers_find_errors(check, right, wrong, message):
    assert right in SOURCE
    done = check(SOURCE.replace(right, wrong))
    assert done.returncode and message in done.stderr, done.stderr
