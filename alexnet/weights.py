"""Weights of a trained network, with all that is needed to use them: read from a run or a file, and written to a file."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from safetensors import SafetensorError

from minidl import checkpoint
from minidl.errors import UserError
from minidl.nn import Module, init
from minidl.serialization import read as read_arrays
from minidl.serialization import write as write_arrays

from . import entry, models
from .config import Text
from .preparation import TORCHVISION, Preparation
from .run import RunFolder, place, reason
from .views import PaddingMode

KEY = "minidl"  # of minidl's metadata in a file
VERSION = 1  # of the metadata's format
MOST_BYTES = 4 << 30  # of a file
MOST_CLASSES = 1_000_000


class Metadata(msgspec.Struct, forbid_unknown_fields=True):
    """A file's metadata. padding, padding_mode, reflection: how views are cut (alexnet.views)."""

    version: int
    model: str
    classes: Annotated[list[Text], Meta(min_length=1, max_length=MOST_CLASSES)]
    preparation: Preparation
    padding: Annotated[int, Meta(ge=0, le=1000)]
    reflection: bool
    padding_mode: PaddingMode = "constant"


@dataclasses.dataclass
class Weights:
    """A trained network, its name, its classes, and how its images are prepared.

    batch_size: of the run, in views of images. padding, padding_mode, reflection: how views are cut (alexnet.views).
    """

    network: Module
    model: str
    classes: list[str]
    preparation: Preparation
    batch_size: int = 128
    padding: int = 0
    reflection: bool = True
    padding_mode: PaddingMode = "constant"

    def metadata(self) -> str:
        """A file's metadata, as JSON."""
        about = Metadata(VERSION, self.model, self.classes, self.preparation, self.padding, self.reflection, self.padding_mode)
        return json.dumps(msgspec.to_builtins(about))


def read(path: Path, which: str = "newest") -> Weights:
    """The weights of a run's newest or best checkpoint, of a file written by `write`, or of torchvision's AlexNet.

    Raises UserError for any other file.
    """
    if path.is_dir():
        return _of_run(RunFolder.read(path), which)
    try:
        if path.suffix.lower() in (".pth", ".pt"):
            state, about = _of_torch(path), None
        else:
            state, about = _of_safetensors(path)
        settings = _about(about, state)
        return Weights(_network(state, settings), **settings)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"cannot read the weights of a network from {path} ({reason(error)})") from None


def write(path: Path, weights: Weights) -> None:
    """Write a .safetensors file atomically, with the names of the network's state_dict. Raises OSError."""
    write_arrays(path, weights.network.state_dict(), {KEY: weights.metadata()})


def _of_run(folder: RunFolder, which: str) -> Weights:
    """The weights of the newest checkpoint that can be used, or of the epoch with the highest test accuracy."""
    config, files = folder.config, folder.checkpoints()
    if config.classes is None or config.preparation is None:
        raise UserError(f"{folder.path} was written by an earlier version, without the names of its classes; --resume it once")
    if which == "best":
        accuracies = {row["epoch"]: row["test_accuracy"] for row in folder.metrics()}
        tested = [file for file in files if place(file)[0] in accuracies]  # the last epoch may not be saved yet
        files = [max(tested, key=lambda file: accuracies[place(file)[0]])] if tested else files
    if not files:
        raise UserError(f"{folder.path} has no checkpoint; a run saves one after every epoch, and when it is stopped")
    problems: list[str] = []
    for file in reversed(files):
        try:
            arrays, _ = checkpoint.load(file)
            state = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
            settings: dict[str, Any] = {"model": config.model, "classes": config.classes, "preparation": config.preparation}
            network = _network(state, settings, config.dtype)
        except (UserError, ValueError) as error:
            problems.append(str(error) if isinstance(error, UserError) else f"{file} does not fit its run ({error})")
            continue
        for problem in problems:
            entry.tell(f"{problem}; using {file.name}")
        recipe = config.recipe
        return Weights(
            network,
            **settings,
            batch_size=recipe.batch_size,
            padding=recipe.crop_padding,
            reflection=recipe.reflection,
            padding_mode=recipe.padding_mode,
        )
    raise UserError(problems[0])


def _of_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """(arrays, minidl's metadata; None if the file has none)."""
    if not path.is_file():
        raise OSError("there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        arrays, metadata = read_arrays(path)
    except TypeError as error:  # a dtype that NumPy does not have
        raise ValueError(str(error)) from None
    return arrays, metadata.get(KEY)


def _of_torch(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file written by PyTorch: a state_dict, or a checkpoint with the key "state_dict"."""
    if not path.is_file():
        raise OSError("there is no such file")
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: to read it, install PyTorch; or give the weights as .safetensors") from None
    import pickle

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content)
        return {name.removeprefix("module."): value.detach().float().numpy() for name, value in state.items()}
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _about(told: str | None, state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Model, classes, preparation and so on for the weights of a file: from its metadata, or those of torchvision's AlexNet."""
    if told is not None:
        try:
            about = msgspec.json.decode(told, type=Metadata)
        except RecursionError:
            raise ValueError("its metadata are nested too deep") from None
        if about.version != VERSION:
            raise ValueError(f"its metadata have version {about.version}, and version {VERSION} is needed")
        about.preparation.check()
        return {key: getattr(about, key) for key in ("model", "classes", "preparation", "padding", "reflection", "padding_mode")}
    if "classifier.6.weight" not in state:
        raise ValueError("it does not name its network, and lacks the names of torchvision's, such as classifier.6.weight")
    shape = state["classifier.6.weight"].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MOST_CLASSES:
        raise ValueError(f"classifier.6.weight is {shape}")
    classes = [str(i) for i in range(shape[0])]
    return {"model": "alexnet-torchvision", "classes": classes, "preparation": TORCHVISION}


def _network(state: dict[str, np.ndarray], about: dict[str, Any], dtype: str = "float32") -> Module:
    """The network with this state_dict, in evaluation mode. Raises ValueError if the state_dict does not fit it."""
    model, classes, preparation = about["model"], about["classes"], about["preparation"]
    if model not in models.NETWORKS:
        raise ValueError(f"there is no network {model!r:.80}")
    try:
        with init.skipped():
            network = models.create(model, len(classes), in_channels=preparation.channels, image_size=preparation.image_size)
    except MemoryError:
        raise ValueError(f"the memory is too small for {model} with images of {preparation.image_size} pixels a side") from None
    own = network.state_dict()
    if differ := [name for name in {**own, **state} if name not in own or name not in state]:
        raise ValueError(f"{differ[0]} is not in both the file and {model}")
    for name, array in state.items():
        if array.shape != own[name].shape:
            raise ValueError(f"{name} is {array.shape}, but in {model} with {len(classes)} classes it is {own[name].shape}")
        if array.dtype.kind != own[name].dtype.kind:
            raise ValueError(f"{name} is {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has NaN or infinite numbers")
    network.to(dtype=dtype).load_state_dict(state)
    return network.eval()
