"""A column of numbers and its times from a table, checked row by row."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from .. import tables

LEAST = 100
LARGEST = 1e306  # differences of such values are finite, and so are their predictions
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Series:
    """`values` (rows,), oldest first; `times` as the file has them, or None; `first` the line of row 0 in the file.

    `step` is the most frequent time between rows, None without times; `irregular` the rows that come at another.
    `notes` say how the file was read.
    """

    name: str
    values: np.ndarray
    times: list[str] | None
    step: timedelta | None
    irregular: list[int]
    first: int
    notes: tuple[str, ...] = ()

    def when(self, row: int) -> str:
        """The time of the row, or else its number."""
        return self.times[row] if self.times else f"row {row}"

    def periods(self) -> tuple[int, ...]:
        """A day and a week in rows, where the times say how long a row is and the series holds three of them."""
        if not self.step or self.step <= timedelta(0):
            return ()
        return tuple(
            count
            for length in (DAY, 7 * DAY)
            if (count := round(length / self.step)) >= 4 and 3 * count <= len(self.values)
        )


def read(path: str | Path, column: str | None = None) -> Series:
    """The table's one column of numbers, or the one named, and its times where it has any.

    ValueError for what is no table, an unknown column or more than one to choose from, a value that is missing or no finite
    number (by line), times out of order, a series of fewer than LEAST rows, one of values beyond LARGEST, or one that never
    changes.
    """
    table = tables.read(path, column)
    names = table.choose(column)
    if column is not None and len(names) != 1:
        raise ValueError(f"--column: expected one column of {', '.join(table.columns)}, got {column!r}")
    table, times = table.time(but=names)
    if not names:
        able = table.of_kind("number", but=[times.name] if times else [])
        counts = table.counts()
        names = able if len(able) == 1 else [name for name in able if name not in counts]
        if len(names) != 1:
            raise ValueError(
                f"{path}: expected one column of numbers, got {', '.join(names or able) or 'none'}"
                + ("; choose one with --column" if able else "")
            )
    values = table.numbers(names[0])
    if len(values) < LEAST:
        raise ValueError(f"{path}: expected {LEAST} rows or more, got {len(values)}: too short to know what is normal")
    if np.abs(values).max() > LARGEST:
        raise ValueError(
            f"{path}: expected values of up to {LARGEST:g}, got {values[np.abs(values).argmax()]:g} in column {names[0]!r};"
            " divide it by 1e+100"
        )
    if np.ptp(values) == 0:
        raise ValueError(f"{path}: expected a series that changes, column {names[0]!r} is {values[0]:g} throughout")
    first = table.lines[0] if table.lines is not None else 1
    if times is None:
        return Series(names[0], values, None, None, [], first, table.notes)
    notes = list(table.notes)
    for row in times.uneven[:3]:
        step = times.with_unit((times.at[row] - times.at[row - 1]).item())
        notes.append(
            f"{times.shown[row - 1]} to {times.shown[row]} (row {row}, {table.where(row)}) is {step},"
            f" not the usual {times.with_unit(times.step)}; rows are read as if evenly spaced"
        )
    if len(times.uneven) > 3:
        notes.append(f"{len(times.uneven) - 3} more such rows")
    return Series(names[0], values, times.shown, times.length, times.uneven, first, tuple(notes))
