"""The source archive and the wheel: they are built, contain the right files, and the installed wheel can train."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import minidl

ROOT = Path(__file__).parents[2]
FOLDERS = ["alexnet", "benchmarks", "docs", "exercises", "minidl", "tests"]
FILES = "CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE MANIFEST.in Makefile README.md constraints.txt pyproject.toml".split()
FILES += ["setup.py", "train.py"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(source archive, wheel); the wheel is built from the archive."""
    pytest.importorskip("build")
    place = tmp_path_factory.mktemp("built")
    source = place / "source"
    source.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("_build", "__pycache__", ".*"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,), (wheel,) = (place / "dist").glob("*.tar.gz"), (place / "dist").glob("*.whl")
    return archive, wheel


def test_all_files_state_the_same_version():
    assert f'version = "{minidl.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {minidl.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert newest in ("Unreleased", minidl.__version__)


def test_the_archive_and_the_wheel_contain_the_right_files(built):
    archive, wheel = built
    stem = f"minidl-{minidl.__version__}"
    assert archive.name == f"{stem}.tar.gz" and wheel.name.startswith(stem)
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"train.py", "tests/conftest.py", "docs/backprop.md", "LICENSE", "alexnet/digits/NOTICE.md", "Makefile"} <= names
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {"minidl/autodiff.py", "minidl/py.typed", "alexnet/digits/digits.csv.gz", "alexnet/pages/page.html"} <= names
    assert any(name.startswith("minidl/kernels/") and name.endswith(".cu") for name in names)
    assert {name.split("/")[0] for name in names} == {"minidl", "alexnet", f"{stem}.dist-info"}


def test_an_installed_wheel_can_train(built, tmp_path):
    """It is installed outside the checkout, and uses the dependencies that are already installed."""
    pytest.importorskip("pip")
    _, wheel = built
    place, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", place, wheel]
    subprocess.run(install, check=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import alexnet; print(alexnet.__file__)").startswith(str(place))
    options = "--data digits --epochs 1 --limit-train 64 --limit-test 32 --batch-size 16 --out run".split()
    assert run("-m", "alexnet", "train", *options).splitlines()[-1].startswith("test loss: ")
    assert "accuracy" in run("-m", "alexnet", "evaluate", "run")
