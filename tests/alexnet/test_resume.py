"""A damaged run or a random command line is refused with one line, or does not change the result."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import checkpoint

from ..helpers import experiments


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    return experiments.Baseline(tmp_path_factory.mktemp("baseline"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place") / "empty"


@pytest.mark.parametrize("damage", experiments.DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_run_is_refused_or_ends_the_same(baseline, tmp_path, damage):
    @given(st.data())
    def experiment(data):
        baseline.resume(tmp_path, lambda folder: damage(data.draw, folder))

    experiment()


OTHER = {
    "recipe": "default",
    "lr": 0.02,
    "momentum": 0.5,
    "weight_decay": 0.0,
    "bias_lr": 2.0,
    "bias_decay": False,
    "batch_size": 4,
    "schedule": "one-cycle",
    "step_epochs": 3,
    "crop_padding": 1,
    "reflection": True,
    "seed": 1,
    "limit_train": 41,
    "limit_test": None,
    "dtype": "float64",
}


@pytest.mark.parametrize("key, value", OTHER.items())
def test_a_setting_that_changes_the_result_is_not_changed_silently(baseline, tmp_path, key, value):
    def damage(folder):
        file = folder / "config.json"
        settings = json.loads(file.read_text())
        assert settings[key] != value
        file.write_text(json.dumps(settings | {key: value}))

    status, message = baseline.resume(tmp_path, damage)
    assert status == 2 and f"it was saved with {key} " in message


@pytest.mark.parametrize("key", ["epoch", "step", "batch", "loss", "correct", "seen", "seconds", "lr"])
def test_a_checkpoint_with_impossible_progress_is_not_used(baseline, tmp_path, key):
    """If the newest checkpoint has it, with right checksums, the previous one is used."""

    def damage(folder):
        file = experiments.checkpoints(folder)[-1]
        arrays, facts = checkpoint.load(file)
        facts["progress"][key] += 1
        checkpoint.save(file, arrays, facts)

    assert baseline.resume(tmp_path, damage) == (0, "")
    assert [file.name for file in (tmp_path / "run/checkpoints").glob("*.damaged")] == [
        "epoch-0002-step-000010.safetensors.damaged"
    ]


def test_a_repeated_line_of_metrics_is_refused(baseline, tmp_path):
    def twice(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join([*lines, lines[0]]))

    status, message = baseline.resume(tmp_path, twice)
    assert status == 2 and "is damaged (its epochs are not 1, 2, 3, ...)" in message


def test_a_changed_line_of_metrics_is_refused(baseline, tmp_path):
    def change(folder):
        row, *others = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join([json.dumps(json.loads(row) | {"train_loss": 0.5}) + "\n", *others]))

    status, message = baseline.resume(tmp_path, change)
    assert status == 2 and "the epochs in metrics.jsonl have changed since; put them back as they were" in message


@given(st.data())
def test_a_command_line_is_refused_or_runs(place, data):
    experiments.started(place, data.draw(experiments.command_lines()))
