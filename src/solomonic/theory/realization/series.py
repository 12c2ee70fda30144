"""Checks of a series; errors name the row."""

from collections.abc import Callable, Sequence

import numpy as np

from ..tables import Times
from .linear import columns

Array = np.ndarray


def check(values: Array, names: Sequence[str], each: str = "row") -> Array:
    """`values` as floats (T, k). ValueError for what is no number, for infinities and gaps (by row) and for constant columns.

    `each` is what messages call the rows of a constant column, in the singular.
    """
    values = columns(values, "series")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        rows = sorted({int(row) for row, _ in wrong})
        row, column = wrong[0]
        shown = ", ".join(str(row + 1) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise ValueError(
            f"expected a number in every row, got {values[row, column]} for {names[column]!r} in row {row + 1};"
            f" {_count(len(rows), 'row')} with gaps: {shown}; fill them, or give a part without any"
        )
    for name, column in zip(names, values.T):
        if len(column) and np.ptp(column) <= 1e-12 * max(np.abs(column).max(), 1e-300):
            raise ValueError(
                f"expected a series that changes, got {name!r}, which is {column[0]:g} in every {each}; leave it out"
            )
    return values


def check_time(times: Times, where: Callable[[int], str]) -> None:
    """ValueError, by line, unless the times are evenly spaced: a step more than 1 % off the median is a gap."""
    steps = np.diff(times.at)
    step = float(np.median(steps)) if len(steps) else 1.0
    wrong = np.flatnonzero(~(np.abs(steps - step) <= 0.01 * abs(step)))
    if len(wrong) or not step > 0:
        row = int(wrong[0]) if len(wrong) else 0
        raise ValueError(
            f"expected evenly spaced times in {times.name!r}, got a step of {times.with_unit(steps[row].item())} from"
            f" {where(row)} to {where(row + 1)} where most are {times.with_unit(step)} ({_count(len(wrong), 'such step')});"
            " resample, or give a part without gaps"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


__all__ = ["check", "check_time"]
