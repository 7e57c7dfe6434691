"""Train AlexNet.

    python train.py                                 the deck's AlexNet with batch norm on CIFAR-10, ten epochs
    python train.py --model cifar-lrn               the deck's other variant
    python train.py --data digits                   on the handwritten digits that come with it: no download, a minute
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

from .. import entry, launch
from ..config import MOST_DEVICES, Config
from ..datasets import cifar10_place
from ..models import MODELS
from ..recipes import MOST, RECIPES, Recipe, find_recipe
from ..run import RunFolder
from .arguments import Parser, number

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
    "save_minutes": 10.0,
    "tensorboard": False,
}
GO_ON_WITH = {"resume", "backend", "devices", "data_dir", "epochs", "save_minutes", "tensorboard"}


def device_list(text):
    devices = [int(device) if device.isdecimal() and len(device) < 5 else -1 for device in text.split(",")]
    if -1 in devices or len(set(devices)) < len(devices) or len(devices) > MOST_DEVICES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different device numbers such as 0 or 0,1")
    return devices


def folder_name(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("give the name of a folder")
    return Path(text)


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
    p.add_argument("--model", choices=list(MODELS), help="network (default cifar-bn)")
    p.add_argument("--data", metavar="cifar10|digits|FOLDER", help="data set (default cifar10; FOLDER is not there yet)")
    p.add_argument(
        "--data-dir",
        type=folder_name,
        metavar="DIR",
        help="where CIFAR-10 is or shall be (default $MINIDL_DATA, else ~/.cache/minidl)",
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
        help="go on with a run; it may get another --backend, --devices, --data-dir or --save-minutes, and more --epochs",
    )
    return p


def config(args: argparse.Namespace) -> Config:
    """All settings of a new run: what was asked for, else the defaults and the recipe's values."""
    asked = vars(args)
    settings = {name: asked.get(name, default) for name, default in DEFAULTS.items()}
    precision = settings["precision"]
    if precision != "fp32" and (settings["backend"], settings["dtype"]) != ("cupy", "float32"):
        raise UserError(f"--precision {precision} is for GPUs and float32: it takes --backend cupy, and no other --dtype")
    data = settings["data"]
    recipe = find_recipe(asked.get("recipe"), data, settings["model"])
    changes = {field.name: asked[field.name] for field in dataclasses.fields(Recipe) if field.name in asked}
    devices, world_size, threads = places(asked.get("devices"), [0])
    return Config(
        **settings,
        recipe=dataclasses.replace(recipe, **changes),
        data_dir=None if data == "digits" else str(cifar10_place(asked.get("data_dir"))),
        devices=devices,
        world_size=world_size,
        threads=threads,
        versions=VERSIONS,
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
        before,
        recipe=dataclasses.replace(before.recipe, epochs=epochs),
        data_dir=str(cifar10_place(asked["data_dir"])) if "data_dir" in asked else before.data_dir,
        backend=backend,
        precision=before.precision if backend == "cupy" else "fp32",
        devices=devices,
        world_size=world_size,
        threads=threads,
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
