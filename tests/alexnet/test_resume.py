"""Whatever is wrong with a run's files, or a command line, is refused in a line, or makes no difference to the result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        baseline.go_on(tmp_path, lambda folder: damage(data.draw, folder))

    experiment()


@given(st.data())
def test_a_command_line_is_refused_or_goes_through(place, data):
    experiments.started(place, data.draw(experiments.command_lines()))
