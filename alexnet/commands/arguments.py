"""What the command lines have in common: their parser, and types of arguments."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from minidl.errors import UserError


class Parser(argparse.ArgumentParser):
    """Options that are not given are not in the result; what is wrong raises UserError."""

    def __init__(self, prog: str, description: str | None):
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )

    def parse_args(self, *args, **options):
        """As argparse's, but Python 3.12 and older take `--epochs=--` for a list of no values."""
        parsed = super().parse_args(*args, **options)
        for name, value in vars(parsed).items():
            if value == []:
                self.error(f"argument --{name.replace('_', '-')}: expected one argument")
        return parsed

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python {self.prog} --help tells the options)")


def number(kind: type, at_least: float, at_most: float, name: str) -> Callable[[str], Any]:
    """A type for argparse: int or float from at_least (more than it, for a float) to at_most."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (at_least <= value <= at_most) or (kind is float and value == at_least):
            raise argparse.ArgumentTypeError(f"{text!r} is not {name}")
        return value

    return parse
