"""Image files: which there are in a folder, and an image as the array that a network is fed from.

Imported by the processes that read images, so it needs NumPy and Pillow only.
"""

import errno
import os
import re
import stat
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minidl.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]  # by what is in the file, whatever it is called
IGNORED = {"__MACOSX", "@eaDir", "lost+found", "System Volume Information"}  # folders that systems make
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow warns of more, and refuses twice as many
LONGEST = 16  # times as long as high, or less, an image is no very long one
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # what brings an image upright, by its orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that bring the right side to the left or the top, and the lower one.
TO_THE_LEFT = {Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE}
TO_THE_TOP = {Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE}
# What Pillow raises for files that are damaged.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, AttributeError, struct.error, zlib.error)
WHITE = (255, 255, 255, 255)


class ImageError(ValueError):
    """A file is no image that can be read. The message says why, without the name of the file."""


# --- an image -----------------------------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike[str], side: int, channels: int = 3, draft: bool = True) -> np.ndarray:
    """(channels, side, side) uint8: the image resized to `side` pixels on the shorter side, and the centre of it.

    channels: 3 for RGB, 1 for grey. draft: whether a JPEG may be decoded at a half, a quarter or an eighth of its size, if that
    is still large enough; without it the pixels are exactly those of torchvision's Resize and CenterCrop. The first frame of
    several is read. What is transparent lies on white, 16 bits become 8, and the image stands upright as its EXIF data say.
    Resizing is bilinear, with antialiasing. Raises ImageError.
    """
    try:
        with _regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes, which are checked here
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ImageError(f"it has {width} x {height} pixels, and at most {MOST_PIXELS:,} are read")
                if draft:
                    image.draft("RGB", (side, side))
                upright = TURNS.get(_orientation(image))
                centre = _centre(_in_8_bits(image, channels), side, upright, exact=not draft)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("it is not an image of a supported format: JPEG, PNG, WebP, BMP, GIF, TIFF") from None
    except Image.DecompressionBombError:
        raise ImageError(f"it has more than {MOST_PIXELS:,} pixels") from None
    except DAMAGE as error:
        raise ImageError((isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__) from None
    array = np.asarray(centre)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _regular(path: str | os.PathLike[str]) -> Any:
    """The open file. Raises ImageError if it is none, and does not wait for one that is a pipe."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_size:
        return open(descriptor, "rb")
    os.close(descriptor)
    raise ImageError("it is empty" if stat.S_ISREG(about.st_mode) else "it is not a regular file")


def _orientation(image: Image.Image) -> int:
    """From 1, upright, to 8. What cannot be made out is upright."""
    try:
        if image.format in ("PNG", "TIFF"):
            image.load()  # in a PNG it may stand behind the pixels; a TIFF is turned by Pillow itself, which then says so
        return image.getexif().get(ORIENTATION, 1)
    except OSError:
        raise  # of the pixels
    except Exception:  # whatever is made of damaged EXIF data
        return 1


def _in_8_bits(image: Image.Image, channels: int) -> Image.Image:
    """The image in RGB, or in grey."""
    mode = "RGB" if channels == 3 else "L"
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError("it has 32 bits per channel; save it with 8 or 16")
        image = Image.fromarray(((values.astype(np.uint32) * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))
    elif image.has_transparency_data or image.mode in ("La", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _centre(image: Image.Image, side: int, upright: Image.Transpose | None, exact: bool) -> Image.Image:
    """The centre of the resized image, with sizes rounded as torchvision does.

    Only the centre is computed, which is faster, and needs no memory for the rest of an image that is very long. As Pillow keeps
    the box in float32, a pixel may then differ by 1; exact: it does not, if the image is not very long.
    """
    width, height = image.size
    short = min(width, height)
    size = (side * width // short, side * height // short)
    left, top = (round((n - side) / 2) for n in size)
    if upright in TO_THE_LEFT:  # it is turned once it is small, and where the margins are uneven, the larger one goes along
        left = size[0] - side - left
    if upright in TO_THE_TOP:
        top = size[1] - side - top
    if exact and max(size) <= LONGEST * side:
        image = image.resize(size, Image.Resampling.BILINEAR)
    if size == image.size:
        image = image.crop((left, top, left + side, top + side))
    else:
        across, down = width / size[0], height / size[1]
        box = (left * across, top * down, min(width, (left + side) * across), min(height, (top + side) * down))
        image = image.resize((side, side), Image.Resampling.BILINEAR, box)
    return image if upright is None else image.transpose(upright)


# --- a folder -----------------------------------------------------------------------------------------------------------


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image, by its name; hidden ones are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def natural_order(name: str) -> Any:
    """A key that sorts "class 2" before "Class 10"."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part[:1].isdecimal() else (-1, part.casefold()) for part in parts], name


def images_below(folder: str | os.PathLike[str]) -> list[str]:
    """The images in a folder and the folders in it, as deep as they are: names relative to it, in natural order.

    Links are followed, but not round in circles. Raises OSError if a folder cannot be read.
    """
    return list(_walk(os.fspath(folder), "", []))


def _walk(folder: str, prefix: str, above: list[tuple[int, int]]) -> Iterator[str]:
    about = os.stat(folder)
    place = about.st_dev, about.st_ino
    if place in above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: natural_order(entry.name))
    for entry in found:
        if _is_folder(entry):
            yield from _walk(entry.path, f"{prefix}{entry.name}/", [*above, place])
        elif is_image_name(entry.name):
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one that may hold images."""
    try:
        return not entry.name.startswith(".") and entry.name not in IGNORED and entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def class_folders(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Class -> its images, relative to the folder, in which each class has a folder; the classes in natural order.

    Raises UserError for a name that is not UTF-8, and OSError if a folder cannot be read.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry)]
    classes: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: natural_order(unicodedata.normalize("NFC", name))):
        title = unicodedata.normalize("NFC", name)
        try:
            title.encode()
        except UnicodeEncodeError:
            raise UserError(f"{Path(folder) / name}: the name of a class must be UTF-8; rename the folder") from None
        classes.setdefault(title, []).extend(f"{name}/{file}" for file in images_below(os.path.join(folder, name)))
    return classes
