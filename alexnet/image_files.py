"""Image files: find them in a folder, and read one as an array.

The processes that read images import this module, so it needs only NumPy and Pillow.
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
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]  # by the content of the file, not by its name
IGNORED = {"__MACOSX", "@eaDir", "lost+found", "System Volume Information"}  # folders that operating systems make
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow warns above this, and refuses twice as many
LONGEST = 16  # longer side / shorter side above which an image counts as very long
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # orientation -> the operation that turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Operations that move the right edge to the left or to the top, and those that move the lower edge there.
TO_THE_LEFT = {Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE}
TO_THE_TOP = {Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE}
# Exceptions that Pillow raises for damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, AttributeError, struct.error, zlib.error)
WHITE = (255, 255, 255, 255)


class ImageError(ValueError):
    """A file is not a readable image. The message is the reason, without the name of the file."""


# --- an image -----------------------------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike[str], side: int, channels: int = 3, draft: bool = True) -> np.ndarray:
    """(channels, side, side) uint8: the image resized to `side` pixels on the shorter side, and the centre of it.

    channels: 3 for RGB, 1 for grey. draft: whether a JPEG may be decoded at a half, a quarter or an eighth of its size, if that
    is still large enough; without it the pixels are exactly those of torchvision's Resize and CenterCrop. Only the first frame
    is read. Transparent images are put on white, 16 bits are reduced to 8, and the image is turned upright by its EXIF
    orientation. Resizing is bilinear, with antialiasing. Raises ImageError.
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
    """The open file. Raises ImageError if it is empty or not a regular file; does not wait for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_size:
        return open(descriptor, "rb")
    os.close(descriptor)
    raise ImageError("it is empty" if stat.S_ISREG(about.st_mode) else "it is not a regular file")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1, upright, to 8; 1 if it is missing or damaged."""
    try:
        if image.format in ("PNG", "TIFF"):
            image.load()  # in a PNG it may follow the pixels; Pillow turns a TIFF itself, and then sets this to 1
        return image.getexif().get(ORIENTATION, 1)
    except OSError:
        raise  # the pixels are damaged
    except Exception:  # damaged EXIF data can raise anything
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

    Only the centre is computed: this is faster, and a very long image needs no memory for the rest. Pillow keeps the box in
    float32, so a pixel may then differ by 1. exact: resize the whole image, unless it is very long, so that no pixel differs.
    """
    width, height = image.size
    short = min(width, height)
    size = (side * width // short, side * height // short)
    left, top = (round((n - side) / 2) for n in size)
    if upright in TO_THE_LEFT:  # the image is turned after resizing; if the margins are uneven, they must be swapped before
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
    """Whether the name is that of an image, by its extension. Hidden files do not count."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def natural_order(name: str) -> Any:
    """A key that sorts "class 2" before "Class 10"."""
    parts = re.split(r"([0-9]+)", name)  # every second part is a number
    return [(int(part), "") if i % 2 else (-1, part.casefold()) for i, part in enumerate(parts)], name


def images_below(folder: str | os.PathLike[str]) -> list[str]:
    """The images in a folder and in all folders below it: names relative to the folder, in natural order.

    Symbolic links are followed, but not in cycles. Raises OSError if a folder cannot be read.
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
    """Whether the entry is a folder that may hold images."""
    try:
        return not entry.name.startswith(".") and entry.name not in IGNORED and entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def class_folders(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Class -> its images, as names relative to the folder. Each class is a folder in it; the classes are in natural order.

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
