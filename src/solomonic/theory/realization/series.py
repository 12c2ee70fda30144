"""Checks of a series; errors name the row."""

from collections.abc import Callable, Sequence

import numpy as np

from ..tables import Times
from .linear import columns, power_of_two

Array = np.ndarray
FAR = 151  # powers of ten


def check(values: Array, names: Sequence[str], each: str = "row") -> Array:
    """`values` as floats (T, k). ValueError for what is no number, for infinities and gaps (by row), and for columns that are
    constant or whose spread is too far from 1 (`FAR`).

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
    unit = power_of_two(np.abs(values).max(0, initial=0.0))
    for name, power, column in zip(names, unit, np.ldexp(values, -unit).T):
        if len(column) and np.ptp(column) <= 1e-12:
            value = np.ldexp(column[0], power)
            raise ValueError(
                f"expected a series that changes, got {name!r}, which is {value:g} in every {each}; leave it out"
            )
        decades = round(power * np.log10(2) + np.log10(column.std())) if len(column) else 0
        if abs(decades) > FAR:
            raise ValueError(
                f"expected a series with a spread from 1e-{FAR} to 1e+{FAR}, whose square a float can hold, got {name!r} with"
                f" 1e{decades:+}; divide it by 1e{decades:+}"
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
