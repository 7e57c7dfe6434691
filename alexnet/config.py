"""The settings of a run, and their form in config.json."""

import dataclasses
import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .models import NETWORKS
from .preparation import PerChannel, Preparation
from .recipes import MOST, Count, Recipe

# config.json is flat: it has the recipe's fields under their own names, except that the recipe's name is "recipe".
RECIPE_KEYS = {field.name: field.name for field in dataclasses.fields(Recipe)} | {"name": "recipe"}
PREPARATION_KEYS = [field.name for field in dataclasses.fields(Preparation)]
# Settings that are found in the data before the first step, and then stay fixed.
FOUND = ["classes", *PREPARATION_KEYS, "color_vectors", "skipped", "files"]
# Values for config.json files written before these settings existed.
ADDED_LATER: dict[str, Any] = {
    "bias_lr": 1.0,
    "bias_decay": True,
    "precision": "fp32",
    "parallel": "auto",
    "save_minutes": 10.0,
    "tensorboard": False,
    "crop": 1.0,
    "color_noise": 0.0,
    "divide_by_std": True,
    "test_views": 1,
    "nesterov": False,
    "label_smoothing": 0.0,
    "padding_mode": "constant",
    "validation": None,
    "balance": False,
    "init": None,
    "freeze": None,
    **dict.fromkeys(FOUND),
    "skipped": [],
}

MOST_DEVICES = 256  # on one machine
Text = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Device = Annotated[int, Meta(ge=0, le=9999)]
Minutes = Annotated[float, Meta(gt=0, le=1e6)]


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers, where they were computed, and how often they are saved."""

    model: Text
    data: Text
    data_dir: Text | None
    recipe: Recipe
    dtype: Literal["float32", "float64"]
    precision: Literal["fp32", "tf32", "fp16"]
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    limit_train: Count | None
    limit_test: Count | None
    backend: Literal["numpy", "cupy"]
    devices: Annotated[list[Device], Meta(min_length=1, max_length=MOST_DEVICES)]
    world_size: Annotated[int, Meta(ge=1, le=100_000)]
    threads: Annotated[int, Meta(ge=1, le=10_000)]
    parallel: Literal["auto", "data", "hybrid", "towers"]
    save_minutes: Minutes
    tensorboard: bool
    versions: Annotated[dict[Text, Text], Meta(max_length=100)]
    # Training images that are held out, and tested on in place of the test set: their number, or their share of each class.
    validation: Count | Annotated[float, Meta(gt=0, lt=1)] | None = None
    balance: bool = False  # whether the loss is weighted so that all classes count the same
    init: Text | None = None  # a run or file with the initial weights
    freeze: Text | None = None  # prefixes of the names of frozen parameters, with commas between
    classes: Annotated[list[Text], Meta(min_length=1, max_length=MOST)] | None = None
    preparation: Preparation | None = None
    # Rows: the principal components of the training images' channels; the length of each is the standard deviation along it.
    color_vectors: Annotated[list[PerChannel], Meta(min_length=1, max_length=3)] | None = None
    skipped: Annotated[list[Text], Meta(max_length=MOST)] = dataclasses.field(default_factory=list)  # unreadable files
    files: Annotated[str, Meta(min_length=64, max_length=64)] | None = None  # checksum of the names and sizes of the others

    def flat(self) -> dict[str, Any]:
        """One key for each setting, as in config.json."""
        settings = dataclasses.asdict(self)
        recipe, preparation = settings.pop("recipe"), settings.pop("preparation")
        settings |= {key: recipe[field] for field, key in RECIPE_KEYS.items()}
        return settings | (preparation or dict.fromkeys(PREPARATION_KEYS))

    def differences(self, before: "Config") -> str:
        """The settings that have changed since `before`, in one line; "" if none has."""
        old, new = before.flat(), self.flat()
        for settings in (old, new):
            settings |= {f"version of {name}": version for name, version in settings.pop("versions").items()}
        return ", ".join(f"{key} {new.get(key)} (before: {old.get(key)})" for key in old if new.get(key) != old.get(key))

    def to_json(self) -> str:
        """The text of config.json."""
        return json.dumps(self.flat(), indent=2) + "\n"

    @classmethod
    def from_flat(cls, given: Any) -> "Config":
        """The config of the settings that flat() returns. Raises ValueError if one is missing, unknown, or not allowed."""
        if not isinstance(given, dict):
            raise ValueError("it is not a JSON object of settings")
        settings = ADDED_LATER | given
        recipe = {field: settings.pop(key) for field, key in RECIPE_KEYS.items() if key in settings}
        preparation = {key: settings.pop(key) for key in PREPARATION_KEYS}
        if any(value is not None for value in preparation.values()):
            settings["preparation"] = Preparation.from_flat(preparation)
        unknown = set(settings) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"there is no setting {min(unknown)!r:.80}")
        config = msgspec.convert(settings | {"recipe": msgspec.convert(recipe, Recipe)}, cls)
        config.check()
        return config

    @classmethod
    def from_json(cls, text: bytes) -> "Config":
        """The settings of an earlier run, from config.json. Raises ValueError as from_flat does."""

        def no_number(name: str) -> None:
            raise ValueError(f"{name} is not allowed as a setting")

        try:
            return cls.from_flat(
                json.loads(text, parse_constant=no_number)
            )  # json, unlike msgspec, reads names of folders that are not UTF-8
        except RecursionError:
            raise ValueError("it is nested too deep") from None

    def check(self) -> None:
        """Raise ValueError for settings that do not fit together."""
        if self.model not in NETWORKS:
            raise ValueError(f"there is no model {self.model!r:.80}")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError(f"devices {self.devices} names a device twice")
        if self.world_size < len(self.devices):
            raise ValueError(f"world_size {self.world_size} is less than the number of devices, {len(self.devices)}")
        if self.precision != "fp32" and (self.backend, self.dtype) != ("cupy", "float32"):
            raise ValueError(f"precision {self.precision} is for backend cupy and dtype float32")
        if (self.preparation is None) != (self.classes is None):
            raise ValueError("it has the classes without the preparation of images, or the reverse")
        if self.preparation is not None and self.recipe.color_noise:
            channels = self.preparation.channels
            if [len(vector) for vector in self.color_vectors or []] != [channels] * channels:
                raise ValueError(f"color_vectors must be {channels} of {channels} numbers")
        if self.recipe.test_views == 2 and not self.recipe.reflection:
            raise ValueError("test_views 2 is an image and its reflection, but reflection is false")
        if self.recipe.schedule != "one-cycle" and not self.recipe.step_epochs:
            raise ValueError(f"schedule {self.recipe.schedule} needs step_epochs of at least 1")
