"""The settings of a run, and their form in config.json."""

import dataclasses
import json
from typing import Any

from .recipes import Recipe

# config.json is flat: the recipe's fields lie among the others, under their own names, but for its name.
RECIPE_KEYS = {field.name: field.name for field in dataclasses.fields(Recipe)} | {"name": "recipe"}
# Values for config.json files written before these settings existed.
ADDED_LATER = {"bias_lr": 1.0, "bias_decay": True, "precision": "fp32"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers, and where they were computed."""

    model: str
    data: str
    data_dir: str | None
    recipe: Recipe
    dtype: str
    precision: str
    seed: int
    limit_train: int | None
    limit_test: int | None
    backend: str
    devices: list[int]
    world_size: int
    threads: int
    versions: dict[str, str]

    def to_json(self) -> str:
        """The text of config.json: an object with one key a setting."""
        settings = dataclasses.asdict(self)
        recipe = settings.pop("recipe")
        settings |= {key: recipe[field] for field, key in RECIPE_KEYS.items()}
        return json.dumps(settings, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The settings of an earlier run. Raises ValueError or TypeError if the text is not what to_json wrote."""
        settings: dict[str, Any] = ADDED_LATER | json.loads(text)
        recipe = Recipe(**{field: settings.pop(key) for field, key in RECIPE_KEYS.items() if key in settings})
        return cls(recipe=recipe, **settings)
