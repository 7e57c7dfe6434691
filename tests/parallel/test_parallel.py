"""Several devices: processes of this machine with shared memory, and what happens if one fails."""

import contextlib
import copy
import dataclasses
import errno
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alexnet.commands import train
from alexnet.recipes import RECIPES
from alexnet.run import RunFolder
from minidl import Tensor, checkpoint, nn
from minidl.errors import NotFiniteError, TrainingError, UserError
from minidl.parallel import ALONE, launch, mpi
from minidl.parallel import processes as launched
from minidl.parallel.communicator import timeout
from minidl.parallel.shared_memory import SLOT_BYTES
from minidl.parallel.sync_batch_norm import synchronize_batch_norm
from minidl.partition import shard

from ..helpers import processes, ranks

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and /dev/shm")


def mpiexec(folder, size, function, *args, timeout=60):
    """(exit status, rank 0's result, output) of a function in ranks.py, called on ranks that MPI starts."""
    pytest.importorskip("mpi4py")
    file = folder / "call"
    file.write_bytes(pickle.dumps((function.__name__, args)))
    command = [
        Path(sys.executable).parent / "mpiexec",
        "-n",
        str(size),
        sys.executable,
        "-m",
        "tests.helpers.ranks",
        file,
        str(timeout),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, None if done.returncode else pickle.loads(file.read_bytes()), done.stdout + done.stderr


@pytest.fixture(params=["shared memory", "mpi"])
def call(request, tmp_path):
    """call(size, function, *args) runs the function on `size` ranks and returns rank 0's result."""
    if request.param == "shared memory":
        return launch

    def call(*args):
        status, result, output = mpiexec(tmp_path, *args)
        assert status == 0, output
        return result

    return call


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_collectives(call, size, dtype):
    shapes = [(), (0,), (1,), (7, 5), (SLOT_BYTES // np.dtype(dtype).itemsize * 2 + 3,)]
    call(size, ranks.sums, shapes, dtype)


def test_the_communicator_of_one_device():
    ranks.sums(ALONE, None, [(), (0,), (3, 2)], "float32")
    np.testing.assert_array_equal(ranks.asynchronous_sums(ALONE, None), np.arange(1000.0))


def test_a_collective_does_not_overwrite_the_previous_result(call):
    assert call(3, ranks.one_after_the_other, 400) == 0


def test_asynchronous_reductions(call):
    np.testing.assert_array_equal(call(3, ranks.asynchronous_sums), 3 * np.arange(1000.0) + 3)


def test_arrays_that_are_not_contiguous_are_refused():
    with pytest.raises(TrainingError, match="ValueError: a collective takes C-contiguous arrays"):
        launch(2, not_contiguous)


def not_contiguous(communicators, stop):
    communicators.main.all_reduce(np.zeros((4, 4))[:, ::2])


@pytest.mark.parametrize("n, size", [(0, 3), (2, 3), (7, 3), (128, 2)])
def test_shards(n, size):
    shards = [range(n)[shard(n, rank, size)] for rank in range(size)]
    assert [i for part in shards for i in part] == list(range(n))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


# --- the devices never change the result ------------------------------------------------------------------------------

BATCH = 7
IMAGES, FEW_IMAGES = (BATCH * (steps - 1) + 2 for steps in (20, 6))  # the last batch has fewer images than three devices


def config(model, dtype="float64", images=IMAGES, parallel="data"):
    """A short run of workers with one thread."""
    options = ["--parallel", parallel]
    options += ["--data", "digits", "--model", model, "--dtype", dtype, "--batch-size", str(BATCH), "--limit-train", str(images)]
    return dataclasses.replace(train.config(train.parser().parse_args(options)), threads=1)


def close(a, b, rtol):
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=rtol * max(1e-3, np.abs(b[name]).max()), err_msg=name)


CASES = ["small-bn data", "small-lrn data", "cifar-bn hybrid", "cifar-lrn hybrid"]  # small-* have no large linear layers


@pytest.fixture(scope="module", params=CASES)
def alone(request):
    """(settings for several devices, the result of one device)."""
    model, parallel = request.param.split()
    images = IMAGES if parallel == "data" else FEW_IMAGES
    return config(model, images=images, parallel=parallel), launch(1, ranks.train, config(model, images=images))


@pytest.mark.parametrize("size", [2, 3])
def test_devices_do_not_change_the_result(call, alone, size):
    """Also with dropout and augmentation, and with batches that they do not divide evenly."""
    settings, expected = alone
    result = call(size, ranks.train, settings)
    assert result["correct"] == expected["correct"]
    close(result, expected, 1e-9)


def test_devices_do_not_change_one_step_in_float32():
    expected, result = (launch(size, ranks.train, config("cifar-bn", "float32", BATCH)) for size in (1, 2))
    assert result["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    velocities = [name for name in expected if name.startswith("velocity.")]
    largest = max(np.abs(expected[name]).max() for name in velocities)
    assert largest > 1e-3
    for name in velocities:
        np.testing.assert_allclose(result[name], expected[name], rtol=0, atol=1e-4 * largest, err_msg=name)


@pytest.mark.parametrize("kind, shape", [(nn.BatchNorm1d, (5, 3)), (nn.BatchNorm1d, (2, 3, 4)), (nn.BatchNorm2d, (2, 3, 4, 4))])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_batch_norm_over_one_rank_gives_the_same_as_batch_norm(kind, shape, dtype):
    """On one rank, for tensors and arrays, in training and in evaluation."""
    net = nn.Sequential({"inner": nn.Sequential(kind(3))}).to(dtype=dtype)
    alone = copy.deepcopy(net)
    synchronize_batch_norm(net, ALONE.main)
    assert type(net.inner[0]).__name__ == f"Sync{kind.__name__}" and list(net.state_dict()) == list(alone.state_dict())
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for given in (x, Tensor(x)):
        for mode in (True, False):
            one, other = net.train(mode)(given), alone.train(mode)(given)
            np.testing.assert_array_equal(one.data, other.data)
            assert one.dtype == dtype
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, alone.state_dict()[name])
    with pytest.raises(ValueError, match="put it into a Sequential"):
        synchronize_batch_norm(kind(3), ALONE.main)


def test_a_subclass_of_batch_norm_keeps_its_forward_over_ranks():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) * 2

    net = nn.Sequential(Doubled(3))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    expected = copy.deepcopy(net)(x).data
    synchronize_batch_norm(net, ALONE.main)
    assert type(net[0]).__name__ == "SyncDoubled"
    for one in (net, copy.deepcopy(net)):
        np.testing.assert_array_equal(one(x).data, expected)


# --- failure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, message",
    [
        ("raise", "^rank 1 raised ZeroDivisionError: so it goes$"),
        ("not finite", "^the loss is nan$"),
        ("exit", "^rank 1 ended with exit status 3$"),
        ("SIGKILL", "^rank 1 was killed by SIGKILL$"),
        ("SIGABRT", "^rank 1 was killed by SIGABRT$"),
        ("SIGSEGV", "^rank 1 was killed by SIGSEGV$"),
    ],
)
def test_a_failing_rank_ends_all(how, message):
    with pytest.raises(TrainingError, match=message) as raised:
        launch(3, ranks.fail, how)
    assert isinstance(raised.value, NotFiniteError) == (how == "not finite")
    if how == "raise":
        assert str(raised.value.__cause__).startswith("Traceback") and "in fail" in str(raised.value.__cause__)


def test_a_hanging_rank_ends_all():
    with pytest.raises(TrainingError, match=r"rank 1 did not reach all_reduce of 3 float64.* within 2 s"):
        launch(3, ranks.fail, "hang", timeout=2)


@LINUX
@pytest.mark.parametrize(
    "how, message",
    [
        ("raise", "ZeroDivisionError: so it goes"),
        ("SIGKILL", "Killed .signal 9"),
        ("hang", "timed out in .*: another rank hangs"),
    ],
)
def test_a_failing_rank_ends_all_under_mpi(tmp_path, how, message):
    started = time.monotonic()
    status, _, output = mpiexec(tmp_path, 3, ranks.tell_and_fail, tmp_path, how, timeout=2)
    assert status and re.search(message, output), output
    assert time.monotonic() - started < 30  # the harness would wait 300 s
    unnamed([name for rank in range(3) for name in (tmp_path / f"rank {rank}").read_text().split()])


@LINUX
def test_a_stopped_rank_ends_all():
    with pytest.raises(TrainingError, match="rank 1 did not reach"):
        launch(2, ranks.fail, "SIGSTOP", timeout=2)
    assert not processes.workers(os.getpid())


def test_a_rank_that_ends_before_the_others_is_noticed():
    """It raises nothing; the others are in a collective."""
    message = r"rank 0 lost contact with the other ranks: (another rank|rank \d) has ended while rank 0 was in all_reduce of 3 "
    with pytest.raises(TrainingError, match=message):
        launch(3, ranks.fail, "leave")


def test_a_user_error_of_a_rank_is_raised_as_one():
    with pytest.raises(UserError, match="^no such file; look elsewhere$"):
        launch(2, ranks.fail, "user")


def test_ranks_that_call_different_collectives_are_noticed():
    with pytest.raises(TrainingError, match=r"rank \d is in .*, but rank \d is in "):
        launch(2, ranks.different_collectives)


def test_all_stop_at_the_same_step(tmp_path):
    at_work = tmp_path / "at work"
    assert launch(3, ranks.wait_to_stop, at_work, stop=at_work.exists) > 3


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf"])
def test_an_invalid_timeout_is_refused(monkeypatch, text):
    monkeypatch.setenv("MINIDL_TIMEOUT", text)
    with pytest.raises(UserError, match=f"MINIDL_TIMEOUT={text}: give a number of seconds above 0"):
        timeout()


class Run:
    """A context that runs train.py in a process group of its own, and kills the group at the end."""

    def __init__(self, folder, *options, **environment):
        command = [sys.executable, str(ROOT / "train.py"), *options]
        settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self.process = subprocess.Popen(
            command, cwd=folder, env=settings, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def until_it_trains(self, folder):
        """Wait for its first epoch and return the ids of its workers. None of its processes may have a file in /dev/shm."""
        processes.wait_for_epochs(self.process, folder)
        everyone = [self.process.pid, *processes.children(self.process.pid)]
        assert not set().union(*map(ranks.shared_files, everyone))
        return processes.workers(self.process.pid)

    def ends(self, seconds=60):
        """Wait for its end and return (exit status, standard error, standard output)."""
        output, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors, output


def gone(pids, seconds=60):
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)


def unnamed(files):
    """The processes had files in /dev/shm, and all are removed. Files of other programs may be there."""
    assert files and not [file for file in files if Path(file).exists()]


DIGITS = ["--data", "digits", "--model", "small-bn", "--limit-train", "64", "--limit-test", "10"]
TWO = [*DIGITS, "--devices", "0,1", "--epochs", "500", "--out", "run"]


@LINUX
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_ends_the_run(tmp_path, which, signum):
    with Run(tmp_path, *TWO, MINIDL_TIMEOUT="8") as run:
        workers = run.until_it_trains(tmp_path / "run")
        assert len(workers) == 2
        os.kill(workers[which], signum)
        status, errors, _ = run.ends()
        assert status == 1
        expected = "was killed by SIGKILL" if signum == signal.SIGKILL else "(did not reach|did not respond)"
        assert re.search(f"train.py: training failed: .*rank {which} {expected}", errors), errors
        gone(workers)


@LINUX
def test_the_workers_end_if_their_parent_is_killed(tmp_path):
    with Run(tmp_path, *TWO) as run:
        everyone = [*run.until_it_trains(tmp_path / "run"), *processes.children(run.process.pid)]
        run.process.kill()
        gone(everyone)


@LINUX
@pytest.mark.parametrize("signum, group, status", [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)])
def test_a_signal_saves_the_run_and_ends_all_processes(tmp_path, signum, group, status):
    with Run(tmp_path, *TWO) as run:
        workers = run.until_it_trains(tmp_path / "run")
        (os.killpg if group else os.kill)(run.process.pid, signum)
        code, errors, _ = run.ends()
        assert code == status and "stopped and saved; resume with: python train.py --resume run" in errors, errors
        gone(workers)
    folder = RunFolder.read(tmp_path / "run")
    files = folder.checkpoints()
    assert 1 <= len(files) <= 3 and sorted((tmp_path / "run/checkpoints").iterdir()) == sorted(files)  # the newest two, the best
    assert checkpoint.load(files[-1])[1]["progress"]["epoch"] == len(folder.metrics()) >= 1


@LINUX
def test_a_second_signal_ends_all_processes_at_once(tmp_path):
    with Run(tmp_path, *TWO, MINIDL_TIMEOUT="60") as run:
        workers = run.until_it_trains(tmp_path / "run")
        os.kill(workers[1], signal.SIGSTOP)  # so that the first signal cannot end the run
        run.process.send_signal(signal.SIGINT)
        time.sleep(1)
        run.process.send_signal(signal.SIGTERM)
        status, errors, _ = run.ends()
        assert status == 143 and re.fullmatch("train.py: stopped at once; .*\n", errors)
        gone(workers)


@LINUX
def test_a_suspended_run_may_pause_longer_than_the_timeout(tmp_path):
    def epochs():
        return len((tmp_path / "run/metrics.jsonl").read_text().splitlines())

    with Run(tmp_path, *TWO, MINIDL_TIMEOUT="5") as run:
        run.until_it_trains(tmp_path / "run")
        os.killpg(run.process.pid, signal.SIGSTOP)
        time.sleep(10)
        before = epochs()
        os.killpg(run.process.pid, signal.SIGCONT)
        deadline = time.monotonic() + 60
        while epochs() == before:
            assert run.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        run.process.send_signal(signal.SIGHUP)
        status, errors, _ = run.ends()
        assert status == 129 and errors == "train.py: stopped and saved; resume with: python train.py --resume run\n"


def test_a_process_that_does_not_start_is_reported_with_the_limit_of_the_start(monkeypatch):
    monkeypatch.setattr(launched, "START", 0.02)
    monkeypatch.setattr(launched, "TICK", 0.005)
    with pytest.raises(TrainingError, match=r"^rank \d did not respond for 0\.02 s "):
        launch(2, ranks.fail, "hang", timeout=0.01)


@LINUX
def test_stopping_all_workers_ends_the_run(tmp_path):
    with Run(tmp_path, *TWO, MINIDL_TIMEOUT="5") as run:
        workers = run.until_it_trains(tmp_path / "run")
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        status, errors, _ = run.ends()
        assert status == 1 and re.fullmatch("train.py: training failed: rank 0 did not respond for 9 s .*\n", errors)
        gone(workers)


def test_without_shared_memory_an_error_says_what_to_do(monkeypatch):
    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "memfd_create", full, raising=False)
    with pytest.raises(UserError, match="^cannot start 2 processes .No space left on device.; use fewer devices$"):
        launch(2, ranks.fail, "raise")


def test_shared_memory_works_without_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    launch(2, ranks.sums, [(7, 5)], "float32")


@pytest.mark.parametrize("size", [1, 2])
def test_out_of_memory_on_one_device_says_which_batch_fits(size):
    """Each device has memory for 5 images: the largest batch that fits, by halving 32, is 4."""
    with pytest.raises(TrainingError, match=f"^the memory is full; --batch-size {4 * size} fits$"):
        launch(size, ranks.fill_memory, dataclasses.replace(config("cifar-bn", images=40), recipe=RECIPES["digits"]), 5)
    with pytest.raises(TrainingError, match="^the memory is full; not even one image fits: choose a smaller --model"):
        launch(size, ranks.fill_memory, config("cifar-bn"), 0)


@pytest.mark.parametrize("name", mpi.SIZES)
def test_the_launcher_of_another_mpi_is_refused(tmp_path, name):
    """Otherwise each process would train by itself."""
    pytest.importorskip("mpi4py")
    environment = {key: value for key, value in os.environ.items() if key not in mpi.SIZES} | {name: "3"}
    command = [sys.executable, ROOT / "train.py", "--data", "digits"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("train.py: error: 3 processes were started, but MPI finds 1")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["99", "0", "x", "9" * 30])
def test_variables_of_a_launcher_that_has_ended_are_refused(tmp_path, number):
    """MPICH silently ends the process if PMI_FD is not the socket of its launcher."""
    environment = {key: value for key, value in os.environ.items() if key not in mpi.SIZES} | {"PMI_SIZE": "3", "PMI_FD": number}
    command = [sys.executable, ROOT / "train.py", "--data", "digits"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert done.stderr.startswith(f"train.py: error: PMI_FD={number} is not a connection to an MPI launcher")


def test_open_mpis_launcher_with_mpi4py_of_another_mpi_is_refused(tmp_path):
    """Otherwise MPICH would end the process with five lines."""
    mpi4py = pytest.importorskip("mpi4py.MPI")
    if mpi4py.get_vendor()[0] == "Open MPI":
        pytest.skip("it is the same")
    launcher = {"OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0", "PMIX_NAMESPACE": "prterun-1", "PMIX_SERVER_URI41": "x;tcp4://y:1"}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--data", "digits"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key not in mpi.SIZES} | launcher,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stderr.startswith("train.py: error: 3 processes were started, but MPI finds 1")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "variables, first",
    [
        ({}, True),
        ({"SLURM_LOCALID": "1"}, True),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "1"}, True),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "many"}, True),
        ({"SLURM_LOCALID": "one", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_LOCALID": "00", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "2"}, False),
        ({"MPI_LOCALRANKID": "9" * 5000, "PMI_SIZE": "2"}, False),
    ],
)
def test_one_rank_on_each_machine_prints(monkeypatch, variables, first):
    for name in (*mpi.SIZES, *mpi.LOCAL_RANKS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mpi.first_on_machine() == first


def test_devices_must_be_as_many_as_the_processes_of_mpi(monkeypatch):
    """On this machine, which has two of the three."""
    monkeypatch.setattr(mpi, "started", lambda: True)
    monkeypatch.setattr(mpi, "world_size", lambda: 3)
    monkeypatch.setattr(mpi, "local_rank", lambda: (0, 2))
    assert train.places(None, [0])[:2] == ([0, 1], 3) and train.places([2, 5], [0])[:2] == ([2, 5], 3)
    with pytest.raises(UserError, match="--devices: MPI has started 2 processes on this machine; give one device for each"):
        train.places([0, 1, 2], [0])


def test_the_innermost_launcher_decides(monkeypatch):
    """Open MPI's mpiexec may be started by Slurm's srun, whose variable then has another number."""
    for name in mpi.SIZES:
        monkeypatch.delenv(name, raising=False)
    assert not mpi.started()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "")
    assert not mpi.started()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    assert mpi.started()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert not mpi.started()


def test_train_py_under_mpi(tmp_path):
    pytest.importorskip("mpi4py")
    options = [*DIGITS, "--epochs", "1"]
    command = [Path(sys.executable).parent / "mpiexec", "-n", "2", sys.executable, ROOT / "train.py", *options]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False, "timeout": 120}
    done = subprocess.run([*command, "--out", "run"], **run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test loss") == 2 and re.match(r"test loss: \d\.\d{4} - accuracy: ", done.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "run/config.json").read_text())["world_size"] == 2
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1
    again = subprocess.run([*command, "--out", "run"], **run)
    assert again.returncode == 2 and again.stderr.count("exists already") == 1
    refused = subprocess.run([*command, "--backend", "cupy", "--devices", "9998,9999", "--out", "new/run"], **run)
    assert refused.returncode == 2 and not (tmp_path / "new").exists(), refused.stderr
    wrong = subprocess.run([*command, "--lr", "no"], **run)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    other = subprocess.run([sys.executable, ROOT / "train.py", "--resume", "run"], **run)  # without MPI
    assert other.returncode == 0 and other.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
