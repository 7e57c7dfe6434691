"""Checkpoints: arrays and facts in one safetensors file, written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .backend import Array, to_numpy
from .errors import UserError


def save(path: Path, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write arrays, and facts that JSON can hold. Whatever happens, `path` is the old file or the new one, never a part.

    Raises OSError if the disk does not take it; then nothing is left of the new file.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        tensors = {key: np.ascontiguousarray(to_numpy(array)).reshape(array.shape) for key, array in arrays.items()}
        try:
            save_file(tensors, name, metadata={"facts": json.dumps(facts)})
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from None
        _to_disk(name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _to_disk(path.parent)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, facts) of a file that `save` wrote. Raises UserError if it is not one, or is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint, or is damaged ({error})") from None


def _to_disk(path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
