"""The commands report and compare: what their pages contain, and what they refuse."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet import comparison, entry
from alexnet.commands import compare, report
from alexnet.lock import FolderLock
from minidl.errors import UserError

from ..helpers import experiments, reports

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert experiments.run(*experiments.TINY, "--epochs", "2", "--out", folder) == (0, "")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "a run")


def call(command, *arguments):
    """(standard output, standard error) of a command that succeeds."""
    output, errors = io.StringIO(), io.StringIO()
    with experiments.tiny_network(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        assert command.main([str(argument) for argument in arguments]) == 0
    return output.getvalue(), errors.getvalue()


def refused(command, *arguments):
    """The error line of a command that refuses these arguments."""
    with experiments.tiny_network(), pytest.raises(UserError) as error:
        command.main([str(argument) for argument in arguments])
    return str(error.value)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


# --- report -----------------------------------------------------------------------------------------------------------


def test_a_report_can_be_written_again(run):
    output, errors = call(report, run)
    assert (output, errors) == (f"{run / 'report.html'}\n", "")
    data = reports.embedded(run / "report.html")
    assert (data["name"], data["state"]) == ("a run", "finished")
    assert data["metrics"] == lines(run / "metrics.jsonl") and data["statistics"] == lines(run / "statistics.jsonl")
    seen = data["findings"]
    assert seen["images"] == 20 and seen["right"] / 20 == data["metrics"][-1]["test_accuracy"]
    assert [output["layer"] for output in seen["outputs"]] == ["conv1", "bn1", "relu1", "flatten", "drop", "fc2"]


def test_a_report_does_not_change_other_files_of_the_run(run):
    before = experiments.content(run)
    call(report, run)
    after = experiments.content(run)
    assert after.pop("report.html", None) and after == {k: v for k, v in before.items() if k != "report.html"}
    assert experiments.run("--resume", run, "--epochs", 3) == (0, "")  # the report has released the lock


def test_a_report_before_the_first_checkpoint_has_no_pictures(run):
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    output, errors = call(report, run)
    assert output and errors.endswith("warning: the report has no pictures: there is no checkpoint\n") and errors.count("\n") == 1
    data = reports.embedded(run / "report.html")
    assert data["findings"] is None and data["note"] == "There are no pictures: there is no checkpoint."
    assert (data["state"], data["metrics"]) == ("stopped", [])


@pytest.mark.parametrize("options", [[], ["--data-dir", "elsewhere"]])
def test_a_report_without_the_images_has_no_pictures(run, tmp_path, monkeypatch, options):
    """Nothing is downloaded."""
    monkeypatch.chdir(tmp_path)
    settings = json.loads((run / "config.json").read_text()) | {"data": "cifar10", "data_dir": str(tmp_path / "gone")}
    (run / "config.json").write_text(json.dumps(settings))
    _, errors = call(report, run, *options)
    place = tmp_path / (options[-1] if options else "gone")
    expected = f"CIFAR-10 is not in {place}; give its folder with --data-dir"
    assert errors.endswith(f"warning: the report has no pictures: {expected}\n") and errors.count("\n") == 1
    assert reports.embedded(run / "report.html")["note"] == f"There are no pictures: {expected}."


def test_a_report_with_a_damaged_checkpoint_has_no_pictures(run):
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    _, errors = call(report, run)
    assert errors.count("\n") == 1 and "the report has no pictures" in errors
    assert reports.embedded(run / "report.html")["findings"] is None


def test_a_report_with_pictures_is_not_replaced_by_one_without(run):
    call(report, run)
    file, before = run / "report.html", (run / "report.html").read_bytes()
    shutil.rmtree(run / "checkpoints")
    message = f"{file} has pictures, which cannot be drawn again (there is no checkpoint); rename it, and try again"
    assert refused(report, run) == message and file.read_bytes() == before
    file.rename(run / "first.html")
    for _ in range(2):
        assert "no pictures" in call(report, run)[1]
    file.unlink()
    os.mkfifo(file)  # reading it would wait for ever
    assert "is not a regular file; remove it" in refused(report, run)


def test_no_report_is_written_while_the_run_is_in_use(run):
    lock = FolderLock()
    lock.acquire(run)
    assert refused(report, run) == f"{run} is in use; the run there writes its report itself, after every epoch"
    lock.release()


@pytest.mark.parametrize("command", [report, compare])
def test_a_folder_that_is_no_run_is_refused(tmp_path, command):
    assert refused(command, tmp_path) == f"{tmp_path}: this is not a run, there is no {tmp_path / 'config.json'}"
    assert not list(tmp_path.iterdir())


def test_damaged_metrics_are_refused(run):
    (run / "metrics.jsonl").write_text("{}\n")
    for command in (report, compare):
        assert "metrics.jsonl is damaged" in refused(command, run)


def test_a_report_that_cannot_be_written_is_one_line(run):
    (run / "report.html").unlink(missing_ok=True)
    (run / "report.html").mkdir()
    message = refused(report, run)
    assert message.startswith("cannot write ") and "report.html is not a regular file" in message


# --- compare ----------------------------------------------------------------------------------------------------------


def test_runs_are_compared(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other" / "a run"
    assert experiments.run(*experiments.TINY, "--epochs", "1", "--lr", "0.005", "--out", other) == (0, "")
    assert call(compare, run, other) == ("compare.html\n", "")
    data = reports.embedded(tmp_path / "compare.html")
    assert [one["name"] for one in data["runs"]] == [f"{tmp_path.name}/a run", "other/a run"]
    assert [one["metrics"] for one in data["runs"]] == [lines(folder / "metrics.jsonl") for folder in (run, other)]
    assert [one["state"] for one in data["runs"]] == ["finished", "finished"]
    assert sorted(data["differing"]) == ["epochs", "lr"]
    assert [one["config"]["lr"] for one in data["runs"]] == [0.01, 0.005]
    assert {"model", "recipe", "threads", "numpy"} < set(data["keys"])


def test_a_run_in_use_can_be_compared(run, tmp_path):
    lock = FolderLock()
    lock.acquire(run)
    call(compare, run, "--out", tmp_path / "page.html")
    assert reports.embedded(tmp_path / "page.html")["runs"][0]["state"] == "running"
    lock.release()
    for _ in range(2):
        call(compare, run, "--out", tmp_path / "page.html")
        assert reports.embedded(tmp_path / "page.html")["runs"][0]["state"] == "finished"
    (run / FolderLock.FILE).unlink()
    call(compare, run, "--out", tmp_path / "page.html")
    assert not (run / FolderLock.FILE).exists()


def test_the_page_replaces_only_an_older_page(run, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("what was there before")
    assert call(compare, run, "--out", page)[0] == f"{page}\n" and reports.embedded(page)["runs"]
    (tmp_path / "folder.html").mkdir()
    for out, why in (
        (tmp_path / "folder.html", "is not a regular file"),
        (tmp_path / "gone" / "page.html", "there is no folder"),
    ):
        message = refused(compare, run, "--out", out)
        assert message.startswith(f"--out {out}: cannot write it: ") and why in message
    for out in (run, run / "config.json"):
        before = experiments.content(run)
        assert (
            refused(compare, run, "--out", out)
            == f"--out {out}: exists already and is not a page; give a name that ends with .html"
        )
        assert experiments.content(run) == before


def test_the_same_run_twice_is_refused(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    assert refused(compare, run, tmp_path / "link") == f"{run} is given twice"


def test_a_link_to_itself_is_not_a_run(run, tmp_path):
    (tmp_path / "link").symlink_to("link")
    assert refused(compare, run, tmp_path / "link") == f"{tmp_path}/link: this is not a run, there is no such folder"


@pytest.mark.parametrize(
    "paths, names",
    [
        (["a/x", "b/y"], ["x", "y"]),
        (["a/x", "b/x", "b/y"], ["a/x", "b/x", "b/y"]),
        (["a/q/x", "b/q/x"], ["a/q/x", "b/q/x"]),
        (["a"], ["a"]),
    ],
)
def test_runs_of_the_same_name_are_named_by_their_folders(paths, names):
    assert comparison.names([Path(path) for path in paths]) == names


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["report", "compare"])
def test_wrong_usage_is_one_line(tmp_path, command):
    for arguments in ([], ["gone", "--no-such-option"], ["gone"]):
        line = [sys.executable, "-m", "alexnet", command, *arguments]
        done = subprocess.run(line, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"alexnet {command}: error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [report, compare])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert not ended.value.code
    name = command.__name__.rpartition(".")[2]
    assert capsys.readouterr().out.startswith(f"usage: python -m alexnet {name} [-h]") and name in entry.COMMANDS
