"""The functions that the ranks run in tests/parallel: processes started by launch can import them."""

import contextlib
import ctypes
import itertools
import os
import pickle
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from unittest import mock

import numpy as np

import alexnet.launch
import minidl.functional as F
from alexnet import builders, memory, models, parallelism, saving, training
from alexnet.config import Config
from alexnet.devices import join
from alexnet.run import RunFolder
from alexnet.statistics import LayerStatistics
from minidl import Tensor
from minidl.backend import to_device, to_numpy, use_device
from minidl.data import DataLoader
from minidl.errors import NotFiniteError, UserError
from minidl.nn import init
from minidl.optim import SGD
from minidl.parallel import DataParallel, collectives, hybrid, mpi, towers
from minidl.parallel.communicator import Communicator, timeout
from minidl.parallel.sharding import rows_of, sharded_parameters, shards, whole_arrays
from minidl.partition import shard
from minidl.selftest import devices


def sums(communicators, stop, shapes, dtype):
    """Check each collective against its definition. Returns the sums of the arrays."""
    results = []
    rank, size = communicators.rank, communicators.size
    for communicator in communicators:
        for shape in shapes:
            array = values(rank, shape, dtype)
            communicator.all_reduce(array)
            np.testing.assert_array_equal(array, sum(values(r, shape, dtype) for r in range(size)))
            gathered = communicator.all_gather(values(rank, shape, dtype))
            np.testing.assert_array_equal(gathered, np.stack([values(r, shape, dtype) for r in range(size)]))
            array = values(rank, shape, dtype)
            communicator.broadcast(array, root=size - 1)
            np.testing.assert_array_equal(array, values(size - 1, shape, dtype))
            communicator.barrier()
            results.append(float(array.sum()))
    return results


def values(rank, shape, dtype):
    return np.asarray(np.arange(np.prod(shape)).reshape(shape) % 1000 + 10 * rank, dtype)


def one_after_the_other(communicators, stop, times):
    """How often a collective overwrote the result of the previous one, which a slower rank may not have read yet."""
    rank, size = communicators.rank, communicators.size
    main, wrong = communicators.main, 0
    for i in range(times):
        total, root = np.full(1000, float(rank + i)), np.full(1000, float(i))
        main.all_reduce(total)
        main.broadcast(root, root=i % size)
        rows = main.all_gather(np.full(1000, float(rank)))
        again = np.full(1000, float(rank))
        main.all_reduce(again)
        wrong += (total != size * i + sum(range(size))).any() or (root != i).any()
        wrong += (rows != np.arange(size)[:, None]).any() or (again != sum(range(size))).any()
    one = np.array([int(wrong)])
    main.all_reduce(one)
    return int(one[0])


def asynchronous_sums(communicators, stop):
    """Slices of a buffer, reduced while the other communicator does collectives too."""
    buffer = np.arange(1000.0) + communicators.rank
    works = [communicators.gradients.all_reduce(buffer[i : i + 100], async_op=True) for i in range(0, 1000, 100)]
    for _ in range(5):
        one = np.ones(1)
        communicators.main.all_reduce(one)
        assert one[0] == communicators.size
    for work in works:
        work.wait()
    return buffer


def different_collectives(communicators, stop):
    if communicators.rank:
        communicators.main.barrier()
    else:
        communicators.main.all_reduce(np.ones(3))


COLLECTIVES = ["gather", "gather for some", "reduce_scatter", "all_to_all"]


def collective(kind, axis, x, communicator):
    """One function of collectives.py on this rank's x. Shard sizes: 0, 1, 2, ... along the axis, equal on the other."""
    size = communicator.size
    uneven = list(range(size))
    if kind == "gather":
        return collectives.gather(x, communicator, axis)
    if kind == "gather for some":
        return collectives.gather(x, communicator, axis, uneven, readers=[size - 1])
    if kind == "reduce_scatter":
        return collectives.reduce_scatter(x, communicator, axis, uneven)
    return collectives.all_to_all(x, communicator, axis, uneven, 1 - axis, shards(5, size))


def collective_is_its_definition(communicators, stop, kind, axis, ndim, device="numpy"):
    """Check y, and by finite differences in float64 every gradient, on all ranks. Returns the largest error of a gradient."""
    communicator = on_gpu(communicators).main if device == "cupy" else communicators.main
    rank, size = communicator.rank, communicator.size
    sizes = list(range(size))
    lengths = [sum(sizes), 5] if axis == 0 else [5, sum(sizes)]
    whole = np.random.default_rng(0).standard_normal((size, *lengths, *[2] * (ndim - 2)))
    own = [slice(None)] * ndim
    own[axis] = rows_of(sizes, rank)
    part = whole[rank] if kind == "reduce_scatter" else whole[0][tuple(own)]

    def call(values):
        return collective(
            kind, axis, Tensor(to_device(values, f"cupy:{rank}" if device == "cupy" else device), True), communicator
        )

    expected = whole[0]
    if kind == "gather for some" and rank != size - 1:
        expected = expected[:0, :]
    elif kind == "reduce_scatter":
        expected = whole.sum(axis=0)[tuple(own)]
    elif kind == "all_to_all":
        other = [slice(None)] * ndim
        other[1 - axis] = rows_of(shards(5, size), rank)
        expected = expected[tuple(other)]
    np.testing.assert_allclose(to_numpy(call(part).data), expected, rtol=1e-14)

    weights = np.random.default_rng(rank + 1).standard_normal(expected.shape)

    def loss(values):
        """The sum over all ranks."""
        total = np.array([(to_numpy(call(values).data) ** 2 * weights).sum()])
        communicator.host.all_reduce(total)
        return total[0]

    x = Tensor(to_device(part, f"cupy:{rank}" if device == "cupy" else device), True)
    y = collective(kind, axis, x, communicator)
    y.backward(to_device(2 * to_numpy(y.data) * weights, f"cupy:{rank}" if device == "cupy" else device))
    error = np.zeros(1)
    for other in range(size):
        shape = (
            whole[0].shape if kind == "reduce_scatter" else whole[0].take(range(*rows_of(sizes, other).indices(99)), axis).shape
        )
        for place in np.ndindex(*shape):
            losses = []
            for step in (1e-5, -1e-5):
                values = part.copy()
                if other == rank:
                    values[place] += step
                losses.append(loss(values))
            if other == rank:
                difference = (losses[0] - losses[1]) / 2e-5 - to_numpy(x.grad)[place]
                error[0] = max(error[0], abs(difference))
    gathered = communicator.host.all_gather(error)
    return float(gathered.max())


def zeros(model, classes=None, image_size=None):
    """A network whose parameters are zero: to draw initial weights takes time."""
    with init.skipped():
        net = alexnet.create(model, classes, image_size=image_size)
    for array in net.state_dict().values():
        array[...] = 0
    return net


def sent_in_a_step(communicators, stop, model, image_size, parallel, batch_size):
    """(bytes that all ranks send in a training step, from forward to the sums of gradients; bytes that this rank keeps)."""
    net = zeros(model, 10, image_size)
    communicator = communicators.main
    if parallel == "hybrid":
        hybrid(net, communicator)
    elif parallel == "towers":
        towers(net, communicator, (models.SameMapNorm,))
    optimizer = SGD(net.parameters(), 0.01, 0.9)
    engine = DataParallel(net, optimizer, communicators)
    mine = slice(0, batch_size) if parallel == "towers" else shard(batch_size, communicator.rank, communicator.size)
    x = Tensor(np.zeros((batch_size, 3, image_size, image_size), np.float32)[mine])
    labels = np.zeros(batch_size if parallel == "towers" and not communicator.rank else 0, np.int64)
    labels = labels if parallel == "towers" else np.zeros(len(x.data), np.int64)
    before = communicators.sent
    loss = F.cross_entropy(net(x), labels, reduction="sum") / batch_size
    optimizer.zero_grad()
    loss.backward()
    engine.synchronize()
    sent = np.array([communicators.sent - before])
    communicator.all_reduce(sent)
    kept = sum(p.data.nbytes + p.grad_buffer.nbytes for p in optimizer.parameters)
    return int(sent[0]), kept + sum(v.nbytes for v in optimizer.momentum_buffers)


def selftest_with_a_wrong(communicators, stop, name, rank, expected):
    """The checks of the self-test if a rank gets a wrong last element from one of the collectives: all_reduce or exchange."""
    collective = getattr(Communicator, name)

    def wrong(self, *args, **options):
        result = collective(self, *args, **options)
        if name == "all_reduce":
            result.wait()
        array = args[0] if name == "all_reduce" else result[1 - self.rank]
        if self.rank == rank:
            array.reshape(-1)[-1:] += 1
        return result

    with mock.patch.object(Communicator, name, wrong):
        return devices.check(communicators, stop, "numpy", [0, 1], expected, 1)


def fail(communicators, stop, how):
    """Rank 1 fails, while the others are in a collective."""
    if communicators.rank == 1:
        if how == "raise":
            raise ZeroDivisionError("so it goes")
        if how == "not finite":
            raise NotFiniteError("the loss is nan")
        if how == "user":
            raise UserError("no such file; look elsewhere")
        if how == "leave":
            return "done"
        if how == "exit":
            os._exit(3)
        if how == "hang":
            time.sleep(1000)
        os.kill(os.getpid(), getattr(signal, how))
    communicators.main.all_reduce(np.ones(3))
    return "done"


def shared_files(pid):
    """The names of the files in /dev/shm that a process has mapped or open; they may have been removed since."""
    held = [Path(f"/proc/{pid}/maps").read_text()]
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            held.append(os.readlink(descriptor))
    return set(re.findall(r"/dev/shm/\S+", "\n".join(held)))


def tell_and_fail(communicators, stop, folder, how):
    """Call fail after each rank has written the names of its shared files into the folder."""
    (folder / f"rank {communicators.rank}").write_text("\n".join(shared_files(os.getpid())))
    communicators.main.barrier()
    fail(communicators, stop, how)


def wait_to_stop(communicators, stop, at_work):
    """The number of steps until the stop. After three steps the file at_work is made: all ranks are running."""
    flag = np.zeros(1)
    steps = 0
    while not flag[0]:
        flag[0] = stop()
        communicators.main.all_reduce(flag)
        steps += 1
        if steps == 3:
            at_work.touch()
    return steps


def train(communicators, stop, config: Config):
    """An epoch of a run and an evaluation: the loss, and some of the weights, velocities and running statistics."""
    device, communicators = join(config.backend, config.devices, config.precision, config.threads, communicators)
    dataset = builders.load_dataset(config)
    config = builders.found(config, dataset)
    subset = dataset.train.first(config.limit_train, "--limit-train")
    transform = builders.training_transform(config)
    rank = communicators.rank
    share = {"rank": rank, "size": communicators.size}
    if config.parallel == "towers" and communicators.size > 1:
        share = {"labelled": rank == 0}
    loader = DataLoader(
        subset.images, subset.labels, config.recipe.batch_size, transform, shuffle=True, seed=config.seed, **share
    )
    model = builders.build_model(config)
    if rank:
        for parameter in model.parameters():  # rank 0's parameters must replace them
            parameter.data[...] = np.nan
    parallelism.divide(model, config.parallel if communicators.size > 1 else "data", communicators)
    model.to(device)
    optimizer = builders.build_optimizer(config, model)
    scheduler, _ = builders.build_schedules(config, optimizer, 1000)
    parallel = DataParallel(model, optimizer, communicators, bucket_bytes=1 << 16)
    progress = training.Progress()
    rows = []
    statistics = LayerStatistics(model, optimizer, communicators, 3, rows.append)
    training.train_one_epoch(
        model, optimizer, scheduler, loader, progress, seed=config.seed, parallel=parallel, statistics=statistics
    )
    statistics.flush()
    test = dataset.test.first(11, "--limit-test")
    test_loader = DataLoader(test.images, test.labels, config.recipe.batch_size, builders.normalization(config), **share)
    evaluation, _ = training.evaluate(model, test_loader, communicators=communicators)
    sizes = {f"{k}.{name}": rows for name, rows in sharded_parameters(model).items() for k in ("model", "velocity")}
    dataset.close()
    whole = whole_arrays(saving.arrays(model, optimizer), sizes, communicators.main)
    state = {name: to_numpy(array) for name, array in whole.items()}
    return {
        "loss": progress.loss,
        "correct": progress.correct,
        "test loss": evaluation.loss,
        "predictions": evaluation.predictions,
        "statistics": np.array([v for row in rows for layer in row["layers"].values() for v in layer.values()]),
        **{name: array.reshape(-1)[:: max(1, array.size // 1000)].copy() for name, array in state.items()},
    }


def train_with_nan(communicators, stop, config, name):
    """train, with a parameter that is NaN on rank 1."""
    divide = parallelism.divide

    def spoil(model, *args):
        divide(model, *args)
        if communicators.rank == 1:
            dict(model.named_parameters())[name].data[...] = np.nan

    parallelism.divide = spoil
    try:
        train(communicators, stop, config)
    finally:
        parallelism.divide = divide


class OutOfMemoryError(MemoryError):
    """Has the name and the base of CuPy's error."""


def fill_memory(communicators, stop, config: Config, most):
    """Train on a device that has memory for at most `most` images; larger batches fail on the last rank only."""

    def step(logits, labels):
        if len(logits.data) > most:
            raise OutOfMemoryError("out of memory")
        return cross_entropy(logits, labels)

    def fit(*args, communicators, **options):
        if communicators.rank == communicators.size - 1:
            raise OutOfMemoryError("out of memory")
        communicators.main.barrier()

    cross_entropy, memory.F.cross_entropy, fit_before = memory.F.cross_entropy, step, alexnet.launch.fit
    alexnet.launch.fit = fit
    try:
        alexnet.launch._train(communicators, stop, RunFolder(Path(), config), None, False)
    finally:
        memory.F.cross_entropy, alexnet.launch.fit = cross_entropy, fit_before


def on_gpu(communicators):
    """Communicators for this rank on the GPU with its number."""
    from minidl.parallel import nccl

    use_device(f"cupy:{communicators.rank}")
    return nccl.communicators(communicators, timeout())


def sums_of_gpus(communicators, stop, shapes, dtype):
    import cupy

    rank, size = communicators.rank, communicators.size
    for communicator in on_gpu(communicators):
        for shape in shapes:
            array = cupy.asarray(values(rank, shape, dtype))
            communicator.all_reduce(array)
            np.testing.assert_array_equal(array.get(), sum(values(r, shape, dtype) for r in range(size)))
            gathered = communicator.all_gather(cupy.asarray(values(rank, shape, dtype)))
            np.testing.assert_array_equal(gathered.get(), np.stack([values(r, shape, dtype) for r in range(size)]))
            array = cupy.asarray(values(rank, shape, dtype))
            communicator.broadcast(array, root=size - 1)
            communicator.barrier()
            np.testing.assert_array_equal(array.get(), values(size - 1, shape, dtype))


def train_with(communicators, stop, bug, config):
    """train, with one of its waits or references removed."""
    import cupy

    from minidl.parallel import input_batches, nccl

    class Unordered(cupy.cuda.Stream):
        def wait_event(self, event):
            pass

    if bug == "the sum is read too early":
        nccl.Pending.wait = lambda self: None
    elif bug == "the sum begins too early":
        made = nccl.NCCLCommunicator.__init__

        def without_waits(self, *args):
            made(self, *args)
            self._stream = Unordered(non_blocking=True)

        nccl.NCCLCommunicator.__init__ = without_waits
    elif bug == "a batch is overwritten":
        input_batches.SLOTS = 1
        input_batches.Slot.guard = lambda self, stream: None
    elif bug == "a buffer is freed too early":
        copy = input_batches.Slot.copy

        def copy_and_free(self, arrays, stream):
            copies = copy(self, arrays, stream)
            self.pinned, self.size = None, 0
            return copies

        input_batches.Slot.copy = copy_and_free
    elif bug == "a batch is read too early":
        input_batches.Slot.publish = lambda self, stream: None
    return train(communicators, stop, config)


def waits_of_steps(communicators, stop, config):
    """The number of times that each step waited for the GPU."""
    counts = []
    optimizer_step = SGD.step

    def step(self, loss):
        optimizer_step(self, loss)
        library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libsimgpu" in line)
        counts.append(ctypes.CDLL(library).simgpu_host_waits())

    SGD.step = step
    try:
        train(communicators, stop, config)
    finally:
        SGD.step = optimizer_step
    return [later - earlier for earlier, later in itertools.pairwise(counts)]


def gpus_out_of_order(communicators, stop):
    import cupy

    ours = on_gpu(communicators)
    one, two = cupy.ones(3), cupy.ones(5)
    for array in (one, two) if communicators.rank else (two, one):
        ours.main.all_reduce(array)
    cupy.cuda.Device().synchronize()


def a_gpu_is_missing(communicators, stop):
    import cupy

    ours = on_gpu(communicators)
    if communicators.rank:
        time.sleep(1000)
    ours.main.all_reduce(cupy.ones(3))
    cupy.cuda.Device().synchronize()


def main():
    """One rank under mpiexec. Arguments: FILE, a pickle of (function name, arguments), then of rank 0's result; SECONDS."""
    file, seconds = Path(sys.argv[1]), float(sys.argv[2])
    name, args = pickle.loads(file.read_bytes())
    communicators = mpi.communicators(seconds)
    try:
        result = globals()[name](communicators, lambda: False, *args)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        mpi.abort(1)
    communicators.main.barrier()
    if communicators.rank == 0:
        file.write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main()
