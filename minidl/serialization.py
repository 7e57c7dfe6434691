"""Arrays in a safetensors file, written whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .autodiff import Tensor
from .backend import Array, to_numpy
from .files import replacing


def save(state: Mapping[str, Array | Tensor], path: str | os.PathLike[str]) -> None:
    """Write arrays and Tensors by name, such as net.state_dict(), to a safetensors file, for `load`.

    In any case, `path` is the old file or the whole new one. Raises TypeError for a wrong state, and OSError if the folder
    does not exist or writing fails.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"save takes names and arrays, such as net.state_dict(); got a {type(state).__name__}")
    arrays = {}
    for name, value in state.items():
        array = value.data if isinstance(value, Tensor) else value
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"save takes names that are strings, other than __metadata__; got {name!r}")
        if not isinstance(array, (np.ndarray, np.generic)) and not hasattr(array, "__cuda_array_interface__"):
            raise TypeError(f"save takes arrays and Tensors by name, one level deep; {name} is a {type(value).__name__}")
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise TypeError(f"save takes booleans, integers and floats of up to 64 bits; {name} is {array.dtype}")
        arrays[name] = array
    write(Path(path), arrays)


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name, on the host, for net.load_state_dict.

    Raises FileNotFoundError if the file does not exist, ValueError if it is another kind of file or damaged.
    """
    from safetensors import SafetensorError

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return read(Path(path))[0]
    except (SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise ValueError(f"{path} is not a safetensors file that NumPy can hold, or is damaged ({error})") from None


def write(path: Path, arrays: Mapping[str, Array], metadata: dict[str, str] | None = None) -> None:
    """Write arrays and metadata, whole or not at all.

    Raises OSError if the folder does not exist or writing fails; then nothing is left of the new file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {key: np.asarray(to_numpy(array), order="C") for key, array in arrays.items()}
    with replacing(path) as part:
        mode = part.stat().st_mode
        try:
            save_file(tensors, part, metadata=metadata)
            part.chmod(mode)  # safetensors replaces the file by one that only its owner may read
        except SafetensorError as error:  # a full disk, for example
            raise OSError(str(error)) from None


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of a safetensors file.

    Raises SafetensorError or OSError if it is not one, or is damaged, and TypeError for a dtype that NumPy lacks.
    """
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, array in arrays.items():
            if array.dtype.kind == "V":  # another package has added dtypes to NumPy
                raise TypeError(f"{name} is {array.dtype.name}")
        return arrays, file.metadata() or {}
