"""Fixtures. A test with `device` runs on NumPy and on CuPy; without a GPU the CuPy run is skipped."""

import os
import signal
from functools import partial

import hypothesis
import numpy as np
import pytest

from minidl import Tensor
from minidl.backend import to_device, use_device
from minidl.errors import UserError

from .helpers import browser, parity_table

hypothesis.settings.register_profile("default", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# In the background or under nohup these signals are ignored, and the programs that the tests start would inherit that.
for name in ("SIGINT", "SIGHUP"):
    if signal.getsignal(number := getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


def pytest_terminal_summary(terminalreporter):
    if parity_table.ROWS:
        terminalreporter.section("parity with PyTorch")
        terminalreporter.write_line("\n".join(parity_table.lines()))


@pytest.fixture(params=["numpy", "cupy"], scope="session")
def device(request):
    try:
        use_device(request.param)
    except UserError as reason:
        pytest.skip(str(reason))
    return request.param


@pytest.fixture(scope="session")
def make(device):
    """make(shape) is a float64 tensor on the device, of distinct values that lie at least 0.01 apart and away from 0."""

    def make(*shape, seed=0):
        size = int(np.prod(shape))
        values = np.random.default_rng(seed).permutation(np.linspace(-1.5, 1.5, size + size % 2))[:size]
        return Tensor(to_device(values.reshape(shape), device), requires_grad=True)

    return make


@pytest.fixture(scope="session")
def chromium():
    """Headless Chromium; without it the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api")
    if browser.CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=browser.CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def show(chromium):
    """show(file, size, scheme, touch) is a context that opens a page: see browser.opened."""
    return partial(browser.opened, chromium)
