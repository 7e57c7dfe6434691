"""Checkpoints: arrays and metadata in one safetensors file, written whole or not at all, with checksums of all content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from .backend import Array, to_numpy
from .errors import UserError
from .serialization import read, write


def save(path: Path, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write arrays, and facts that JSON can represent. In any case, `path` is the old file or the whole new one.

    Raises OSError if writing fails; then nothing is left of the new file.
    """
    on_host = {name: np.asarray(to_numpy(array), order="C") for name, array in arrays.items()}
    write(path, on_host, {"facts": json.dumps({"facts": facts, "checksums": _checksums(on_host, facts)})})


def load(path: Path, most_bytes: int = 1 << 40) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, facts) of a file that `save` wrote. Raises UserError if it is another file, is larger, or was changed."""
    try:
        if not path.is_file():
            raise OSError("there is no such regular file")
        if path.stat().st_size > most_bytes:
            raise OSError(f"it is larger than {most_bytes:,} bytes, the most that such a file has")
        arrays, metadata = read(path)
        content = json.loads(metadata["facts"])
        facts, told = content["facts"], content["checksums"]
        own = _checksums(arrays, facts)
        wrong = [name for name in sorted({*own, *told}) if own.get(name) != told.get(name)]
        if wrong:
            raise ValueError(f"the checksum of {wrong[0]} is wrong")
        return arrays, facts
    except KeyError:
        problem: object = "it has no facts and checksums"
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = error
    raise UserError(f"{path} is not a checkpoint, or is damaged ({problem})")


def _checksums(arrays: Mapping[str, np.ndarray], facts: Any) -> dict[str, str]:
    """Checksums by name: of the dtype, shape and elements of each array, and of the facts."""
    sums = {name: _digest(f"{a.dtype.str} {a.shape}".encode(), a.reshape(-1).view(np.uint8)) for name, a in arrays.items()}
    return sums | {"facts": _digest(json.dumps(facts).encode())}


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
