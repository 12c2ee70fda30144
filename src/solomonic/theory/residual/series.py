"""A column of numbers and their times from a CSV file, checked row by row."""

import csv
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from ...spelling import unknown

LEAST = 100
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Series:
    """`values` (rows,); `times` as the file has them, or None; `first` the line of row 0 in the file.

    `step` is the most frequent time between rows, None without times; `irregular` the rows that come at another.
    """

    name: str
    values: np.ndarray
    times: list[str] | None
    step: timedelta | None
    irregular: list[int]
    first: int

    def when(self, row: int) -> str:
        """The row's time, or where it stands."""
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
    """The file's one column of numbers, or the one named, and its column of times (ISO 8601) where it has one.

    ValueError for a file that is no CSV with a header, an unknown column or more than one to choose from, a value that
    is missing or no finite number (by line), a series of fewer than LEAST rows, or one that never changes.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, line) for number, line in enumerate(csv.reader(file), 1) if any(map(str.strip, line))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a CSV file in UTF-8, got what is none ({error})") from None
    if len(lines) < 2:
        raise ValueError(f"{path}: expected a CSV file with a header and rows, got {len(lines)} lines")
    (_, head), rows = lines[0], lines[1:]
    head = [name.strip() for name in head]
    if all(_number(cell) is not None for cell in head):
        raise ValueError(f"{path}: expected a header in the first line, got numbers; name the columns there")
    for number, line in rows:
        if len(line) != len(head):
            raise ValueError(f"{path}, line {number}: expected {len(head)} values ({', '.join(head)}), got {len(line)}")
    columns = dict(zip(head, zip(*(line for _, line in rows))))
    timed = next((name for name in head if name != column and _time(columns[name][0]) is not None), None)
    if column is None:
        able = [name for name in head if name != timed and any(_number(cell) is not None for cell in columns[name])]
        if len(able) != 1:
            raise ValueError(
                f"{path}: expected one column of numbers, got {', '.join(able) or 'none'}"
                + ("; choose one with --column" if able else "")
            )
        column = able[0]
    elif column not in columns:
        raise unknown(f"column of {path}", column, head)
    values = [_number(cell) for cell in columns[column]]
    bad = [i for i, value in enumerate(values) if value is None or not np.isfinite(value)]
    if bad:
        what = columns[column][bad[0]].strip()
        raise ValueError(
            f"{path}, line {rows[bad[0]][0]}: expected a number in column {column!r}, got {what or 'nothing'!r}"
            + (f", and so in {len(bad) - 1} more lines" if len(bad) > 1 else "")
            + "; fill the gaps or leave the lines out"
        )
    if len(values) < LEAST:
        raise ValueError(f"{path}: expected {LEAST} rows or more, got {len(values)}: too short to know what is normal")
    values = np.array(values)
    if np.ptp(values) == 0:
        raise ValueError(f"{path}: expected a series that changes, column {column!r} is {values[0]:g} throughout")
    times, step, irregular = None, None, []
    if timed is not None:
        moments = [_time(cell) for cell in columns[timed]]
        lost = next((i for i, moment in enumerate(moments) if moment is None), None)
        if lost is not None:
            raise ValueError(f"{path}, line {rows[lost][0]}: expected a time, got {columns[timed][lost]!r}")
        times = [cell.strip() for cell in columns[timed]]
        try:
            steps = [b - a for a, b in zip(moments, moments[1:])]
        except TypeError:
            raise ValueError(f"{path}: expected times all with a zone or all without, got both") from None
        step = max(set(steps), key=steps.count)
        irregular = [i + 1 for i, each in enumerate(steps) if each != step]
    return Series(column, values, times, step, irregular, rows[0][0])


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _time(cell: str) -> datetime | None:
    """A moment in ISO 8601; digits alone are a number."""
    try:
        return None if _number(cell) is not None else datetime.fromisoformat(cell.strip())
    except ValueError:
        return None
