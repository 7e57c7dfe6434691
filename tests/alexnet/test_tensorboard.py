"""The event files for TensorBoard, read back record by record."""

import os
import signal
import struct
import sys
from unittest import mock

import pytest

from alexnet.commands import train
from alexnet.tensorboard import TensorBoard

from ..helpers import experiments, ranks

tensorboardX = pytest.importorskip("tensorboardX")

LINUX = sys.platform == "linux"
METRICS = {"epoch": 1, "train_loss": 0.5, "test_loss": 0.75, "test_accuracy": 0.25, "lr": 0.125}


def sample(step, zeros=0.5):
    return {"epoch": 1, "step": step, "lr": 0.1, "layers": {"conv1": {"weight": 2.0, "zeros": zeros}, "relu1": {"zeros": 0.25}}}


def events(file):
    """The events of a file. Its checksums must be right."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    content, at = file.read_bytes(), 0
    while at < len(content):
        header = content[at : at + 8]
        (length,) = struct.unpack("<Q", header)
        event = content[at + 12 : at + 12 + length]
        checks = struct.unpack("<I", content[at + 8 : at + 12]) + struct.unpack("<I", content[at + 12 + length :][:4])
        assert checks == (masked_crc32c(header), masked_crc32c(event))
        yield Event.FromString(event)
        at += 16 + length


def shown(folder):
    """{tag: [(step, value), ...]} as TensorBoard shows them: a START event hides earlier points from its step on."""
    from tensorboardX.proto.event_pb2 import SessionLog

    curves = {}
    for file in sorted(folder.iterdir()):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                curves = {tag: [point for point in points if point[0] < event.step] for tag, points in curves.items()}
            for value in event.summary.value:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def test_events_are_read_as_they_were_written(tmp_path):
    writer = TensorBoard(tmp_path / "tensorboard")
    writer.add_statistics(sample(5))
    writer.add_metrics(METRICS, 10)
    expected = {
        "layers_weight/conv1": [(5, 2.0)],
        "layers_zeros/conv1": [(5, 0.5)],
        "layers_zeros/relu1": [(5, 0.25)],
        "loss/train": [(10, 0.5)],
        "loss/test": [(10, 0.75)],
        "accuracy/test": [(10, 0.25)],
        "run/lr": [(10, 0.125)],
    }
    assert shown(tmp_path / "tensorboard") == expected  # written at once: a kill loses nothing
    writer.close()
    assert shown(tmp_path / "tensorboard") == expected
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert next(events(file)).file_version == "brain.Event:2"


def test_a_resumed_run_shows_each_step_once(tmp_path):
    """It was killed after step 15, and is resumed from a checkpoint of step 10."""
    for first, steps, zeros in ((1, (5, 10, 15), 0.5), (11, (15, 20), 0.125), (21, (25,), 0.75)):
        writer = TensorBoard(tmp_path, first)
        for step in steps:
            writer.add_statistics(sample(step, zeros))
            writer.add_metrics(METRICS, step)
        writer.close()
    curves = shown(tmp_path)
    assert curves["layers_zeros/conv1"] == [(5, 0.5), (10, 0.5), (15, 0.125), (20, 0.125), (25, 0.75)]
    assert [step for step, _ in curves["loss/test"]] == [5, 10, 15, 20, 25]


def test_nothing_is_written_elsewhere_and_signal_handlers_are_kept(tmp_path, monkeypatch):
    """Memory is not shared either, as a queue to another process would."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    shared = ranks.shared_files(os.getpid()) if LINUX else set()
    writer = TensorBoard(tmp_path / "run")
    writer.add_metrics(METRICS, 1)
    assert not LINUX or ranks.shared_files(os.getpid()) == shared
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error(tmp_path):
    writer = TensorBoard(tmp_path)
    writer._file.close()
    writer._file._writer = full = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        writer.add_metrics(METRICS, 1)
    assert full.closed


def test_without_tensorboardx_an_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    refused = experiments.run(*experiments.TINY, "--tensorboard", "--out", tmp_path / "a")
    assert refused == (2, "--tensorboard: tensorboardX is not installed: pip install -e '.[tensorboard]'")
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_writes_a_new_event_file(tmp_path):
    """It says from which step on it counts, so that nothing is shown twice."""
    assert experiments.run(*experiments.TINY, "--tensorboard", "--epochs", 1, "--out", tmp_path / "a") == (0, "")
    assert experiments.run("--resume", tmp_path / "a", "--epochs", 2) == (0, "")
    files = sorted((tmp_path / "a/tensorboard").iterdir())
    assert len(files) == 2
    steps = [[event.step for event in events(file) if event.step] for file in files]
    assert max(steps[0]) == 5 and min(steps[1]) == 6 and max(steps[1]) == 10
    assert [step for step, _ in shown(tmp_path / "a/tensorboard")["loss/test"]] == [5, 10]


def test_event_files_that_cannot_be_written_are_a_warning(tmp_path, capsys):
    with experiments.tiny_network():
        with mock.patch("tensorboardX.RecordWriter.flush", side_effect=OSError(28, "No space left on device")):
            assert train.main([*experiments.TINY, "--tensorboard", "--epochs", "1", "--out", str(tmp_path / "a")]) == 0
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "warning: cannot write" in told.err and "No space left on device" in told.err
    assert "test loss: " in told.out
