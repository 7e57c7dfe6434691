"""Random numbers that do not depend on the device that draws them: Philox4x32-10, a counter-based generator.

A draw is a pure function of a key and a counter. So a dropout mask or a crop depends only on the seed, the step and the image,
not on the device, the division of the batch or earlier draws. Source: Salmon et al. 2011.

The key is the seed. The counter's four words are (block within the sample, stream, sample, time). Each purpose has its own
stream: each dropout layer, the crops, the shuffle. The time is the step or the epoch.
"""

import contextlib
import contextvars
import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from .partition import ceil_div

SHUFFLE, AUGMENTATION, SUBSET = 1 << 24, 2 << 24, 3 << 24  # streams below these are dropout's keys

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ten rounds of Philox4x32: four random 32-bit words (in uint64 arrays) for each counter.

    counter: four integers or integer arrays below 2**32 that broadcast together; key: two integers below 2**32.
    """
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = key
    for _ in range(10):
        left, right = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (right >> _HALF) ^ c1 ^ np.uint64(k0),
            right & _LOW,
            (left >> _HALF) ^ c3 ^ np.uint64(k1),
            left & _LOW,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(count: int, stream: int, samples, time: int, seed: int, first: int = 0) -> np.ndarray:
    """(count, len(samples)) random 32-bit words, in a uint64 array; column j depends on samples[j], not on j.

    They are the words from index `first` on in the sequence of each sample.
    """
    samples, start = np.asarray(samples, np.uint64), first % 4
    blocks = np.arange(first // 4, ceil_div(first + count, 4), dtype=np.uint64)[:, None]
    drawn = philox4x32((blocks, stream, samples, time), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return np.stack(np.broadcast_arrays(*drawn), axis=1).reshape(4 * len(blocks), len(samples))[start : start + count]


def normal(count: int, stream: int, samples, time: int, seed: int) -> np.ndarray:
    """(count, len(samples)) random numbers from N(0, 1), made from `words` by the Box-Muller transform."""
    uniform = (words(2 * count, stream, samples, time, seed) + 0.5) / 2.0**32
    return np.sqrt(-2 * np.log(uniform[:count])) * np.cos(2 * np.pi * uniform[count:])


def permutation(n: int, stream: int, time: int, seed: int) -> np.ndarray:
    """A random order of range(n), a pure function of its arguments."""
    high, low = words(2, stream, np.arange(n), time, seed)
    return np.argsort(high << _HALF | low, kind="stable")


@dataclasses.dataclass
class State:
    """The position in the run, on which a random mask depends besides the layer and the index of the element."""

    seed: int
    step: int
    first_sample: int = 0  # the index in the global batch of this device's first sample
    first_feature: int = 0  # the index of this device's first feature among those of all devices
    keys: Iterator[int] = dataclasses.field(default_factory=itertools.count)


_state: contextvars.ContextVar[State | None] = contextvars.ContextVar("state", default=None)
_default = State(seed=0, step=0)
_host = np.random.Generator(np.random.PCG64(0))


@contextlib.contextmanager
def context(seed: int, step: int, first_sample: int = 0):
    """Inside this context, the n-th dropout call draws the mask of (seed, step, n) for the samples from first_sample on.

    The same context gives the same masks each time it is entered.
    """
    token = _state.set(State(seed, step, first_sample))
    try:
        yield
    finally:
        _state.reset(token)


@contextlib.contextmanager
def part(first_sample: int, first_feature: int):
    """Inside this context, masks are drawn for the samples and features from these indices on; other devices have the rest."""
    state = _state.get() or _default
    before = state.first_sample, state.first_feature
    state.first_sample, state.first_feature = first_sample, first_feature
    try:
        yield
    finally:
        state.first_sample, state.first_feature = before


def manual_seed(seed: int) -> None:
    """Set the seed of draws outside a context: initial weights, and masks that differ from call to call."""
    global _default, _host
    _host = np.random.Generator(np.random.PCG64(seed))  # raises an error for a wrong seed
    _default = State(seed, 0)


def host_generator() -> np.random.Generator:
    """The NumPy generator of initial weights, which are drawn on the host for every device."""
    return _host


def next_draw(key: int | None = None) -> tuple[int, int, int, int, int]:
    """(seed, step, key, first_sample, first_feature) for one draw.

    Without a key, it is the next number of the context; outside a context, the step is the next one.
    """
    state = _state.get()
    if state is None:
        state = _default
        state.step += 1
        return state.seed, state.step, key or 0, state.first_sample, state.first_feature
    key = next(state.keys) if key is None else key
    return state.seed, state.step, key, state.first_sample, state.first_feature
