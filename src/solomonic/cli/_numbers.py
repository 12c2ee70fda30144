"""Types of numeric options: impossible values are refused when the command line is parsed.

The least value of an option is checked here, or by the command with a message of its own.
"""

import argparse
from collections.abc import Callable
from functools import cache
from math import isnan

SIZE = 2**31 - 1  # of tokens, rows and widths: products of two of them can still be compared with the memory there is
COUNT = 2**62  # of steps and seeds, which are only counted


@cache  # the same bounds are the same type
def whole(most: int = SIZE, least: int | None = None) -> Callable[[str], int]:
    """The type of an option: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if least is not None and value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {value}")
        if abs(value) > most:
            raise argparse.ArgumentTypeError(f"expected a whole number of at most {most:,}, got {text}")
        return value

    return read


@cache
def real(most: float = 1e30, least: float | None = None) -> Callable[[str], float]:
    """The type of an option: a number from `least` to `most`, neither NaN nor, unless `most` is it, infinite."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if isnan(value):
            raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
        if (least is not None and value < least) or abs(value) > most:
            least_most = f"{'' if least is None else f'from {least:g} '}to {most:g}"
            raise argparse.ArgumentTypeError(f"expected a number {least_most}, got {text}")
        return value

    return read
