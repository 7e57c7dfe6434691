"""What benchmarks/bench.py and benchmarks/jpeg_copy.py write. The images of a JPEG copy are tested in test_results.py."""

import contextlib
import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet import cifar10_files, datasets
from alexnet.datasets import Dataset, Split


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/bench.py, as if each measurement took a second."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import bench

    def measure(*_):
        return {"train": times, "forward": times, "peak": {bench.OURS: 1.0}, "layers": {"conv1": [1.0, 1.0]}, "sgemm": 1.0}

    times = {bench.OURS: [1.0]}
    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "Contender", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(bench, "take_turns", lambda *_: (times, {}))
    monkeypatch.setattr(bench, "throughput", lambda *_: {32: [1.0]})
    monkeypatch.setattr(bench, "sgemm_rate", lambda: 1.0)
    return bench


def test_the_benchmark_replaces_the_table_between_the_marks(bench, tmp_path, monkeypatch):
    readme, figures = tmp_path / "README.md", tmp_path / "figures.json"
    readme.write_text(f"before é\n{bench.BEGIN}\nold\n{bench.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["bench.py", "--readme", str(readme), "--json", str(figures), "--workloads", "W1"])
    bench.main()
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before é\n{bench.BEGIN}\n\n| | minidl |") and text.endswith(f"\n{bench.END}\nafter\n")
    assert "\n| W1, `cifar-bn`, a step of 128 | 1000 ms (1000 to 1000), 1 MB |\n" in text and "old" not in text
    assert json.loads(figures.read_text())["one image"] == {bench.OURS: [1.0]}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--readme", "none.md"], "bench.py: cannot read none.md: No such file or directory"),
        (["--readme", "empty.md"], "bench.py: empty.md lacks the marks <!-- benchmark: "),
        (["--json", "none/figures.json"], "bench.py: there is no folder none for --json"),
    ],
)
def test_the_benchmark_refuses_wrong_files_before_it_measures(bench, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.md").touch()
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("it measured"))
    monkeypatch.setattr(sys, "argv", ["bench.py", *options])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert str(ended.value).startswith(message)


def test_the_benchmark_leaves_the_file_if_the_disk_is_full(bench, tmp_path, monkeypatch):
    def full(path, text, **_):
        path.write_bytes(text[:10].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    readme = tmp_path / "README.md"
    readme.write_text("old")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        bench.write(readme, "the new table")
    assert readme.read_text() == "old" and list(tmp_path.iterdir()) == [readme]


@pytest.fixture
def jpeg_copy(monkeypatch):
    """benchmarks/jpeg_copy.py, with ten random training images, and the first two as test images."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import jpeg_copy

    train = Split(np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8), np.arange(10))
    dataset = Dataset("cifar10", tuple("abcdefghij"), train, train.chosen(np.arange(2)))
    monkeypatch.setattr(datasets, "load", lambda *_: dataset)
    monkeypatch.setattr(sys, "argv", ["jpeg_copy.py", "copy"])
    return jpeg_copy


def test_a_jpeg_copy_has_all_files(jpeg_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar10_files, "BATCH", 2)
    assert jpeg_copy.main() == 0
    folder = tmp_path / "copy/cifar-10-batches-py"
    assert {file.name for file in folder.iterdir()} == {*cifar10_files.NAMES, "batches.meta"}
    (_, labels), (_, tested) = cifar10_files.read_folder(folder)
    assert labels.tolist() == list(range(10)) and tested.tolist() == [0, 1]


def test_a_full_disk_ends_a_jpeg_copy_with_one_line(jpeg_copy, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert jpeg_copy.main() == 2
    assert capsys.readouterr().err == "jpeg_copy.py: [Errno 28] No space left on device\n"
