"""How much reading the files slows training on a folder of JPEGs: python benchmarks/images.py

1,024 pictures of 500 x 375 pixels (quality 90, about 75 kB) are made in a temporary folder. The measurements take turns, so that
a slow phase of the machine slows all. Quote the medians of the ratios, with the machine:

    read    images/s of the readers alone, one for each thread, compared with decoding and resizing by Pillow alone in as many
            processes
    loader  the same with crops, reflections and colour noise, as in training
    train   alexnet-2012 with images of 227 x 227 in batches of 32 (W3), compared with 1 / (t + d / threads): t is the time of a
            training image from memory, d the time of decoding alone
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet import builders, image_folders, training
from alexnet.commands import train
from minidl import get_num_threads

SIZE, COUNT, TRAINED = (500, 375), 1024, 512


def make(folder):
    draws = np.random.default_rng(0)
    for part, count in (("train", COUNT), ("val", 16)):
        for i in range(count):
            smooth = Image.fromarray(draws.integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
            pixels = np.asarray(smooth).astype(int) + draws.integers(-8, 9, (SIZE[1], SIZE[0], 1))
            file = folder / part / f"class {i % 8}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, quality=90)


def bare(file, side):
    """Decode and resize a file with Pillow alone: the work that no reader can avoid."""
    with Image.open(file) as image:
        image.draft("RGB", (side, side))
        image = image.convert("RGB")
        short = min(image.size)
        image = image.resize((side * image.width // short, side * image.height // short), Image.Resampling.BILINEAR)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)))


def decode(files, side, results):
    start = time.perf_counter()
    for file in files:
        bare(file, side)
    results.put(len(files) / (time.perf_counter() - start))


def bare_rate(files, side, processes):
    """Images/s of Pillow alone, in `processes` processes together."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=decode, args=(files[i::processes], side, results)) for i in range(processes)]
    for worker in workers:
        worker.start()
    total = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def rate(count, work):
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def opened(folder, cache_bytes):
    """(config, data set, loader of training images), with this much memory for images."""
    image_folders.CACHE_BYTES = cache_bytes
    options = f"--model alexnet-2012 --recipe alexnet-2012 --image-size 227 --batch-size 32 --limit-train {TRAINED} --lr 1e-6"
    config = train.config(train.parser().parse_args(["--data", str(folder), *options.split()]))
    dataset = builders.load_dataset(config)
    config = builders.found(config, dataset)
    return config, dataset, builders.build_loaders(config, dataset, 0, 1)[0]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    rounds = p.parse_args().rounds
    threads = get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        files = sorted((folder / "train").rglob("*.jpg"))[:TRAINED]
        config, from_files, files_loader = opened(folder, 0)
        _, in_memory, memory_loader = opened(folder, 1 << 31)
        side, images = from_files.image_shape[1], files_loader.images
        model = builders.build_model(config)
        optimizer = builders.build_optimizer(config, model)

        def epoch(loader, number):
            training.train_one_epoch(model, optimizer, None, loader, training.Progress(epoch=number), seed=0)

        def read():
            for start in range(0, TRAINED, 64):
                images[np.arange(start, start + 64)]

        epoch(memory_loader, 0)
        ratios = {"read": [], "loader": [], "train": []}
        print(f"{threads} threads, {threads} readers; images/s:   bare   read   loader   memory   train")
        for i in range(rounds):
            pillow = bare_rate(files, side, threads)
            reading = rate(TRAINED, read)
            loading = rate(TRAINED, lambda i=i: [None for _ in files_loader.epoch(i)])
            memory = rate(TRAINED, lambda i=i: epoch(memory_loader, i))
            trained = rate(TRAINED, lambda i=i: epoch(files_loader, i))
            bound = 1 / (1 / memory + 1 / pillow)  # pillow is the rate of all processes together
            for what, ratio in (("read", reading / pillow), ("loader", loading / pillow), ("train", trained / bound)):
                ratios[what].append(ratio)
            print(f"round {i + 1}{'':<28}{pillow:7.0f}{reading:7.0f}{loading:9.0f}{memory:9.1f}{trained:8.1f}", flush=True)
        from_files.close()
        in_memory.close()
    for what, values in ratios.items():
        print(f"{what}: {statistics.median(values):.3f} of the bound ({min(values):.3f} to {max(values):.3f}, n = {rounds})")


if __name__ == "__main__":
    main()
