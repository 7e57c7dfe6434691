"""The views of an image over which a prediction is averaged."""

from typing import Literal

import numpy as np

PaddingMode = Literal["constant", "reflect"]
VIEWS = 1, 2, 10  # allowed numbers of views


class Views:
    """A transform (minidl.data): the centre of each image, or several views: Krizhevsky 2012, section 4.1.

    (N, C, S, S) -> (count N, C, size, size), with the first views of all images first: the centre, then for count 10 the four
    corners, then for count 2 or 10 the reflections of these. padding, padding_mode: the padding of the image on each side before
    the corners are cut, as in alexnet.augment.RandomCrop. reflection=False leaves out the reflections, so that count 10 gives
    five views.
    """

    def __init__(
        self, size: int, count: int = 1, padding: int = 0, reflection: bool = True, padding_mode: PaddingMode = "constant"
    ):
        self.size, self.count, self.reflection = size, count, reflection
        self.padding, self.padding_mode = padding, padding_mode

    def __call__(self, images, indices, epoch):
        side, size, p = images.shape[2], self.size, self.padding
        # Rounded as in torchvision's CenterCrop.
        middle = round((side - size) / 2)
        if self.count == 1:
            return images[:, :, middle : middle + size, middle : middle + size]
        padded = np.pad(images, ((0, 0), (0, 0), (p, p), (p, p)), self.padding_mode)
        end = side + 2 * p - size
        places = [(middle + p, middle + p), (0, 0), (0, end), (end, 0), (end, end)][: 1 if self.count == 2 else 5]
        views = [padded[:, :, top : top + size, left : left + size] for top, left in places]
        if self.reflection:
            views += [view[..., ::-1] for view in views]
        return np.concatenate(views)
