"""Makes a copy of CIFAR-10's files with JPEG-compressed images, to measure how much accuracy that costs.

    python benchmarks/jpeg_copy.py --quality 75 jpeg
    python train.py --data-dir jpeg

Each image is padded by reflection, compressed, and cropped again. So the blocks of JPEG are shifted against those of an earlier
compression, and a second compression loses nearly as much as the first.
"""

import argparse
import io
import pickle
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet import cifar10_files, datasets
from alexnet.datasets import Split
from minidl.errors import UserError

FRAME = 4  # half of a block of 8 pixels, a quarter of a colour block, which has half the resolution


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """An image (3, H, W) of bytes after JPEG compression of this quality, with colours at half the resolution."""
    framed = np.pad(image, ((0, 0), (FRAME, FRAME), (FRAME, FRAME)), "reflect").transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(framed).save(file, "JPEG", quality=quality)
    with Image.open(file) as back:
        return np.asarray(back)[FRAME:-FRAME, FRAME:-FRAME].transpose(2, 0, 1)


def write(path: Path, split: Split, quality: int) -> None:
    """Write a file in the official layout, which is a pickle. The data is this project's own, so pickling is safe."""
    data = np.stack([compressed(image, quality) for image in split.images]).reshape(len(split), -1)
    path.write_bytes(pickle.dumps({"data": data, "labels": split.labels.tolist()}))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("target", type=Path, metavar="DIR", help="a new folder, for train.py's --data-dir")
    p.add_argument("--quality", type=int, default=75, help="the quality of JPEG in Pillow (default 75)")
    p.add_argument("--data-dir", metavar="DIR", help="where CIFAR-10 is (default $MINIDL_DATA, else ~/.cache/minidl)")
    args = p.parse_args()
    try:
        dataset = datasets.load("cifar10", args.data_dir)
        place = args.target / cifar10_files.FOLDER
        place.mkdir(parents=True)
        *train, test = cifar10_files.NAMES
        for name, part in zip(train, np.split(np.arange(len(dataset.train)), len(train)), strict=True):
            write(place / name, dataset.train.chosen(part), args.quality)
        write(place / test, dataset.test, args.quality)
        (place / "batches.meta").write_bytes(pickle.dumps({"label_names": list(dataset.classes)}))
    except (UserError, OSError) as error:
        print(f"jpeg_copy.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
