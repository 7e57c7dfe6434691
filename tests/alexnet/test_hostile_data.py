"""Damaged and hostile data is refused with one line: no code of it runs, nothing crashes, hangs or takes all memory."""

import bz2
import contextlib
import errno
import gzip
import http.server
import json
import os
import pickle
import pickletools
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pooch
import pytest
from hypothesis import strategies as st

from alexnet import cifar10_files, cifar10_pickle, datasets, entry
from minidl.errors import UserError

from ..helpers import cifar_files, hostile_pickles

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a CIFAR-10 of ten images in each file; the program expects ten."""
    monkeypatch.setattr(cifar10_files, "BATCH", 10)
    cifar_files.write(tmp_path / "data", images=10)
    return tmp_path / "data"


@pytest.fixture
def archive(place):
    """The path for an archive; the folder with the files is renamed."""
    os.rename(place / "cifar-10-batches-py", place / "batches")
    return place / "cifar-10-python.tar.gz"


def refused(place):
    """The error line of a data directory that is refused."""
    with pytest.raises(UserError) as error:
        datasets.cifar10(str(place))
    line = str(error.value)
    assert line.isprintable() and len(line) < 1000
    return line


def check(data):
    assert data.train.images.shape == (50, 3, 32, 32) and data.test.images.shape == (10, 3, 32, 32)
    first = cifar_files.batch(10)
    np.testing.assert_array_equal(data.train.images[:10].reshape(10, 3072), first[b"data"])
    np.testing.assert_array_equal(data.train.labels[:10], first[b"labels"])


# --- pickles -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes():
    """{name: what read_batch did with it}, from a process with little memory, which may crash."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.hostile_pickles"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", hostile_pickles.HARMLESS)
def test_unusual_but_harmless_pickles_are_read(outcomes, name):
    assert outcomes.get(name, "crash") == "read"


@pytest.mark.parametrize("name", hostile_pickles.HOSTILE)
def test_a_hostile_pickle_is_refused(outcomes, name):
    assert outcomes.get(name, "crash") == hostile_pickles.HOSTILE[name][1]


def test_a_hostile_pickle_is_refused_in_one_line_that_names_its_file(place):
    file = place / "cifar-10-batches-py" / "data_batch_4"
    file.write_bytes(hostile_pickles.HOSTILE["a name of two lines"][0])
    assert refused(place) == (
        f"{file} is damaged (it names 'os\\n.a\\x00\\xe9', which image data does not need); "
        f"remove {file.parent} to download CIFAR-10 again"
    )


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_batches_rewritten_by_python_3_are_read(protocol, order):
    batch = cifar_files.batch(3)
    written = pickle.dumps(batch | {b"data": np.asarray(batch[b"data"], order=order)}, protocol)
    older = written
    for new in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = new.replace(b"_core", b"core")
        older = older.replace(bytes([len(new)]) + new, bytes([len(old)]) + old).replace(new, old)
    for content in (written, older):
        images, labels = cifar10_pickle.read_batch(content, 3)
        assert images.dtype == np.uint8 and labels.dtype == np.int64
        np.testing.assert_array_equal(images.reshape(3, 3072), batch[b"data"])
        np.testing.assert_array_equal(labels, batch[b"labels"])


SMALL = cifar_files.batch(2)
VALID = [cifar_files.official(SMALL), *(pickle.dumps(SMALL, protocol) for protocol in range(6))]
AS_TEXT = {1, 2, 3}  # protocols 0 to 2 write bytes as text
# The positions of the opcodes and of the bytes after them: damage to pixels cannot be noticed.
PLACES = [
    sorted({at + i for _, _, at in pickletools.genops(content) for i in range(-1, 12) if 0 <= at + i < len(content)})
    for content in VALID
]
OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


@st.composite
def damaged_batches(draw):
    version = draw(st.integers(0, len(VALID) - 1))
    content = bytearray(VALID[version])
    for _ in range(draw(st.integers(1, 3))):
        at, other = (draw(st.sampled_from(PLACES[version])) for _ in range(2))
        kind = draw(st.sampled_from(["flip", "byte", "opcode", "insert", "cut", "remove", "copy"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "opcode":
            content[at : at + 1] = draw(st.sampled_from(OPCODES))
        elif kind == "insert":
            content[at:at] = b"".join(draw(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=9), max_size=6)))
        elif kind == "cut":
            del content[at:]
        elif kind == "remove":
            del content[at:other]
        elif kind == "copy":
            content[at:at] = content[other : other + draw(st.integers(1, 100))]
    return version, bytes(content)


@hypothesis.settings(max_examples=500)
@hypothesis.given(damaged_batches())
@hypothesis.example((2, b"c" + b"\4" * 50 + b"\n" + b"\4" * 50 + b"\n."))  # each character is shown as four
def test_a_damaged_batch_is_read_correctly_or_refused(damaged):
    version, content = damaged
    tracemalloc.start()
    refusal = ""
    try:
        images, labels = cifar10_pickle.read_batch(content, 2)
    except pickle.UnpicklingError as error:
        refusal = str(error)
    else:
        assert images.shape == (2, 3, 32, 32) and images.dtype == np.uint8
        assert labels.shape == (2,) and labels.dtype == np.int64 and set(labels) <= set(range(10))
        if version not in AS_TEXT:
            rows = images.reshape(2, 3072)
            assert rows.tobytes("C") in content or rows.tobytes("F") in content
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20 and refusal.isprintable() and len(refusal) < 200


# --- other things in the place of a file ---------------------------------------------------------------------------


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    os.mknod(path, stat.S_IFSOCK | 0o600)


def folder(path):
    path.mkdir()


def loop(path):
    path.symlink_to(path.name)


def endless(path):
    path.symlink_to("/dev/zero")


def full(path):
    path.symlink_to("/dev/full")


def larger(path):
    """A file larger than any of CIFAR-10; it is sparse and takes no disk space."""
    with open(path, "wb") as file:
        file.truncate(1 << 40)


NO_FILES = {
    fifo: "it is not a regular file",
    bound_socket: "No such device or address",
    folder: "it is not a regular file",
    loop: "Too many levels of symbolic links",
    endless: "it is not a regular file",
    full: "it is not a regular file",
    larger: "it is larger than {most:,} bytes, the most that such a file has",
}


@pytest.mark.parametrize("make", NO_FILES)
def test_a_batch_that_is_no_regular_file_is_refused(place, make):
    file = place / "cifar-10-batches-py" / "data_batch_2"
    file.unlink()
    make(file)
    reason = NO_FILES[make].format(most=cifar10_files.MOST_BATCH_BYTES)
    assert refused(place) == f"cannot read {file}: {reason}; make it readable, or remove {file.parent} to download CIFAR-10 again"


@pytest.mark.parametrize("make", NO_FILES)
def test_an_archive_that_is_no_regular_file_is_refused(archive, make):
    make(archive)
    reason = NO_FILES[make].format(most=cifar10_files.MOST_ARCHIVE_BYTES)
    assert (
        refused(archive.parent) == f"cannot read {archive}: {reason}; make it readable, or remove it to download CIFAR-10 again"
    )


@pytest.mark.parametrize(
    "make, reason",
    [
        (fifo, "Not a directory"),
        (endless, "Not a directory"),
        (loop, "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"a"), "Not a directory"),
    ],
)
def test_a_data_folder_that_is_no_folder_is_refused(archive, make, reason):
    made = archive.parent / "cifar-10-batches-py"
    make(made)
    assert f"cannot read {made}/data_batch_1: {reason}; make it readable, or remove {made} to" in refused(archive.parent)


def test_a_file_without_read_permission_is_named(place, monkeypatch):
    def no_access(path, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cifar10_files, "read_regular", no_access)
    assert f"cannot read {place}/cifar-10-batches-py/data_batch_1: Permission denied; make it readable" in refused(place)


def test_links_to_files_are_followed(place):
    os.rename(place / "cifar-10-batches-py", place / "elsewhere")
    os.symlink("elsewhere", place / "cifar-10-batches-py")
    for name in cifar_files.NAMES:
        os.rename(place / "elsewhere" / name, place / name)
        os.symlink(f"../{name}", place / "elsewhere" / name)
    check(datasets.cifar10(str(place)))


@pytest.mark.parametrize("make", [fifo, endless])
def test_the_command_line_refuses_with_status_2_and_one_line(place, make):
    file = place / "cifar-10-batches-py" / "data_batch_1"
    file.unlink()
    make(file)
    done = subprocess.run(
        [sys.executable, "train.py", "--data-dir", place], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: error: cannot read ") and done.stderr.count("\n") == 1


# --- archives ------------------------------------------------------------------------------------------------------


def member(name, content=b"", type=tarfile.REGTYPE, size=None, link=""):
    """A member of a tar file. The size in its header may differ from the size of its content."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = type, len(content) if size is None else size, link
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def path(name):
    return f"cifar-10-batches-py/{name}"


BATCHES = {name: cifar_files.official(cifar_files.batch(10, seed)) for seed, name in enumerate(cifar_files.NAMES)}
MEMBERS = {name: member(path(name), content) for name, content in BATCHES.items()}
END = bytes(2 * tarfile.BLOCKSIZE)


def tar(*before, **instead):
    """A tar file of the batches, with members before them or instead of some."""
    return b"".join([*before, *(MEMBERS | instead).values(), END])


def pax(record):
    """A pax header, which overrides the next header."""
    return member("pax", f"{len(record) + 4} {record}\n".encode(), tarfile.XHDTYPE)


def damaged(reason):
    return f"{{archive}} is damaged ({reason}"


NO_REGULAR = damaged("its test_batch is not a regular file of 67,108,864 bytes at most); remove it to download CIFAR-10 again")
INCOMPLETE = "{archive} is incomplete: test_batch missing; remove it to download CIFAR-10 again"

HOSTILE_TARS = {
    **{
        name: (tar(test_batch=member(path("test_batch"), type=type, link=path("data_batch_1"))), NO_REGULAR)
        for name, type in {
            "a symbolic link": tarfile.SYMTYPE,
            "a link": tarfile.LNKTYPE,
            "a device": tarfile.CHRTYPE,
            "a disk": tarfile.BLKTYPE,
            "a pipe": tarfile.FIFOTYPE,
            "a folder": tarfile.DIRTYPE,
            "a sparse file": tarfile.GNUTYPE_SPARSE,
        }.items()
    },
    "a batch twice": (tar(member(path("test_batch"), b"another")), damaged("it has test_batch twice")),
    "a way up": (tar(test_batch=member(path("../") + path("test_batch"), BATCHES["test_batch"])), INCOMPLETE),
    "a way from the root": (tar(test_batch=member("/" + path("test_batch"), BATCHES["test_batch"])), INCOMPLETE),
    "another name, by a header": (
        tar(test_batch=pax(f"path={path('test_batch')}") + member("other", BATCHES["test_batch"])),
        INCOMPLETE,
    ),
    "a member of 1 TB": (tar(member("large", size=1 << 40)), damaged("it has a member of 1,099,511,627,776 bytes, but only ")),
    "a header of 1 TB": (tar(member("pax", type=tarfile.XHDTYPE, size=1 << 40)), damaged("it has a member of 1,099,511,627,776")),
    "a name of 1 TB": (tar(member("long", type=tarfile.GNUTYPE_LONGNAME, size=1 << 40)), damaged("it has a member of 1,099,511")),
    "a member of 2 ** 80 bytes": (tar(member("large", size=1 << 80)), damaged("it has a member of 1,208,925,819,614,629,174,")),
    "a member below nothing": (tar(member("large", size=-512)), damaged("it has a member of -512 bytes, but only ")),
    "a batch below nothing": (
        tar(test_batch=member(path("test_batch"), size=-512)),
        damaged("it has a member of -512 bytes, but only"),
    ),
    "1,000 headers": (tar(pax("comment=") * 1000), damaged("it has more than 1,000 members)")),
    "no header": (tar(b"x" * 512), damaged("")),
    "a header with a flipped bit": (tar(test_batch=b"C" + MEMBERS["test_batch"][1:]), damaged("bad checksum)")),
    "a cut batch": (tar()[: -len(MEMBERS["test_batch"])], damaged("it has a member of ")),
    "a cut header": (b"".join(MEMBERS.values()) + b"x" * 100, damaged("truncated header)")),
    "no batches": (
        END,
        "{archive} is incomplete: data_batch_1, data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch",
    ),
    "nothing": (b"", "{archive} is incomplete: data_batch_1"),
    "a batch of nothing": (
        tar(test_batch=member(path("test_batch"))),
        "{archive}/test_batch is damaged (it is cut off, or not a pickle of",
    ),
}

HARMLESS_TARS = {
    "an ordinary one": tar(),
    "no end": b"".join(MEMBERS.values()),
    "a long end": tar() + bytes(1 << 20),
    "another size, by a header": tar(pax("size=1099511627776")),
    "a header of many digits": tar(member("pax", b"1" * (4 << 20), tarfile.XHDTYPE)),
    "a folder of 1 TB": tar(member("cifar-10-batches-py", type=tarfile.DIRTYPE, size=1 << 40)),
    "a type that there is not": tar(member(path("other"), b"content", b"!")),
    "names of other places": tar(member("../../x", b"content"), member("/etc/x", type=tarfile.SYMTYPE, link="/")),
}


@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_a_hostile_tar_file_is_refused(archive, name):
    content, line = HOSTILE_TARS[name]
    archive.write_bytes(gzip.compress(content, 1))
    assert refused(archive.parent).startswith(line.format(archive=archive))


@pytest.mark.parametrize("name", HARMLESS_TARS)
def test_unusual_but_harmless_tar_files_are_read(archive, name):
    archive.write_bytes(gzip.compress(HARMLESS_TARS[name], 1))
    check(datasets.cifar10(str(archive.parent)))
    assert sorted(os.listdir(archive.parent)) == ["batches", archive.name]


def test_a_batch_of_more_than_64_MB_in_a_tar_file_is_refused(archive):
    archive.write_bytes(gzip.compress(tar(test_batch=member(path("test_batch"), bytes((1 << 26) + 1))), 1))
    assert refused(archive.parent) == NO_REGULAR.format(archive=archive)


def bomb():
    """16 MB that unpack to 16 GB: blocks between full flushes are independent, so that one block can be repeated."""
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + (packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)) * 1000


WHOLE = gzip.compress(tar(), 1)
HOSTILE_GZIP = {
    "an empty file": (lambda: b"", "it is cut off, or unpacks to more than 268,435,456 bytes)"),
    "a bomb": (bomb, "it is cut off, or unpacks to more than 268,435,456 bytes)"),
    "a cut file": (lambda: WHOLE[:-1], "it is cut off, or unpacks to more than 268,435,456 bytes)"),
    "a wrong checksum": (lambda: WHOLE[:-8] + b"abcd" + WHOLE[-4:], "Error -3 while decompressing data: incorrect data check)"),
    "a wrong length": (lambda: WHOLE[:-4] + b"abcd", "Error -3 while decompressing data: incorrect length check)"),
    "garbage after it": (lambda: WHOLE + b"garbage", "there is data after its end)"),
    "another file after it": (lambda: WHOLE + WHOLE, "there is data after its end)"),
    "100,000 files": (lambda: gzip.compress(b"") * 100_000, "there is data after its end)"),
    "an unpacked file": (tar, "Error -3 while decompressing data: incorrect header check)"),
    "another packer": (lambda: bz2.compress(tar()), "Error -3 while decompressing data: incorrect header check)"),
}


@pytest.mark.parametrize("name", HOSTILE_GZIP)
def test_a_hostile_gzip_file_is_refused(archive, name):
    make, reason = HOSTILE_GZIP[name]
    archive.write_bytes(make())
    tracemalloc.start()
    line = refused(archive.parent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line == f"{archive} is damaged ({reason}; remove it to download CIFAR-10 again"
    assert peak < 3 * cifar10_files.MOST_UNPACKED_BYTES


def test_a_long_name_in_a_gzip_file_is_skipped(archive):
    archive.write_bytes(WHOLE[:3] + b"\x08" + WHOLE[4:10] + b"x" * (8 << 20) + b"\0" + WHOLE[10:])
    check(datasets.cifar10(str(archive.parent)))


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.data())
def test_a_damaged_archive_is_read_correctly_or_refused(archive, data):
    content = bytearray(tar())
    headers = [at for at in range(0, len(content), 512) if content[at : at + 5] == b"cifar"]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))
        content[at : at + 1] = data.draw(st.binary(max_size=2))
    archive.write_bytes(gzip.compress(content, 1))
    refusal = ""
    try:
        read = datasets.cifar10(str(archive.parent))
    except UserError as error:
        refusal = str(error)
    else:
        check(read)
    assert refusal.isprintable()


# --- the download --------------------------------------------------------------------------------------------------


class Downloader:
    """Takes the place of pooch's downloader: writes a part of the file, then raises `then`."""

    then: Exception | BaseException = OSError(errno.ENOSPC, "No space left on device")

    def __init__(self, **options):
        pass

    def __call__(self, url, file, pooch):
        Path(file).write_bytes(b"a part")
        raise self.then


@pytest.mark.parametrize("deep", ["", "new", "new/newer/newest"])
@pytest.mark.parametrize(
    "then",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(1), entry.Interrupted(15), MemoryError()],
    ids=lambda then: type(then).__name__,
)
def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, deep, then):
    monkeypatch.setattr(pooch, "HTTPDownloader", Downloader)
    monkeypatch.setattr(Downloader, "then", then)
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(UserError if isinstance(then, OSError) else type(then)) as raised:
        datasets.cifar10(str(tmp_path / deep))
    if isinstance(then, OSError):
        message = f"cannot write to {tmp_path / deep}: No space left on device; choose another place with --data-dir"
        assert str(raised.value) == message
    assert os.listdir(tmp_path) == ["other"]


def test_a_folder_used_during_the_download_is_kept(tmp_path, monkeypatch):
    class Used(Downloader):
        def __call__(self, url, file, pooch):
            (Path(file).parent / "other").touch()
            super().__call__(url, file, pooch)

    monkeypatch.setattr(pooch, "HTTPDownloader", Used)
    refused(tmp_path / "new" / "newer")
    assert os.listdir(tmp_path / "new" / "newer") == ["other"]


@pytest.mark.parametrize(
    "place, reason",
    [
        ("file", "File exists"),
        ("file/below", "Not a directory"),
        ("loop", "File exists"),
        ("loop/below", "Too many levels of symbolic links"),
        ("/proc/below", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("new/" + "x" * 300, "File name too long"),
    ],
)
def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path, monkeypatch, place, reason):
    monkeypatch.setattr(pooch, "HTTPDownloader", None)
    (tmp_path / "file").touch()
    loop(tmp_path / "loop")
    line = f"cannot write to {tmp_path / place}: {reason}; choose another place with --data-dir"
    assert refused(tmp_path / place) == line
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_a_data_directory_with_an_impossible_name_is_refused(monkeypatch):
    monkeypatch.setattr(pooch, "HTTPDownloader", None)
    with pytest.raises(UserError, match="cannot download CIFAR-10"):
        datasets.cifar10("a\0b")


@pytest.mark.parametrize("given", [None, "~/data", "~nobody-of-this-name/data"])
def test_a_missing_home_folder_is_one_line(tmp_path, monkeypatch, given):
    def nobody(*_):
        raise KeyError("nobody")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    place = given or "~/.cache/minidl"
    line = f"there is no home folder for {place}; give the folder for CIFAR-10 with --data-dir or MINIDL_DATA"
    with pytest.raises(UserError) as error:
        datasets.cifar10(given)
    assert str(error.value) == line
    assert os.listdir(tmp_path) == []


def test_a_keyboard_interrupt_during_a_download_leaves_nothing(tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(6000):
                    self.wfile.write(bytes(1000))
                    time.sleep(0.01)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        code = (
            "import sys; from alexnet import datasets, entry; "
            f"datasets.CIFAR10_URL = 'http://127.0.0.1:{server.server_port}/'; "
            f"sys.exit(entry.run('train', ['--data-dir', {str(tmp_path / 'new' / 'newer')!r}]))"
        )
        environment = os.environ | {"no_proxy": "127.0.0.1"}
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            while process.poll() is None and not any(file.stat().st_size for file in tmp_path.glob("new/newer/.*")):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
            server.shutdown()
            thread.join()
    assert (process.returncode, errors) == (130, "train.py: stopped before anything began\n")
    assert os.listdir(tmp_path) == []
