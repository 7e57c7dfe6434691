"""Kernels on several threads: each part is done once, errors are raised, and BLAS gets its threads back."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import threadpoolctl

import alexnet
import minidl.functional as F
from minidl import Tensor, get_num_threads, random, set_num_threads
from minidl.kernels.memory import scratch
from minidl.threads import parallel


@pytest.fixture(autouse=True)
def four_threads():
    before = get_num_threads()
    set_num_threads(4)
    yield
    assert get_num_threads() == 4 and blas_threads() == 4
    set_num_threads(before)


def blas_threads():
    """The number of threads of NumPy's BLAS library; from OpenBLAS itself if possible, else from threadpoolctl."""
    library = max(threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers, key=lambda it: it.num_threads)
    names = ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_", "openblas_get_num_threads")
    itself = [getattr(library.dynlib, name) for name in names if hasattr(library.dynlib, name)]
    return itself[0]() if itself else library.num_threads


def on_another_thread(call):
    """Return or raise what call() returns or raises on another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def processor_time(compute):
    """The processor time of compute() in seconds: (of this thread, of the whole process)."""
    own, everyone = time.thread_time(), time.process_time()
    compute()
    return time.thread_time() - own, time.process_time() - everyone


def multiply():
    a = np.ones((1000, 1000))
    for _ in range(3):
        a @ a


def test_every_part_is_done_once_and_all_threads_work():
    together, done = threading.Barrier(4, timeout=10), []

    def work(part):
        if part < 4:
            together.wait()  # times out unless four threads work at once
        done.append((part, threading.get_ident(), blas_threads(), get_num_threads()))

    parallel(work, range(20))
    parts, threads, blas, told = zip(*done, strict=True)
    assert sorted(parts) == list(range(20)) and len(set(threads)) == 4
    assert set(blas) == {1} and set(told) == {4}


def test_blas_has_one_thread_in_parallel_parts_on_any_thread():
    together, told, own = threading.Barrier(4, timeout=10), [], []

    def work(_):
        together.wait()
        told.append(blas_threads())
        own.append(processor_time(multiply)[0])

    def call():
        _, everyone = processor_time(lambda: parallel(work, range(4)))
        return everyone, blas_threads(), processor_time(multiply)

    multiply()  # on the main thread, where BLAS's number of threads was set before
    time.sleep(0.2)  # until BLAS's threads stop waiting for work in a busy loop
    everyone, after, (own_after, everyone_after) = on_another_thread(call)
    assert told == [1] * 4 and after == 4 and blas_threads() == 4 and on_another_thread(blas_threads) == 4
    assert everyone < 1.3 * sum(own)  # BLAS's own threads did not work
    assert everyone_after > 2 * own_after  # they work again


def test_the_number_of_threads_may_be_set_on_any_thread():
    on_another_thread(lambda: set_num_threads(3))
    assert get_num_threads() == 3 and blas_threads() == 3
    set_num_threads(4)
    assert on_another_thread(blas_threads) == 4


def test_a_blas_library_may_keep_a_number_for_each_thread(monkeypatch):
    """MKL, and OpenBLAS built with OpenMP, keep a number of threads for each thread."""
    together, told, number = threading.Barrier(4, timeout=10), [], threading.local()

    class Library:
        num_threads = property(lambda self: getattr(number, "it", 4))

    library = Library()
    monkeypatch.setattr("minidl.threads._blas", [library])
    monkeypatch.setattr("minidl.threads._setters", [partial(setattr, number, "it")])

    def work(_):
        together.wait()
        told.append(library.num_threads)

    parallel(work, range(4))
    assert told == [1] * 4 and library.num_threads == 4


def test_an_error_of_a_part_is_raised():
    def work(part):
        if part == 3:
            raise ZeroDivisionError("part 3")

    with pytest.raises(ZeroDivisionError, match="part 3"):
        parallel(work, range(8))


def test_after_an_error_no_part_starts_and_none_is_still_running():
    done, failing = [], threading.Event()

    def work(part):
        if part == 3:
            failing.set()
            raise KeyboardInterrupt
        failing.wait(10)
        time.sleep(0.05)
        done.append(part)

    with pytest.raises(KeyboardInterrupt):
        parallel(work, range(1000))
    assert len(done) < 100
    count = len(done)
    time.sleep(0.2)
    assert len(done) == count


def test_nested_parts_are_done_in_order():
    done = [[] for _ in range(4)]
    parallel(lambda i: parallel(done[i].append, range(5)), range(4))
    assert done == [list(range(5))] * 4


def test_threads_use_the_errstate_of_their_caller():
    def overflow(_):
        np.float32(1e30) * np.full(2, 1e30, np.float32)

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        parallel(overflow, range(8))


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_wrong_numbers_of_threads_are_refused(n):
    with pytest.raises(ValueError, match="integer of at least 1; got"):
        set_num_threads(n)


def test_the_number_of_threads_may_be_a_numpy_integer():
    set_num_threads(np.int64(4))
    assert get_num_threads() == 4


def test_parallel_without_parts_calls_nothing():
    parallel(pytest.fail, [])


def test_each_thread_has_its_own_scratch_memory():
    together, seen = threading.Barrier(4, timeout=10), []

    def work(part):
        mine = scratch("test", (1000,), np.float64)
        mine.fill(part)
        together.wait()
        seen.append((mine == part).all())

    parallel(work, range(4))
    assert seen == [True] * 4


def make(seed):
    random.manual_seed(seed)
    return alexnet.create("cifar-lrn").to(dtype="float64"), np.random.default_rng(seed).standard_normal((6, 3, 32, 32))


def backward(net, images, seed):
    with random.context(seed, 0):
        F.cross_entropy(net(Tensor(images)), np.arange(6)).backward()


def test_two_nets_can_be_trained_at_once_on_two_threads():
    """In float64: BLAS uses another number of threads while the other net trains, and may add in another order."""
    alone = {seed: make(seed) for seed in (1, 2)}
    for seed, (net, images) in alone.items():
        backward(net, images, seed)
    together = {seed: make(seed) for seed in (1, 2)}
    threads = [threading.Thread(target=backward, args=(*both, seed)) for seed, both in together.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, (net, _) in together.items():
        for p, expected in zip(net.parameters(), alone[seed][0].parameters(), strict=True):
            np.testing.assert_allclose(p.grad, expected.grad, rtol=0, atol=1e-10 * abs(expected.grad).max())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_its_own_threads():
    parallel(lambda i: None, range(8))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            done = []
            parallel(done.append, range(8))
            status = sorted(done) != list(range(8))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
