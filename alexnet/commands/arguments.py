"""What the command lines share: the parser, common arguments, and types of arguments."""

import argparse
import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from minidl.errors import UserError
from minidl.parallel import mpi

from ..config import MOST_DEVICES


class Parser(argparse.ArgumentParser):
    """A parser whose result lacks options that have no default and are not given. A wrong command line raises UserError."""

    def __init__(self, prog: str, description: str | None):
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )

    def parse_args(self, *args, **options):
        """Like argparse's, but names the option that an unknown one resembles.

        It also refuses `--epochs=--`, which Python 3.12 and older parse as an empty list.
        """
        parsed, unknown = self.parse_known_args(*args, **options)
        if unknown:
            meant = self._closest_option(unknown)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{f'; did you mean {meant}?' if meant else ''}")
        for name, value in vars(parsed).items():
            if value == []:
                self.error(f"argument --{name.replace('_', '-')}: expected one argument")
        return parsed

    def _closest_option(self, words: list[str]) -> str:
        """The option that the first mistyped option among the words resembles, or "". Both are compared without dashes."""
        names = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        for word in words:
            if word.startswith("--") and (close := difflib.get_close_matches(word[2:].partition("=")[0], names, 1)):
                return f"--{close[0]}"
        return ""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python {self.prog} --help lists the options)")


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN|FILE and the option --checkpoint."""
    kinds = "folder of a run, file written by export, or torchvision's AlexNet as .safetensors or .pth"
    parser.add_argument("source", type=Path, metavar="RUN|FILE", help=kinds)
    parser.add_argument("--checkpoint", choices=["newest", "best"], default="newest", help="checkpoint of a run (default newest)")


def add_devices(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options --backend and --devices, without defaults. what: the things that --devices numbers, for its help text."""
    kinds = "numpy for CPUs, cupy for GPUs (default numpy)"
    parser.add_argument("--backend", choices=["numpy", "cupy"], help=kinds)
    parser.add_argument("--devices", type=device_list, metavar="0", help=f"{what} (default 0)")


def refuse_mpi(command: str) -> None:
    """Raise UserError if mpiexec has started this process and others."""
    if mpi.started():
        raise UserError(
            f"under mpiexec each process would do the whole work of {command}; run it without mpiexec, and choose devices with "
            "--devices"
        )


def number(kind: type, at_least: float, at_most: float, name: str) -> Callable[[str], Any]:
    """A type for argparse: an int from at_least to at_most, or a float above at_least, up to at_most."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (at_least <= value <= at_most) or (kind is float and value == at_least):
            raise argparse.ArgumentTypeError(f"{text!r} is not {name}")
        return value

    return parse


def folder_name(text: str) -> Path:
    """A type for argparse: a path that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("give the name of a folder")
    return Path(text)


def check_picture(option: str, file: Path) -> None:
    """Raise UserError, before any work, if the option's file is not a PNG file or has no folder."""
    if file.suffix.lower() != ".png":
        raise UserError(f"{option} {file}: give a name that ends with .png")
    if not file.parent.is_dir():
        raise UserError(f"cannot write {file}: there is no folder {file.parent}; make it first")


def device_list(text: str) -> list[int]:
    """A type for argparse: "0,1" becomes [0, 1]."""
    devices = [int(device) if device.isdecimal() and len(device) < 5 else -1 for device in text.split(",")]
    if -1 in devices or len(set(devices)) < len(devices) or len(devices) > MOST_DEVICES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different device numbers such as 0 or 0,1")
    return devices
