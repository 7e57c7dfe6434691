"""Train AlexNet.

    python train.py                                 the deck's AlexNet with batch norm on CIFAR-10, ten epochs
    python train.py --model cifar-lrn               the deck's other variant
    python train.py --data digits                   on the handwritten digits that come with it: no download, a minute
    python train.py --data FOLDER                   on your own images: FOLDER/train and FOLDER/val, a folder a class in each
    python train.py --resume runs/NAME              go on with a run that was stopped
    python train.py --resume runs/NAME --epochs 20  train a finished run longer

The last line on standard output is the result: test loss: 0.7798 - accuracy: 0.8114
Exit status: 0 done, 1 the training failed, 2 wrong usage or data, 129, 130 or 143 stopped by SIGHUP, Ctrl-C or
SIGTERM, after saving.
"""

import argparse
import dataclasses
import os
import platform
import sys
from pathlib import Path

import numpy as np

import minidl
from minidl.backend import PRECISIONS
from minidl.errors import UserError
from minidl.parallel import mpi

from .. import entry, launch, weights
from ..builders import moved
from ..config import Config
from ..datasets import cifar10_place
from ..models import IMAGE_SIZE, MODELS
from ..preparation import LARGEST_IMAGE, Preparation
from ..recipes import MOST, RECIPES, Recipe, find_recipe
from ..run import RunFolder
from .arguments import Parser, device_list, number

MOST_SIZE = LARGEST_IMAGE // 2  # of what the network sees of an image
FINITE = sys.float_info.max
VERSIONS = {"minidl": minidl.__version__, "numpy": np.__version__, "python": platform.python_version()}

# What a run has unless it is asked for something else; the recipe tells the rest.
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
GO_ON_WITH = {"resume", "backend", "devices", "parallel", "data_dir", "epochs", "save_minutes", "tensorboard"}


def folder_name(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("give the name of a folder")
    return Path(text)


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
        raise argparse.ArgumentTypeError(f"{text!r} is not the beginning of a name, such as features, nor several with commas")
    return text


def parser() -> argparse.ArgumentParser:
    p = Parser("train.py", __doc__)
    count = number(int, 1, MOST, "an integer from 1 to 1,000,000")
    p.add_argument("--backend", choices=["numpy", "cupy"], help="array library: numpy for CPUs, cupy for GPUs (default numpy)")
    p.add_argument(
        "--devices",
        type=device_list,
        metavar="0,1",
        help="GPUs, or processes that share the CPU; they divide the batch (default 0: measured fastest on a CPU)",
    )
    p.add_argument(
        "--parallel",
        choices=["auto", "data", "hybrid", "towers"],
        help="what each device has: the network (data), the convolutions and a share of each fully connected layer (hybrid), or "
        "half of each layer of alexnet-2012 or net-145 (towers); the results are the same (default auto: data or hybrid, see "
        "docs/parallel.md)",
    )
    p.add_argument("--model", choices=list(MODELS), help="network (default cifar-bn)")
    p.add_argument(
        "--data",
        metavar="cifar10|digits|FOLDER",
        help="data set; FOLDER has train and val in it, and these a folder a class (default cifar10)",
    )
    p.add_argument(
        "--validation",
        type=share_or_count,
        metavar="N|SHARE",
        help="test on N of the training images, or on a SHARE of each class such as 0.2, in place of the test images",
    )
    p.add_argument("--balance", action="store_true", help="weigh the loss so that classes of uneven size count the same")
    p.add_argument(
        "--image-size",
        type=number(int, 1, MOST_SIZE, "an integer from 1 to 2048"),
        metavar="N",
        help="height and width that a FOLDER's images have for the network (default 32 for cifar-*, 224 for the others)",
    )
    p.add_argument(
        "--init",
        type=folder_name,
        metavar="RUN|FILE",
        help="start from the weights of a run, of a file that export wrote, or of torchvision's AlexNet (.safetensors, .pth)",
    )
    p.add_argument(
        "--freeze",
        type=prefixes,
        metavar="PREFIX",
        help="keep parameters still whose names begin so, such as features, or conv,bn",
    )
    p.add_argument(
        "--data-dir",
        type=folder_name,
        metavar="DIR",
        help="where CIFAR-10 is or shall be (default $MINIDL_DATA, else ~/.cache/minidl); with --resume, a moved FOLDER",
    )
    p.add_argument("--recipe", choices=list(RECIPES), help="hyper-parameters (default: digits for the digits, else default)")
    p.add_argument("--epochs", type=count, metavar="N", help="(default: the recipe's; 10 for cifar10)")
    p.add_argument("--batch-size", type=count, metavar="N", help="images a step (default: the recipe's; 128 for cifar10)")
    p.add_argument(
        "--lr",
        type=number(float, 0.0, FINITE, "a number above 0"),
        metavar="X",
        help="highest learning rate (default: the recipe's)",
    )
    p.add_argument("--dtype", choices=["float32", "float64"], help="of weights and activations (default float32)")
    p.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="in which GPUs multiply matrices of float32: fp32, or faster in tf32 or fp16, with float32 sums (default fp32)",
    )
    p.add_argument(
        "--seed",
        type=number(int, 0, 2**63 - 1, "an integer from 0 to 2**63 - 1"),
        metavar="N",
        help="of everything random (default 0)",
    )
    p.add_argument("--limit-train", type=count, metavar="N", help="train on N images, the classes balanced (default all)")
    p.add_argument("--limit-test", type=count, metavar="N", help="test on N images, the classes balanced (default all)")
    p.add_argument(
        "--out", type=folder_name, metavar="DIR", help="folder of the run, a new one (default runs/MODEL-DATA-RECIPE-TIME)"
    )
    p.add_argument(
        "--save-minutes",
        type=number(float, 0.0, 1e6, "a number of minutes above 0, up to 1,000,000"),
        metavar="N",
        help="longest time between two checkpoints; there is one after every epoch (default 10)",
    )
    p.add_argument("--tensorboard", action="store_true", help="write event files for TensorBoard, too, into the run's folder")
    p.add_argument(
        "--resume",
        type=folder_name,
        metavar="RUN",
        help="go on with a run; it may get another --backend, --devices, --parallel, --data-dir or --save-minutes, and more "
        "--epochs",
    )
    return p


def config(args: argparse.Namespace) -> Config:
    """All settings of a new run: what was asked for, else the defaults and the recipe's values."""
    asked = vars(args)
    settings = {name: asked.get(name, default) for name, default in DEFAULTS.items()}
    precision = settings["precision"]
    if precision != "fp32" and (settings["backend"], settings["dtype"]) != ("cupy", "float32"):
        raise UserError(f"--precision {precision} is for GPUs and float32: it takes --backend cupy, and no other --dtype")
    preparation = None
    if "init" in asked:
        settings["init"] = str(asked["init"])
        loaded = weights.read(asked["init"])
        preparation = loaded.preparation
        settings["model"] = asked.get("model", loaded.model)
    data, model = settings["data"], settings["model"]
    if data in ("cifar10", "digits"):
        if "image_size" in asked:
            raise UserError(f"--image-size is for a folder of images; those of {data} have a size of their own")
        recipe = find_recipe(asked.get("recipe"), data, model)
    else:
        folder = os.path.expanduser(data)
        settings["data"] = os.path.abspath(folder) if os.path.isdir(folder) else data
        size = asked.get("image_size", IMAGE_SIZE[model])
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
    """The settings of a run that goes on: what it had, but for what was asked for and where it is computed."""
    asked = vars(args)
    epochs = asked.get("epochs", before.recipe.epochs)
    if epochs < before.recipe.epochs:
        raise UserError(
            f"--epochs {epochs}: this run has {before.recipe.epochs} epochs; to go on, give that number or a larger one"
        )
    backend = asked.get("backend", before.backend)
    devices, world_size, threads = places(asked.get("devices"), before.devices)
    if not mpi.started() and "devices" not in asked and world_size != before.world_size:
        raise UserError(
            f"this run has {before.world_size} devices, {len(before.devices)} on a machine: use mpiexec, or give --devices"
        )
    if (backend, devices, world_size) == (before.backend, before.devices, before.world_size):
        if threads != before.threads and mpi.first_on_machine():
            entry.tell(f"going on with {before.threads} threads, as config.json has them; there are {threads} here")
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
    """(devices, world_size, threads): the devices of this machine, of all machines, and the threads of each."""
    devices = asked or default
    world_size = neighbours = len(devices)
    if mpi.started():
        world_size, neighbours = mpi.world_size(), mpi.local_rank()[1]
        if asked and len(asked) != neighbours:
            raise UserError(f"--devices: MPI has started {neighbours} processes here, each of which needs one device")
        devices = asked or list(range(neighbours))
    return devices, world_size, max(1, minidl.get_num_threads() // neighbours)


def main(arguments: list[str]) -> int:
    """Train, and return the exit status. Raises UserError for what the user can mend."""
    os.environ["MPLBACKEND"] = "agg"  # the pictures are files; a notebook sets one here that only it has
    args = parser().parse_args(arguments)
    if "resume" not in args:
        return launch.start(config(args), getattr(args, "out", None))
    if wrong := sorted(set(vars(args)) - GO_ON_WITH):
        raise UserError(
            f"--resume takes no --{wrong[0].replace('_', '-')}: the run's settings are in {args.resume / 'config.json'}; "
            f"it takes {', '.join('--' + name.replace('_', '-') for name in sorted(GO_ON_WITH - {'resume'}))}"
        )
    folder = RunFolder.read(args.resume)
    return launch.resume(folder, resumed_config(args, folder.config))
