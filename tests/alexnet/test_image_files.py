"""Image files of every kind are read as arrays, other files are refused, and the images of a folder are found."""

import contextlib
import io
import os
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet import image_files
from alexnet.image_files import ImageError, class_folders, images_below, is_image_name, natural_order, read_image
from minidl.errors import UserError

R = np.random.default_rng(0)
PIXELS = R.integers(0, 256, (8, 8, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def rgb(array):
    """An array (H, W, 3) as (3, H, W), which read_image returns."""
    return np.asarray(array).transpose(2, 0, 1)


# --- kinds of images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.JPEG.png"])
def test_colour_images_are_read(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    file = saved(tmp_path / name, Image.fromarray(PIXELS), **options)
    np.testing.assert_array_equal(read_image(file, 8), rgb(PIXELS))


def test_jpeg_images_are_read(tmp_path):
    file = saved(tmp_path / "a.jpg", Image.fromarray(PIXELS), quality=95)
    with Image.open(file) as image:
        np.testing.assert_array_equal(read_image(file, 8), rgb(image))


def test_the_content_of_a_file_decides_not_its_name(tmp_path):
    """ImageNet has PNG files that are called JPEG."""
    file = tmp_path / "a.JPEG"
    Image.fromarray(PIXELS).save(file, format="PNG")
    np.testing.assert_array_equal(read_image(file, 8), rgb(PIXELS))


def test_grey_images_are_read(tmp_path):
    file = saved(tmp_path / "a.png", Image.fromarray(PIXELS[..., 0]))
    np.testing.assert_array_equal(read_image(file, 8), np.stack([PIXELS[..., 0]] * 3))
    np.testing.assert_array_equal(read_image(file, 8, channels=1), PIXELS[None, ..., 0])


def test_colours_become_grey(tmp_path):
    file = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
    luma = PIXELS @ [0.299, 0.587, 0.114]
    assert abs(read_image(file, 8, channels=1)[0] - luma).max() <= 1


def test_one_bit_images_are_read(tmp_path):
    file = saved(tmp_path / "a.png", Image.fromarray(PIXELS[..., 0] > 127))
    np.testing.assert_array_equal(read_image(file, 8)[0], 255 * (PIXELS[..., 0] > 127))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
def test_palette_images_are_read(tmp_path, name):
    image = Image.fromarray(PIXELS // 128 * 200).quantize(8)
    file = saved(tmp_path / name, image)
    np.testing.assert_array_equal(read_image(file, 8), rgb(image.convert("RGB")))


def test_a_transparent_palette_entry_becomes_white(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(1, (0, 0, 8, 4))
    file = saved(tmp_path / "a.png", image, transparency=0)
    array = read_image(file, 8)
    assert (array[:, :4] == [[[40]], [[50]], [[60]]]).all() and (array[:, 4:] == 255).all()


def test_a_transparent_colour_becomes_white(tmp_path):
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, 8, 4))
    array = read_image(saved(tmp_path / "a.png", image, transparency=(1, 2, 3)), 8)
    assert (array[:, :4] == 9).all() and (array[:, 4:] == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_is_drawn_on_white(tmp_path, mode):
    image = Image.new(mode, (8, 8), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.paste((100, 100, 100, 255) if mode == "RGBA" else (100, 255), (0, 0, 8, 2))
    image.paste((0, 0, 0, 128) if mode == "RGBA" else (0, 128), (0, 2, 8, 4))
    array = read_image(saved(tmp_path / "a.png", image), 8)
    assert (array[:, :2] == 100).all() and (array[:, 2:4] == 127).all() and (array[:, 4:] == 255).all()


def test_cmyk_images_are_read(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow ink make red
    red, green, blue = read_image(saved(tmp_path / "a.jpg", image, quality=95), 8)
    assert red.min() > 240 and green.max() < 15 and blue.max() < 15


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_images_become_8_bit_images(tmp_path, name):
    values = np.array([[0, 128, 257], [0x7FFF, 0x8000, 0xFFFF], [1000, 2000, 60000]], np.uint16)
    file = saved(tmp_path / name, Image.fromarray(values))
    np.testing.assert_array_equal(read_image(file, 3)[0], np.floor(values / 257 + 0.5))
    np.testing.assert_array_equal(read_image(file, 3, channels=1)[0], np.floor(values / 257 + 0.5))


def test_big_endian_16_bit_images_are_read(tmp_path):
    values = np.array([[0, 0x1234], [0x8000, 0xFFFF]], np.uint16)
    file = tmp_path / "a.tif"
    tags = [(256, 3, 1, 2 << 16), (257, 3, 1, 2 << 16), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16), (262, 3, 1, 1 << 16)]
    tags += [(273, 4, 1, 200), (277, 3, 1, 1 << 16), (278, 3, 1, 2 << 16), (279, 4, 1, 8)]
    content = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags) + bytes(4)
    file.write_bytes(content.ljust(200, b"\0") + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(file, 2)[0], np.floor(values / 257 + 0.5))


def test_16_bit_colours_are_read(tmp_path):
    """Pillow keeps the higher byte."""
    values = R.integers(0, 65536, (4, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    file = tmp_path / "a.png"
    file.write_bytes(png((4, 4), rows, depth=16))
    assert abs(read_image(file, 4).transpose(1, 2, 0) - values / 257.0).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_are_refused(tmp_path, mode):
    file = saved(tmp_path / "a.tif", Image.new(mode, (4, 4), 100_000))
    with pytest.raises(ImageError, match="it has 32 bits per channel; save it with 8 or 16"):
        read_image(file, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(30, 20), (20, 31), (8, 8)])
def test_images_are_rotated_upright(tmp_path, orientation, size):
    """The result is that of the upright image; if it is not resized, pixel by pixel."""
    upright = Image.fromarray(R.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # for each orientation, the Transpose that undoes it
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    side = min(size)
    expected = read_image(saved(tmp_path / "upright.png", upright), side)
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_image(saved(tmp_path / name, turned, exif=exif), side), expected)
    small = abs(read_image(tmp_path / "a.png", 7).astype(int) - read_image(tmp_path / "upright.png", 7)).max()
    assert small <= 1


def test_a_jpeg_is_rotated_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # means: rotate clockwise to show it
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (0, 0, 20, 20))
    array = read_image(saved(tmp_path / "a.jpg", image, exif=exif), 20)
    assert array[:, :9].min() > 200 and array[:, 11:].max() < 50


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(50), b"nonsense" * 9])
def test_damaged_exif_is_ignored(tmp_path, exif):
    file = saved(tmp_path / "a.jpg", Image.fromarray(PIXELS), exif=exif, quality=95)
    assert read_image(file, 8).shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = tmp_path / "a"
    frames[0].save(file, format=kind, save_all=True, append_images=frames[1:], **options)
    assert (read_image(file, 8) == [[[255]], [[0]], [[0]]]).all()


# --- sizes ------------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 60), height=st.integers(1, 60), side=st.integers(1, 40))
def test_the_centre_of_the_resized_image_is_read(tmp_path_factory, width, height, side):
    """Like torchvision's Resize(side) and CenterCrop(side): exactly, or with draft to within 1."""
    image = Image.fromarray(R.integers(0, 256, (height, width, 3), dtype=np.uint8))
    file = saved(tmp_path_factory.getbasetemp() / "a.bmp", image)
    short = min(width, height)
    size = int(side * width / short), int(side * height / short)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (int(round((n - side) / 2.0)) for n in size)  # noqa: RUF046
    expected = rgb(resized.crop((left, top, left + side, top + side)))
    assert abs(read_image(file, side).astype(int) - expected).max() <= 1
    if max(size) <= image_files.LONGEST * side:
        np.testing.assert_array_equal(read_image(file, side, draft=False), expected)


def test_an_image_of_the_right_size_is_not_resized(tmp_path):
    image = Image.fromarray(R.integers(0, 256, (8, 15, 3), dtype=np.uint8))
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", image), 8), rgb(image)[:, :, 4:12])


def test_a_very_long_image_needs_little_memory(tmp_path):
    file = saved(tmp_path / "a.png", Image.new("RGB", (60_000, 1), (9, 8, 7)))
    assert (read_image(file, 256) == [[[9]], [[8]], [[7]]]).all()


def test_a_draft_is_decoded_smaller_and_looks_almost_the_same(tmp_path, monkeypatch):
    smooth = Image.fromarray(PIXELS).resize((800, 600), Image.Resampling.BICUBIC)
    file = saved(tmp_path / "a.jpg", smooth, quality=95)
    sizes = []
    centre = image_files._centre
    monkeypatch.setattr(
        image_files, "_centre", lambda image, *args, **how: sizes.append(image.size) or centre(image, *args, **how)
    )
    draft, whole = read_image(file, 64), read_image(file, 64, draft=False)
    assert sizes == [(100, 75), (800, 600)]
    assert abs(draft.astype(int) - whole).mean() < 1.5
    assert read_image(file, 76).shape == (3, 76, 76) and sizes[-1] == (200, 150)  # never smaller than the result


# --- files that are no images -----------------------------------------------------------------------------------------------


def png(size, rows, depth=8):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", *size, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(kind):
    file = io.BytesIO()
    Image.fromarray(R.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, format=kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "it is empty"),
        (b"no picture at all", "it is not an image of a supported format: JPEG, PNG, WebP, BMP, GIF, TIFF"),
        (b"GIF89a", "it is not an image of a supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is not an image of a supported format"),
        (png((60_000, 60_000), b""), "it has more than 89,478,485 pixels"),
        (png((9500, 9500), b""), "it has 9500 x 9500 pixels, and at most 89,478,485 are read"),
        (png((8, 8), b"\0"), "image file is truncated"),
    ],
)
def test_files_that_are_no_images_are_refused(tmp_path, content, reason):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image(file, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_files_that_are_cut_short_are_refused(tmp_path, kind):
    content, file = encoded(kind), tmp_path / "a"
    for share in (0.2, 0.5, 0.9):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError):
            read_image(file, 8)


def test_a_wrong_checksum_is_refused(tmp_path):
    content = bytearray(encoded("PNG"))
    content[60] ^= 255
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.png", 8)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_are_read_or_refused(tmp_path_factory, kind, changes):
    content = bytearray(encoded(kind))
    for place, value in changes:
        content[place % min(len(content), 600)] = value
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(content)
    with contextlib.suppress(ImageError):
        assert read_image(file, 8).shape == (3, 8, 8)


def test_paths_that_are_no_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, reason in [
        (tmp_path / "pipe.png", "it is not a regular file"),
        (tmp_path, "it is not a regular file|Is a directory"),
        (tmp_path / "nothing.png", "No such file"),
        ("/dev/zero", "it is not a regular file"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(path, 8)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
def test_no_file_is_left_open(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x" * 100)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.png", "b.png", "."):
        with pytest.raises(ImageError):
            read_image(tmp_path / name, 8)
    assert len(os.listdir("/proc/self/fd")) == before


# --- the images of a folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.b.webp", "a.bmp", "a.gif", "a.tif", "A.TIFF", "a.jfif"])
def test_names_of_images_are_recognised(name):
    assert is_image_name(name)


@pytest.mark.parametrize("name", [".a.jpg", "._a.jpg", "Thumbs.db", "desktop.ini", "a", "jpg", "a.jpg.txt", "a.npy", ".jpg"])
def test_names_of_other_files_are_not_images(name):
    assert not is_image_name(name)


def test_natural_order_compares_numbers_as_numbers():
    names = ["b10", "b9", "B2", "a", "b", "10", "9", "b1.5", "b1.10", "b01", "b1"]
    assert sorted(names, key=natural_order) == ["9", "10", "a", "b", "b01", "b1", "b1.5", "b1.10", "B2", "b9", "b10"]


@given(names=st.lists(st.text(max_size=6), max_size=6))
@example(names=["\u06f0:", "1:"])  # a digit, but not from 0 to 9
def test_natural_order_is_a_total_order(names):
    other_way = names[::-1]
    assert sorted(names, key=natural_order) == sorted(other_way, key=natural_order)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_below_a_folder_are_found(tmp_path):
    touch(tmp_path, "b/2.jpg", "b/10.jpg", "b/c/d/1.png", "a.jpg", "notes.txt", ".hidden/x.jpg", "__MACOSX/x.jpg", "b/._2.jpg")
    assert images_below(tmp_path) == ["a.jpg", "b/2.jpg", "b/10.jpg", "b/c/d/1.png"]


def test_links_are_followed_but_cycles_are_not(tmp_path):
    touch(tmp_path, "real/1.jpg", "folder/2.jpg")
    (tmp_path / "folder/link.jpg").symlink_to(tmp_path / "real/1.jpg")
    (tmp_path / "folder/linked").symlink_to(tmp_path / "real")
    (tmp_path / "folder/circle").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/self").symlink_to(tmp_path / "folder/self")
    (tmp_path / "real/back").symlink_to(tmp_path / "folder")
    assert images_below(tmp_path / "folder") == ["2.jpg", "link.jpg", "linked/1.jpg"]


def test_classes_are_the_subfolders(tmp_path):
    touch(tmp_path, "dog 10/1.jpg", "dog 9/1.jpg", "cat/x/1.jpg", "stray.jpg", ".git/1.jpg", "Thumbs.db")
    (tmp_path / "empty").mkdir()
    found = class_folders(tmp_path)
    assert found == {"cat": ["cat/x/1.jpg"], "dog 9": ["dog 9/1.jpg"], "dog 10": ["dog 10/1.jpg"], "empty": []}
    assert list(found) == ["cat", "dog 9", "dog 10", "empty"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_class_names_sort_the_same(tmp_path, form):
    """macOS decomposes file names: "é" would be an "e" and an accent, and come before "f"."""
    touch(tmp_path, *(unicodedata.normalize(form, name) + "/1.jpg" for name in ("élan", "fox", "eel")))
    assert list(class_folders(tmp_path)) == ["eel", "fox", "élan"]


def test_a_class_name_that_is_not_utf_8_is_refused(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(UserError, match="the name of a class must be UTF-8; rename the folder"):
        class_folders(tmp_path)
