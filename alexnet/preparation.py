"""How an image becomes the input of a network: the same for training, evaluation and prediction."""

import dataclasses
import sys
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

LARGEST_IMAGE = 4096  # height and width in pixels

Side = Annotated[int, Meta(ge=1, le=LARGEST_IMAGE)]
PerChannel = Annotated[list[Annotated[float, Meta(ge=-1e6, le=1e6)]], Meta(min_length=1, max_length=3)]
Deviations = Annotated[list[Annotated[float, Meta(ge=sys.float_info.min, le=1e6)]], Meta(min_length=1, max_length=3)]


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Resize to `resize` pixels on the shorter side, take the centre of image_size x image_size, then (pixel - mean) / std.

    channels: 3 for RGB, 1 for grey. mean and std: one number per channel, for pixels from 0 to 255. draft: whether a JPEG may be
    decoded at a half, a quarter or an eighth of its size, if that is still large enough: this is fast, and a little smoother
    than resizing alone.
    """

    channels: Literal[1, 3]
    resize: Side
    image_size: Side
    mean: PerChannel
    std: Deviations
    draft: bool = True

    def check(self) -> None:
        """Raise ValueError for numbers that do not fit together."""
        if self.image_size > self.resize:
            raise ValueError(f"image_size {self.image_size} is larger than resize {self.resize}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need a number for each of {self.channels} channels")

    @classmethod
    def from_flat(cls, given: dict[str, Any]) -> "Preparation":
        """A Preparation from its fields by name, as in JSON. Raises ValueError if one is missing, unknown, or not allowed."""
        preparation = msgspec.convert(given, cls)
        preparation.check()
        return preparation


# torchvision's preparation for its AlexNet. It gives ImageNet's mean and standard deviation for pixels from 0 to 1.
TORCHVISION = Preparation(
    channels=3,
    resize=256,
    image_size=224,
    mean=[255 * mean for mean in (0.485, 0.456, 0.406)],
    std=[255 * std for std in (0.229, 0.224, 0.225)],
    draft=False,
)
