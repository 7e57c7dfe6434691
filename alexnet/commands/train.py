"""Train AlexNet.

    python train.py                                 AlexNet with batch normalisation on CIFAR-10, ten epochs
    python train.py --model cifar-lrn               with local response normalisation instead
    python train.py --data digits                   on the handwritten digits that come with minidl: no download, a minute or two
    python train.py --data FOLDER                   on your images: FOLDER/train and FOLDER/val, each with one folder per class
    python train.py --resume runs/NAME              resume a run that was stopped
    python train.py --resume runs/NAME --epochs 20  train a finished run for longer, up to 20 epochs in all

The last line on standard output is the result: test loss: 0.7798 - accuracy: 0.8114
Exit status: 0 done, 1 the training failed, 2 wrong usage or data; stopped and saved: 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
"""

import argparse
import dataclasses
import os
import platform
import sys

import numpy as np

import minidl
from minidl.backend import PRECISIONS
from minidl.errors import UserError
from minidl.parallel import mpi

from .. import entry, launch, weights
from ..builders import moved
from ..config import Config
from ..datasets import cifar10_place
from ..models import IMAGE_SIZE, NETWORKS
from ..preparation import LARGEST_IMAGE, Preparation
from ..recipes import MOST, RECIPES, Recipe, find_recipe
from ..run import RunFolder
from .arguments import Parser, device_list, folder_name, number

MOST_SIZE = LARGEST_IMAGE // 2  # height and width of the network's input
FINITE = sys.float_info.max
VERSIONS = {"minidl": minidl.__version__, "numpy": np.__version__, "python": platform.python_version()}

# The settings of a run without options; the recipe has the others.
DEFAULTS = {
    "backend": "numpy",
    "model": "cifar-bn",
    "data": "cifar10",
    "dtype": "float32",
    "precision": "fp32",
    "seed": 0,
    "limit_train": None,
    "limit_test": None,
    "parallel": "auto",
    "save_minutes": 10.0,
    "tensorboard": False,
    "validation": None,
    "balance": False,
    "init": None,
    "freeze": None,
}
RESUME_OPTIONS = {"resume", "backend", "devices", "parallel", "data_dir", "epochs", "save_minutes", "tensorboard"}


def share_or_count(text: str) -> int | float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < 1 or (text.isdecimal() and 1 <= value <= MOST)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0.2, nor an integer from 1 to 1,000,000")
    return value if value < 1 else int(text)


def prefixes(text: str) -> str:
    if not all(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name prefix such as features, or several with commas between")
    return text


def parser() -> argparse.ArgumentParser:
    p = Parser("train.py", __doc__)
    count = number(int, 1, MOST, "an integer from 1 to 1,000,000")
    p.add_argument("--backend", choices=["numpy", "cupy"], help="array library: numpy for CPUs, cupy for GPUs (default numpy)")
    p.add_argument(
        "--devices",
        type=device_list,
        metavar="0,1",
        help="GPUs, or processes that share the CPU; they divide each batch (default 0, which was measured fastest on a CPU)",
    )
    p.add_argument(
        "--parallel",
        choices=["auto", "data", "hybrid", "towers"],
        help="what each device holds: the whole network (data), the convolutions and a shard of each fully connected layer "
        "(hybrid), or half of each layer of alexnet-2012 or net-145 (towers); the results are the same (default auto: data or "
        "hybrid, see docs/parallel.md)",
    )
    p.add_argument(
        "--model",
        choices=list(NETWORKS),
        metavar="NAME",
        help="network: cifar-bn (default), cifar-lrn, alexnet-2012, net-145, alexnet-torchvision, or a smaller one such as "
        "small-bn (see alexnet/variants.py)",
    )
    p.add_argument(
        "--data",
        metavar="cifar10|digits|FOLDER",
        help="data set; FOLDER contains train and val, each with one folder per class (default cifar10)",
    )
    p.add_argument(
        "--validation",
        type=share_or_count,
        metavar="N|SHARE",
        help="hold out N training images, or a SHARE of each class such as 0.2, and test on them instead of the test images",
    )
    p.add_argument("--balance", action="store_true", help="weight the loss so that all classes count the same")
    p.add_argument(
        "--image-size",
        type=number(int, 1, MOST_SIZE, "an integer from 1 to 2048"),
        metavar="N",
        help="height and width of the network's input, for a FOLDER of images (default: that of --init; else 224 for alexnet-* "
        "and net-145, 32 for the others)",
    )
    p.add_argument(
        "--init",
        type=folder_name,
        metavar="RUN|FILE",
        help="start from the weights of a run, of a file written by export, or of torchvision's AlexNet (.safetensors, .pth)",
    )
    p.add_argument(
        "--freeze",
        type=prefixes,
        metavar="PREFIX",
        help="do not train the parameters whose names begin with PREFIX, such as features, or conv,bn",
    )
    p.add_argument(
        "--data-dir",
        type=folder_name,
        metavar="DIR",
        help="where CIFAR-10 is, or is downloaded to (default $MINIDL_DATA, else ~/.cache/minidl); with --resume, where FOLDER "
        "or CIFAR-10 is now",
    )
    p.add_argument("--recipe", choices=list(RECIPES), help="hyper-parameters (default: digits for the digits, else default)")
    p.add_argument("--epochs", type=count, metavar="N", help="epochs in all (default: the recipe's; 10 for cifar10)")
    p.add_argument("--batch-size", type=count, metavar="N", help="images in a batch (default: the recipe's; 128 for cifar10)")
    p.add_argument(
        "--lr",
        type=number(float, 0.0, FINITE, "a number above 0"),
        metavar="X",
        help="highest learning rate (default: the recipe's)",
    )
    p.add_argument("--dtype", choices=["float32", "float64"], help="dtype of weights and activations (default float32)")
    p.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="precision of float32 matrix products on GPUs: fp32, or faster tf32 or fp16, all with float32 sums (default fp32)",
    )
    p.add_argument(
        "--seed",
        type=number(int, 0, 2**63 - 1, "an integer from 0 to 2**63 - 1"),
        metavar="N",
        help="seed of all random numbers (default 0)",
    )
    p.add_argument("--limit-train", type=count, metavar="N", help="train on N images, with balanced classes (default all)")
    p.add_argument("--limit-test", type=count, metavar="N", help="test on N images, with balanced classes (default all)")
    p.add_argument("--out", type=folder_name, metavar="DIR", help="new folder for the run (default runs/MODEL-DATA-RECIPE-TIME)")
    p.add_argument(
        "--save-minutes",
        type=number(float, 0.0, 1e6, "a number of minutes above 0, up to 1,000,000"),
        metavar="N",
        help="longest time between two checkpoints; one is also saved after every epoch (default 10)",
    )
    p.add_argument("--tensorboard", action="store_true", help="also write event files for TensorBoard, into the run's folder")
    p.add_argument(
        "--resume",
        type=folder_name,
        metavar="RUN",
        help="resume a run; with it you can change --backend, --devices, --parallel, --data-dir and --save-minutes, raise "
        "--epochs, and add --tensorboard",
    )
    return p


def config(args: argparse.Namespace) -> Config:
    """All settings of a new run: the given options, and the defaults and the recipe's values for the others."""
    asked = vars(args)
    settings = {name: asked.get(name, default) for name, default in DEFAULTS.items()}
    precision = settings["precision"]
    if precision != "fp32" and (settings["backend"], settings["dtype"]) != ("cupy", "float32"):
        raise UserError(f"--precision {precision} is for GPUs and float32: it needs --backend cupy and --dtype float32")
    loaded = preparation = None
    if "init" in asked:
        settings["init"] = str(asked["init"])
        loaded = weights.read(asked["init"])
        preparation = loaded.preparation
        settings["model"] = asked.get("model", loaded.model)
    data, model = settings["data"], settings["model"]
    if data in ("cifar10", "digits"):
        if "image_size" in asked:
            raise UserError(f"--image-size is for a folder of images; those of {data} have a fixed size")
        recipe = find_recipe(asked.get("recipe"), data, model)
    else:
        folder = os.path.expanduser(data)
        settings["data"] = os.path.abspath(folder) if os.path.isdir(folder) else data
        usual = loaded.preparation.image_size if loaded and loaded.model == model else IMAGE_SIZE[model]
        size = asked.get("image_size", usual)
        recipe = find_recipe(asked.get("recipe"), data, model, size)
        mean, std = (preparation.mean, preparation.std) if preparation else ([0.0] * 3, [1.0] * 3)
        preparation = Preparation(3, round(size / recipe.crop), size, mean, std)
    changes = {field.name: asked[field.name] for field in dataclasses.fields(Recipe) if field.name in asked}
    devices, world_size, threads = places(asked.get("devices"), [0])
    return Config(
        **settings,
        recipe=dataclasses.replace(recipe, **changes),
        data_dir=str(cifar10_place(asked.get("data_dir"))) if data == "cifar10" else None,
        devices=devices,
        world_size=world_size,
        threads=threads,
        versions=VERSIONS,
        preparation=preparation,
    )


def resumed_config(args: argparse.Namespace, before: Config) -> Config:
    """The settings of a resumed run: those that it had, with the given options and the devices and threads of this machine."""
    asked = vars(args)
    epochs = asked.get("epochs", before.recipe.epochs)
    if epochs < before.recipe.epochs:
        raise UserError(
            f"--epochs {epochs}: this run has {before.recipe.epochs} epochs; to resume it, give that number or a larger one"
        )
    backend = asked.get("backend", before.backend)
    devices, world_size, threads = places(asked.get("devices"), before.devices)
    if not mpi.started() and "devices" not in asked and world_size != before.world_size:
        raise UserError(
            f"this run has {before.world_size} devices, {len(before.devices)} on each machine: use mpiexec, or give --devices"
        )
    if (backend, devices, world_size) == (before.backend, before.devices, before.world_size):
        if threads != before.threads and mpi.first_on_machine():
            entry.tell(f"resuming with {before.threads} threads, as in config.json; a new run here has {threads}")
        threads = before.threads
    return dataclasses.replace(
        moved(before, str(asked["data_dir"])) if "data_dir" in asked else before,
        recipe=dataclasses.replace(before.recipe, epochs=epochs),
        backend=backend,
        precision=before.precision if backend == "cupy" else "fp32",
        devices=devices,
        world_size=world_size,
        threads=threads,
        parallel=asked.get("parallel", before.parallel),
        save_minutes=asked.get("save_minutes", before.save_minutes),
        tensorboard=before.tensorboard or "tensorboard" in asked,
        versions=VERSIONS,
    )


def places(asked: list[int] | None, default: list[int]) -> tuple[list[int], int, int]:
    """(devices, world_size, threads): the devices of this machine, how many all machines have, and the threads of each."""
    devices = asked or default
    world_size = neighbours = len(devices)
    if mpi.started():
        world_size, neighbours = mpi.world_size(), mpi.local_rank()[1]
        if asked and len(asked) != neighbours:
            raise UserError(f"--devices: MPI has started {neighbours} processes on this machine; give one device for each")
        devices = asked or list(range(neighbours))
    return devices, world_size, max(1, minidl.get_num_threads() // neighbours)


def main(arguments: list[str]) -> int:
    """Train, and return the exit status. Raises UserError for an error that the user can fix."""
    args = parser().parse_args(arguments)
    if "resume" not in args:
        return launch.start(config(args), getattr(args, "out", None))
    if wrong := sorted(set(vars(args)) - RESUME_OPTIONS):
        raise UserError(
            f"--resume takes no --{wrong[0].replace('_', '-')}: the run's settings are in {args.resume / 'config.json'}; "
            f"it takes {', '.join('--' + name.replace('_', '-') for name in sorted(RESUME_OPTIONS - {'resume'}))}"
        )
    folder = RunFolder.read(args.resume)
    return launch.resume(folder, resumed_config(args, folder.config))
