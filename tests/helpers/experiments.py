"""Experiments on runs: something is damaged, and the run is resumed. Tests do a few of them, soak.py does many.

They run in this process, on a network so small that a run takes a tenth of a second.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import stat
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st

from alexnet import entry, models
from alexnet.commands import train
from minidl import checkpoint, nn
from minidl.errors import TrainingError, UserError

TINY = ["--data", "digits", "--model", "tiny", "--limit-train", "40", "--limit-test", "20", "--batch-size", "8"]
EPOCHS, STEPS = 3, 5


def tiny(num_classes=10, in_channels=3, image_size=32):
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(in_channels, 4, 3, stride=4),
            "bn1": nn.BatchNorm2d(4),
            "relu1": nn.ReLU(),
            "flatten": nn.Flatten(),
            "drop": nn.Dropout(0.5),
            "fc2": nn.Linear(4 * ((image_size - 3) // 4 + 1) ** 2, num_classes),
        }
    )


@contextlib.contextmanager
def tiny_network():
    """A context in which --model accepts tiny. No report and no pictures are made: they take longer than a run."""
    with (
        mock.patch.dict(models.MODELS, {"tiny": tiny}),
        mock.patch.dict(models.LEAST_IMAGE_SIZE, {"tiny": 3}),
        mock.patch.dict(models.IMAGE_SIZE, {"tiny": 12}),
        mock.patch("alexnet.reporter.pictures.draw", return_value={}),
        mock.patch("alexnet.reporter.report"),
    ):
        before = {signum: signal.getsignal(signum) for signum in entry.STOP_SIGNALS}
        try:
            yield
        finally:  # a run that has ended ignores signals
            for signum, handler in before.items():
                signal.signal(signum, handler)


def run(*arguments) -> tuple[int, str]:
    """(exit status, message) of train.py, as alexnet.entry makes them from an error. Any other exception fails the test."""
    try:
        with tiny_network(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return train.main([str(argument) for argument in arguments]), ""
    except UserError as error:
        return 2, str(error)
    except TrainingError as error:
        return 1, str(error)


def metrics(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl without the measured times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]


def weights(folder: Path) -> dict[str, bytes]:
    """The arrays of the last checkpoint."""
    arrays, _ = checkpoint.load(checkpoints(folder)[-1])
    return {name: array.tobytes() for name, array in arrays.items()}


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("*.safetensors"))


def content(folder: Path) -> dict[str, tuple]:
    """{path: (mode, size, bytes if it is a small file)} of everything in a folder except its lock."""
    found = {}
    for file in folder.rglob("*"):
        if file.name != ".lock":
            about = file.lstat()
            small = stat.S_ISREG(about.st_mode) and about.st_size < 1 << 20
            found[str(file.relative_to(folder))] = about.st_mode, about.st_size, file.read_bytes() if small else None
    return found


class Baseline:
    """A run that was stopped after two of its three epochs, and its final result if nothing is damaged."""

    def __init__(self, place: Path):
        self.stopped, finished = place / "stopped", place / "finished"
        assert run(*TINY, "--epochs", "2", "--recipe", "deck", "--out", self.stopped) == (0, "")
        shutil.copytree(self.stopped, finished)
        assert run("--resume", finished, "--epochs", EPOCHS) == (0, "")
        self.metrics, self.weights = metrics(finished), weights(finished)

    def resume(self, place: Path, damage) -> tuple[int, str]:
        """Damage a copy of the run, in `place`, and resume it.

        Either it is refused with one line and left unchanged, or it ends with the result of the undamaged run.
        """
        folder = place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.stopped, folder)
        damage(folder)
        before = content(folder)
        status, message = run("--resume", folder, "--epochs", EPOCHS)
        if status:
            assert status == 2 and message and "\n" not in message, (status, message)
            assert content(folder) == before, "it was refused, but its files were changed"
        else:
            assert metrics(folder) == self.metrics and weights(folder) == self.weights, "it ended with another result"
        return status, message


# --- kinds of damage --------------------------------------------------------------------------------------------------

WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([-(2**63), 2**63, 2**64, 10**30, 1_000_001]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["cifar-lrn", "float64", "cupy", "deck", "/nonexistent", "x" * 5000, "a\nb"]),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(value, path=()):
    """The path of each part of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def wrong(draw, value):
    """A copy of a JSON value in which one entry is missing, unknown or replaced by another value."""
    value = json.loads(json.dumps(value))
    *path, last = draw(st.sampled_from(list(places(value))))
    at = value
    for key in path:
        at = at[key]
    how = draw(st.sampled_from(["other", "other", "other", "missing", "unknown"]))
    if how == "missing":
        del at[last]
    elif how == "unknown" and isinstance(at, dict):
        at["unknown"] = draw(WRONG)
    else:
        at[last] = draw(WRONG)
    return value


def wrong_setting(draw, folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(wrong(draw, json.loads(file.read_text()))))


def wrong_metrics(draw, folder: Path) -> None:
    file = folder / "metrics.jsonl"
    rows = wrong(draw, [json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def wrong_statistics(draw, folder: Path) -> None:
    file = folder / "statistics.jsonl"
    rows = wrong(draw, [json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def wrong_facts(draw, folder: Path) -> None:
    """Change the facts in a checkpoint whose checksums are right."""
    file = checkpoints(folder)[-1]
    arrays, facts = checkpoint.load(file)
    checkpoint.save(file, arrays, wrong(draw, facts))


def wrong_arrays(draw, folder: Path) -> None:
    """Change the arrays in a checkpoint whose checksums are right: one has another shape or dtype, is missing or is added."""
    file = checkpoints(folder)[-1]
    arrays, facts = checkpoint.load(file)
    name = draw(st.sampled_from(sorted(arrays)))
    how = draw(st.sampled_from(["shape", "dtype", "missing", "unknown"]))
    if how == "missing":
        del arrays[name]
    elif how == "unknown":
        arrays["model.unknown"] = arrays[name]
    else:
        arrays[name] = arrays[name].reshape(-1, 1, 1, 1, 1) if how == "shape" else arrays[name].astype("float64")
    checkpoint.save(file, arrays, facts)


def damaged_bytes(draw, folder: Path) -> None:
    """Damage one or two of the checkpoints and text files: cut, zeros, a changed bit, inserted bytes, other content."""
    files = [*checkpoints(folder), folder / "config.json", folder / "metrics.jsonl", folder / "statistics.jsonl"]
    for file in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
        content = file.read_bytes()
        at = draw(st.integers(0, len(content) - 1) | st.integers(0, min(2000, len(content) - 1)))
        end = draw(st.integers(at, min(len(content), at + 50)))
        new = draw(
            st.sampled_from(
                [
                    content[:at],
                    content[:at] + bytes(len(content) - at),
                    content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :],
                    content[:at] + draw(st.binary(max_size=9)) + content[end:],
                    b"",
                    b"[" * 100_000,
                    bytes(len(content)),
                ]
            )
        )
        file.write_bytes(new)


def odd_files(draw, folder: Path) -> None:
    """Replace an entry of the folder by nothing, a folder, a FIFO, a huge file, or a link, even to itself or to a device."""
    names = ["config.json", "metrics.jsonl", "statistics.jsonl", "checkpoints", checkpoints(folder)[-1].relative_to(folder)]
    path = folder / draw(st.sampled_from(names))
    elsewhere = folder.parent / "elsewhere"
    shutil.rmtree(elsewhere) if elsewhere.is_dir() else elsewhere.unlink(missing_ok=True)
    path.rename(elsewhere)
    how = draw(st.sampled_from(["nothing", "folder", "FIFO", "link", "loop", "nowhere", "/dev/zero", "/dev/full", "huge"]))
    if how == "folder":
        path.mkdir()
    elif how == "FIFO":
        os.mkfifo(path)
    elif how == "huge":
        with open(path, "wb") as file:
            file.truncate(1 << 40)  # sparse: it takes no space
    elif how != "nothing":
        path.symlink_to({"link": elsewhere, "loop": path, "nowhere": "/nonexistent"}.get(how, how))


def debris(draw, folder: Path) -> None:
    """Add the files that a killed save leaves, and a line that is cut short."""
    for name in draw(
        st.lists(st.sampled_from([".tmpA1b2", ".config.json.0a1b2c3d.part", "checkpoints/.x.part", "checkpoints/.tmpQ"]))
    ):
        (folder / name).write_bytes(bytes(1000))
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(draw(st.sampled_from([b"", b"{", b'{"epoch": 3, "train_loss": 2.', b"\0\0\0"])))


DAMAGES = [
    wrong_setting,
    wrong_metrics,
    wrong_statistics,
    wrong_facts,
    wrong_arrays,
    damaged_bytes,
    odd_files,
    debris,
]


# --- command lines ----------------------------------------------------------------------------------------------------

NUMBERS = ["0", "1", "2", "3", "-1", "1.5", "1e3", "nan", "inf", "", "x", "1_0", "+1", " 1", "1000001", "9" * 5000, "0x1", "1\n2"]
OPTIONS = {
    "--backend": ["numpy", "cupy", "torch", ""],
    "--devices": ["0", "1", "255", "0,0", "0,00", "-1", "", ",", "0,", "a", "9" * 5000, "10000", ",".join(map(str, range(300)))],
    "--parallel": ["auto", "data", "hybrid", "towers", "both", ""],
    "--model": ["tiny", "alexnet-2012", "net-145", "resnet", ""],
    "--data": ["digits", "mnist", "", ".", "/dev/null", "x" * 4400, "\udcff"],
    "--data-dir": ["/nonexistent", "", "x" * 4400, "/dev/null"],
    "--recipe": ["digits", "default", "deck", "alexnet-2012", "paper", ""],
    "--epochs": NUMBERS,
    "--batch-size": [*NUMBERS, "40", "1000000"],
    "--lr": [*NUMBERS, "0.01", "1e-300", "1e25", "1e308", "1e309"],
    "--dtype": ["float32", "float64", "float16"],
    "--precision": ["fp32", "tf32", "fp16", "int8"],
    "--seed": [*NUMBERS, str(2**63 - 1), str(2**63)],
    "--limit-train": [*NUMBERS, "7", "1437", "1438"],
    "--limit-test": [*NUMBERS, "7", "360", "361"],
    "--validation": [*NUMBERS, "0.2", "0.999", "40", "1000"],
    "--image-size": [*NUMBERS, "12"],
    "--init": ["/nonexistent", "", "/dev/null", "."],
    "--freeze": ["conv1", "conv,bn", "fc", "c,b,f", "x", "", ","],
    "--save-minutes": [*NUMBERS, "1e-9", "1e6", "1e7"],
    "--resume": ["/nonexistent", "", "/dev/null", "x" * 4400],
    "--parallel-universe": [""],
}


@st.composite
def command_lines(draw):
    """Valid and invalid options of train.py; the runs with valid ones are short."""
    chosen = draw(st.lists(st.sampled_from(list(OPTIONS)), max_size=3))
    return [word for option in chosen for word in (option, draw(st.sampled_from(OPTIONS[option])))]


def started(place: Path, options: list[str]) -> tuple[int, str]:
    """Start a run in an empty folder. It succeeds, fails, or is refused with one line; a refused run leaves no files."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    status, message = run(*TINY, "--epochs", 1, "--out", place / "new" / "run", *options)
    if status == 2:
        assert message and "\n" not in message and not list(place.iterdir()), message
    elif status == 1:
        assert "the loss" in message and "\n" not in message, message
    else:
        assert metrics(place / "new" / "run")
    return status, message
