"""Pickles of two images that try to run code, crash, hang or take all memory; each with its expected error.

python -m tests.helpers.hostile_pickles reads each with little spare memory, and prints a line of JSON for each.
"""

import json
import os
import resource
from pickle import UnpicklingError

from alexnet.cifar10_pickle import read_batch

PIXELS = bytes(i % 251 for i in range(2 * 3072))
HALVES = PIXELS[:3072], PIXELS[3072:]
SPARE = 256 << 20  # bytes of memory


def text(content):
    return b"X" + len(content).to_bytes(4, "little") + content


def string(content):
    return b"T" + len(content).to_bytes(4, "little") + content


RAW = string(PIXELS)
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
SHAPE = b"K\x02M\x00\x0c\x86"
LARGE_SHAPE = b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"K\x08\x86"
UINT8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"


def array(empty=EMPTY, shape=SHAPE, dtype=UINT8 + STATE + b"b", fortran=b"\x89", raw=RAW):
    return empty + b"(K\x01" + shape + dtype + fortran + raw + b"tb"


ARRAY = array()


def batch(data=ARRAY, labels=b"](K\x03K\x07e", before=b"N"):
    """A batch file as Python 2 writes it, with `before` as one more entry."""
    return b"\x80\x02}(U\x06before" + before + b"U\x06labels" + labels + b"U\x04data" + data + b"u."


def call(function, *arguments):
    return b"c" + function.replace(".", "\n", 1).encode() + b"\n(" + b"".join(arguments) + b"tR"


def frombuffer(raw=RAW, dtype=UINT8, shape=SHAPE, order=b"U\x01C"):
    return b"cnumpy.core.numeric\n_frombuffer\n(" + raw + dtype + shape + order + b"tR"


DEEP_TUPLE = b")" + b"\x85" * 150_000
DEEP_LIST = b"]" * 90_000 + b"a" * 89_999
WIDE = b"()q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"t"  # to hash it visits 2 ** 200 tuples
LONG_TEXT = text(b"x" * (1 << 20))
HUGE = (1 << 62).to_bytes(8, "little")
LARGE = (1 << 40).to_bytes(8, "little")
ATTACK = b"cposix\nsystem\n(U\x04truetR"

NO_BATCH = "it holds no data and labels"
CUT = "it is cut off, or not a pickle of image data"
IMAGES = "its data is not 2 images of 3 x 32 x 32 bytes"
LABELS = "its labels are not 2 numbers from 0 to 9"
NO_BYTES = "it holds an array that is not of bytes"
KEYS = "it has a dict whose keys are not short texts"
CALLS = "it calls something that is not a function"
SETS = "it sets the state of something that is not an array"
MANY = "it has more than 200,000 opcodes"


def opcode(name):
    return f"it has the opcode {name}, which image data does not need"


def names(name):
    return f"it names {name!a}, which image data does not need"


def instead_of(kind):
    return f"it has something else where a {kind} is needed"


# These are unusual but harmless: they are read as the two images.
HARMLESS = {
    "an ordinary batch": batch(),
    "a Fortran order": batch(array(fortran=b"\x88", raw=string(bytes(b for both in zip(*HALVES, strict=True) for b in both)))),
    "a buffer": batch(frombuffer()),
    "a buffer that is a bytearray": batch(frombuffer(b"\x96" + len(PIXELS).to_bytes(8, "little") + PIXELS)),
    "a dtype with fields": batch(array(dtype=UINT8 + b"(K\x03U\x01|N(U\x01at}U\x01a(" + UINT8 + b"K\x00tsK\x08K\x01K\x3ftb")),
    "a dtype with a deep state": batch(array(dtype=UINT8 + DEEP_TUPLE + b"b")),
    "an array of 8 TB, reshaped": batch(array(EMPTY.replace(b"K\x00\x85", b"\x8a\x06\0\0\0\0\0\x08\x85"))),
    "a far place in the memo": batch(before=b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff\x86"),
    "a frame of 4 EB": b"\x80\x04\x95" + HUGE + batch()[2:],
    "a deep tuple": batch(before=DEEP_TUPLE),
    "a deep list": batch(before=DEEP_LIST),
    "a wide tuple": batch(before=WIDE),
    "a list in itself": batch(before=b"]q\x01h\x01a"),
    "many marks": batch(before=b"(" * 90_000 + b"t" * 90_000),
    "1 MB encoded 30,000 times": batch(
        before=LONG_TEXT + b"q\x01c_codecs\nencode\nq\x02(" + b"h\x02h\x01U\x06latin1\x86R" * 30_000 + b"t\x87"
    ),
    "an attack after the end": batch() + ATTACK + b".",
}

HOSTILE = {
    # Not a batch.
    "an empty file": (b"", CUT),
    "a stop": (b".", CUT),
    "a mark": (b"(.", CUT),
    "half a batch": (batch()[:3000], CUT),
    "zeros": (bytes(1 << 20), CUT),
    "a number": (b"K\x01.", NO_BATCH),
    "a list": (b"].", NO_BATCH),
    "an array alone": (ARRAY + b".", NO_BATCH),
    "an empty dict": (b"}.", NO_BATCH),
    "only data": (b"}U\x04data" + ARRAY + b"s.", NO_BATCH),
    "a set that is not full": (b"}U\x04datau.", CUT),
    "three for a dict": (b"(U\x04dataNNd.", CUT),
    # Names.
    "os.system": (ATTACK + b".", names("posix.system")),
    "eval": (b"c__builtin__\neval\n.", names("__builtin__.eval")),
    "numpy.load": (b"cnumpy\nload\n.", names("numpy.load")),
    "a method of ndarray": (b"cnumpy\nndarray.tofile\n.", names("numpy.ndarray.tofile")),
    "a name of two lines": (text(b"os\n") + text(b"a\x00\xc3\xa9") + b"\x93.", names("os\n.a\0\xe9")),
    "a name of 1 MB": (LONG_TEXT + b"q\0h\0\x93.", names("x" * 40 + "." + "x" * 40)),
    "a name that is a deep tuple": (DEEP_TUPLE + b"q\0h\0\x93.", instead_of("str")),
    "a name that is no ASCII": (b"cnumpy\xff\nload\n.", CUT),
    # Opcodes.
    "NEWOBJ": (b"cnumpy\nndarray\n)\x81.", opcode("NEWOBJ")),
    "NEWOBJ_EX": (b"cnumpy\nndarray\n)}\x92.", opcode("NEWOBJ_EX")),
    "OBJ": (b"(cnumpy\nndarray\no.", opcode("OBJ")),
    "INST": (b"(inumpy\nndarray\n.", opcode("INST")),
    "EXT1": (b"\x82\x01.", opcode("EXT1")),
    "EXT2": (b"\x83\x01\x01.", opcode("EXT2")),
    "EXT4": (b"\x84\x01\x01\x01\x01.", opcode("EXT4")),
    "PERSID": (b"P1\n.", opcode("PERSID")),
    "BINPERSID": (b"K\x01Q.", opcode("BINPERSID")),
    "NEXT_BUFFER": (b"\x97.", opcode("NEXT_BUFFER")),
    "READONLY_BUFFER": (b"C\x01a\x98.", opcode("READONLY_BUFFER")),
    "FROZENSET of a wide tuple": (b"(" + WIDE + b"\x91.", opcode("FROZENSET")),
    "ADDITEMS of a deep tuple": (b"\x8f(" + DEEP_TUPLE + b"\x90.", opcode("EMPTY_SET")),
    "DUP": (b"K\x012.", opcode("DUP")),
    "LONG4 of 1 MB": (b"\x8b" + (1 << 20).to_bytes(4, "little") + b"\x7f" * (1 << 20) + b".", opcode("LONG4")),
    "LONG4 of less than nothing": (b"\x8b\xff\xff\xff\xff.", CUT),
    "FLOAT of 1 MB": (b"F" + b"1" * (1 << 20) + b"\n.", opcode("FLOAT")),
    "INT of 1 MB": (b"I" + b"1" * (1 << 20) + b"\n.", CUT),
    "LONG of 1 MB": (b"L" + b"1" * (1 << 20) + b"L\n.", CUT),
    "an opcode that there is not": (b"\xfe.", CUT),
    # Lengths beyond the end of the file.
    **{
        f"{name} of {size}": (code + count + b"a.", CUT)
        for name, code in {"BINBYTES8": b"\x8e", "BINUNICODE8": b"\x8d", "BYTEARRAY8": b"\x96"}.items()
        for size, count in {"4 EB": HUGE, "1 TB": LARGE, "16 EB": b"\xff" * 8}.items()
    },
    "BINSTRING of 2 GB": (b"T\xff\xff\xff\x7fa.", CUT),
    "BINSTRING of less than nothing": (b"T\xff\xff\xff\xffa.", CUT),
    "BINUNICODE of 4 GB": (b"X\xff\xff\xff\xffa.", CUT),
    # Amounts.
    "many lists": (b"]" * 1_000_000 + b".", MANY),
    "many dicts": (b"(" + b"}" * 1_000_000 + b"t.", MANY),
    "many marks without an end": (b"(" * 1_000_000 + b".", MANY),
    "a tuple too deep": (b")" + b"\x85" * 1_000_000 + b".", MANY),
    # Keys.
    "a wide key": (b"}" + WIDE + b"Ns.", KEYS),
    "a deep key": (b"}" + DEEP_TUPLE + b"Ns.", KEYS),
    "a list as a key": (b"}]Ns.", KEYS),
    "a number as a key": (b"}K\x01Ns.", KEYS),
    "a key of 1 MB": (b"}" + LONG_TEXT + b"Ns.", KEYS),
    "an item for a list": (b"]K\x00K\x01s.", instead_of("dict")),
    "an element for a dict": (b"}K\x00a.", instead_of("list")),
    "elements for an array": (ARRAY + b"(K\x00e.", instead_of("list")),
    # Calls and states.
    "ndarray called": (call("numpy.ndarray", LARGE_SHAPE) + b".", CALLS),
    "None called": (b"N)R.", CALLS),
    "a text called": (b"U\x01a)R.", CALLS),
    "an array called": (ARRAY + b")R.", CALLS),
    "arguments that are a list": (b"cnumpy\ndtype\n]R.", instead_of("tuple")),
    "arguments that are 1 MB of text": (b"cnumpy\ndtype\n" + LONG_TEXT + b"R.", instead_of("tuple")),
    "no arguments": (b"cnumpy\ndtype\n)R.", CUT),
    "100,000 arguments": (b"cnumpy\ndtype\n(" + b"N" * 100_000 + b"tR.", CUT),
    "a deep argument": (b"cnumpy\ndtype\n(" + DEEP_TUPLE + b"NNtR.", NO_BYTES),
    "a wide argument": (b"c_codecs\nencode\n(N" + WIDE + b"tR.", "it encodes text with an encoding other than latin1"),
    "another encoding": (
        call("_codecs.encode", b"U\x01a", b"U\x03hex") + b".",
        "it encodes text with an encoding other than latin1",
    ),
    "a dict for an array's state": (EMPTY + b"}U\x09__class__Nsb.", instead_of("tuple")),
    "a short state": (EMPTY + b"(K\x01K\x02tb.", CUT),
    "the state of a list": (b"]}b.", SETS),
    "the state of a function": (b"cnumpy\ndtype\n}U\x08__name__Nsb.", SETS),
    "the state of ndarray": (b"cnumpy\nndarray\n}U\x05shapeNsb.", SETS),
    # Arrays.
    "an array of objects": (batch(array(dtype=UINT8.replace(b"u1", b"O8"))), NO_BYTES),
    "an array of structures": (batch(array(dtype=UINT8.replace(b"u1", b"V8"))), NO_BYTES),
    "an array of integers": (batch(array(dtype=UINT8.replace(b"u1", b"i8"))), NO_BYTES),
    "objects in the fields of a dtype": (
        batch(array(dtype=UINT8 + b"(K\x03U\x01|N(U\x01at}U\x01a(" + UINT8.replace(b"u1", b"O8") + b"K\x00tsK\x08K\x01K\x3ftb")),
        NO_BYTES,
    ),
    "no dtype": (batch(array(dtype=b"N")), IMAGES),
    "a dtype that was not called": (batch(array(dtype=b"cnumpy\ndtype\n")), IMAGES),
    "no state": (batch(EMPTY), IMAGES),
    "pixels that are no array": (batch(string(PIXELS)), IMAGES),
    "a shape of 8 TB": (batch(array(shape=LARGE_SHAPE)), IMAGES),
    "a shape below nothing": (batch(array(shape=b"J\xff\xff\xff\xffM\x00\x0c\x86")), IMAGES),
    "another shape of the same size": (batch(array(shape=b"M\x00\x0cK\x02\x86")), IMAGES),
    "a deep shape": (batch(array(shape=DEEP_TUPLE)), IMAGES),
    "a wide shape": (batch(array(shape=WIDE)), IMAGES),
    "a shape that is a list": (batch(array(shape=b"](K\x02M\x00\x0ce")), IMAGES),
    "too few pixels": (batch(array(raw=string(PIXELS[1:]))), IMAGES),
    "too many pixels": (batch(array(raw=string(PIXELS + b"a"))), IMAGES),
    "pixels that are a list": (batch(array(raw=b"]")), IMAGES),
    "pixels that are a number": (batch(array(raw=b"\x8a\xff" + b"\x7f" * 255)), IMAGES),
    "pixels that are an array": (batch(array(raw=ARRAY)), IMAGES),
    "pixels that are no Latin-1": (batch(array(raw=text("\u20ac".encode() * len(PIXELS)))), CUT),
    "an order that there is not": (batch(frombuffer(order=b"U\x01K")), IMAGES),
    "a deep order": (batch(frombuffer(order=DEEP_TUPLE)), IMAGES),
    "a buffer of objects": (batch(frombuffer(dtype=b"N")), IMAGES),
    # Labels.
    "labels that are a tuple": (batch(labels=b"K\x03K\x07\x86"), LABELS),
    "labels that are text": (batch(labels=b"U\x0237"), LABELS),
    "a label too few": (batch(labels=b"](K\x03e"), LABELS),
    "a label of 10": (batch(labels=b"](K\x03K\x0ae"), LABELS),
    "a label below nothing": (batch(labels=b"](K\x03J\xff\xff\xff\xffe"), LABELS),
    "a label that is large": (batch(labels=b"](K\x03\x8a\xff" + b"\x7f" * 255 + b"e"), LABELS),
    "a label that is true": (batch(labels=b"](K\x03\x88e"), LABELS),
    "labels in themselves": (batch(labels=b"]q\x01(K\x03h\x01e"), LABELS),
    "a deep label": (batch(labels=b"](K\x03" + DEEP_TUPLE + b"e"), LABELS),
}


def outcome(content):
    try:
        images, labels = read_batch(content, 2)
    except UnpicklingError as error:
        return str(error)
    except BaseException as error:
        return repr(error)
    return "read" if images.tobytes() == PIXELS and labels.tolist() == [3, 7] else "read wrong"


if __name__ == "__main__":
    with open("/proc/self/statm") as file:
        most = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for name, content in HARMLESS.items():
        print(json.dumps([name, outcome(content)]), flush=True)
    for name, (content, _) in HOSTILE.items():
        print(json.dumps([name, outcome(content)]), flush=True)
