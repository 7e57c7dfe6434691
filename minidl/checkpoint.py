"""Checkpoints: arrays and facts in one safetensors file, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from .backend import Array
from .errors import UserError
from .serialization import read, write


def save(path: Path, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write arrays, and facts that JSON can hold. Whatever happens, `path` is the old file or the new one, never a part.

    Raises OSError if the disk does not take it; then nothing is left of the new file.
    """
    write(path, arrays, {"facts": json.dumps(facts)})


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, facts) of a file that `save` wrote. Raises UserError if it is not one, or is damaged."""
    try:
        arrays, metadata = read(path)
        return arrays, json.loads(metadata["facts"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint, or is damaged ({error})") from None
