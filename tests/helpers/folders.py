"""Makes folders of small pictures. Each class has its own colour."""

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}


def picture(color, seed: int, size=(20, 16)) -> Image.Image:
    """A picture of one colour with some noise, of size (width, height)."""
    noise = np.random.default_rng(seed).integers(-30, 31, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8))


def make(folder: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    """Make a folder for each class, with the given number of pictures: PNG, so that their pixels are known."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            color = COLORS.get(name) or list(COLORS.values())[number % len(COLORS)]
            picture(color, first_seed + 1000 * number + i).save(folder / name / f"{name}-{i}.png")
    return folder


def split(folder: Path, train: dict[str, int], test: dict[str, int], names=("train", "val")) -> Path:
    """Make a folder with training images and test images."""
    make(folder / names[0], train)
    make(folder / names[1], test, first_seed=500)
    return folder
