"""Read the pickle of a CIFAR-10 batch file without executing it.

A pickle is a program that can call any function. This reader knows only the opcodes that image data needs, and calls only its
own stand-ins for NumPy's functions. It makes numbers, texts, tuples, lists, dicts and, at the end, two arrays. It never compares
or hashes nested objects, so time and memory are bounded by the size of the file. The file may be an original one, written by
Python 2, or the same data written again by Python 3 and any version of NumPy.
"""

import dataclasses
import io
import pickletools
from pickle import UnpicklingError
from typing import Any

import numpy as np

MOST_OPCODES = 200_000  # an original file has 30,000; Python 3 writes 130,000 in protocol 0
LONGEST_KEY = 100


def read_batch(content: bytes | memoryview, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(images (count, 3, 32, 32) uint8, labels (count,) int64). Raises UnpicklingError if the pickle does not hold them."""
    try:
        batch = _run(content)
        if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
            raise UnpicklingError("it holds no data and labels")
        return _images(batch["data"], count), _labels(batch["labels"], count)
    except (UnpicklingError, MemoryError):
        raise
    except Exception:  # a damaged pickle can raise anything
        raise UnpicklingError("it is cut off, or not a pickle of image data") from None


@dataclasses.dataclass(eq=False)
class _Array:
    """A stand-in for an array. Its attributes are checked after the whole pickle is read."""

    raw: Any = b""
    dtype: Any = None
    shape: Any = ()
    order: Any = "C"


def _images(array: Any, count: int) -> np.ndarray:
    if isinstance(array, _Array) and array.dtype is _UINT8 and array.shape == (count, 3072) and array.order in ("C", "F"):
        raw = array.raw.encode("latin1") if isinstance(array.raw, str) else array.raw
        if isinstance(raw, bytes | bytearray) and len(raw) == count * 3072:
            return np.frombuffer(raw, np.uint8).reshape((count, 3072), order=array.order).reshape(-1, 3, 32, 32)
    raise UnpicklingError(f"its data is not {count:,} images of 3 x 32 x 32 bytes")


def _labels(labels: Any, count: int) -> np.ndarray:
    if isinstance(labels, list) and len(labels) == count and all(type(n) is int and 0 <= n < 10 for n in labels):
        return np.array(labels, np.int64)
    raise UnpicklingError(f"its labels are not {count:,} numbers from 0 to 9")


# --- stand-ins for the names in a pickle ---------------------------------------------------------------------------

_NDARRAY, _UINT8 = object(), object()


def _encode(text: Any, encoding: Any) -> Any:
    """For _codecs.encode, with which Python 3 writes bytes in old protocols. They stay text here, as do Python 2's strings."""
    if encoding != "latin1":
        raise UnpicklingError("it encodes text with an encoding other than latin1")
    return text


def _dtype(code: Any, align: Any, copy: Any) -> object:
    if code != "u1":
        raise UnpicklingError("it holds an array that is not of bytes")
    return _UINT8


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(raw, dtype, shape, order)


_STAND_INS: dict[tuple[Any, Any], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}


# --- the machine ---------------------------------------------------------------------------------------------------

_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG1 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_TAKES_ALL = frozenset({"TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS"})  # take all items above the last mark
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "STACK_GLOBAL": 2, "REDUCE": 2, "BUILD": 1}


def _run(content: bytes | memoryview) -> Any:
    """The object in the pickle. Strings of Python 2 become str, and so do keys of dicts that are bytes."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the part of the stack under each mark
    memo: dict[Any, Any] = {}
    for step, (opcode, value, _) in enumerate(pickletools.genops(io.BytesIO(content))):
        if step == MOST_OPCODES:
            raise UnpicklingError(f"it has more than {MOST_OPCODES:,} opcodes")
        name = opcode.name
        if name in _VALUES:
            stack.append(value)
            continue
        if name in _TAKES_ALL:
            taken, stack = stack, below.pop()
        else:
            taken = [stack.pop() for _ in range(_TAKES.get(name, 0))][::-1]
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[value])
            case "MARK":
                below.append(stack)
                stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" | "TUPLE":
                stack.append(tuple(taken))
            case "EMPTY_LIST" | "LIST":
                stack.append(taken)
            case "EMPTY_DICT" | "DICT":
                stack.append(_pairs(taken))
            case "APPEND" | "APPENDS":
                _checked(stack[-1], list).extend(taken)
            case "SETITEM" | "SETITEMS":
                _checked(stack[-1], dict).update(_pairs(taken))
            case "GLOBAL":
                stack.append(_stand_in(*str(value).split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_stand_in(*taken))
            case "REDUCE":
                stack.append(_call(*taken))
            case "BUILD":
                _build(stack[-1], *taken)
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise UnpicklingError(f"it has the opcode {name}, which image data does not need")
    return stack.pop()


def _checked(thing: Any, kind: type) -> Any:
    if type(thing) is not kind:
        raise UnpicklingError(f"it has something else where a {kind.__name__} is needed")
    return thing


def _pairs(items: list[Any]) -> dict[str, Any]:
    pairs = {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes) or len(key) > LONGEST_KEY:
            raise UnpicklingError("it has a dict whose keys are not short texts")
        pairs[key.decode("latin1") if isinstance(key, bytes) else key] = value
    return pairs


def _stand_in(module: Any, name: Any) -> Any:
    names = _checked(module, str), _checked(name, str)
    if names not in _STAND_INS:
        raise UnpicklingError(f"it names {f'{module[:40]}.{name[:40]}'!a:.90}, which image data does not need")
    return _STAND_INS[names]


def _call(function: Any, arguments: Any) -> Any:
    if not callable(function):
        raise UnpicklingError("it calls something that is not a function")
    return function(*_checked(arguments, tuple))


def _build(thing: Any, state: Any) -> None:
    if isinstance(thing, _Array):
        _, thing.shape, thing.dtype, fortran, thing.raw = _checked(state, tuple)
        thing.order = "F" if fortran else "C"
    elif thing is not _UINT8:  # the state of a dtype is its byte order and fields; a byte has neither
        raise UnpicklingError("it sets the state of something that is not an array")
