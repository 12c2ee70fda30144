"""Cells as numbers: with a decimal point or a decimal comma, and thousands in groups, as the whole table shows.

`1.5` is written with a point and `1,5` with a comma; `1,234` may be either, and is read only where the rest of the
column, or of the table, says which.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

GAPS = {"", "na", "n/a", "nan", "null", "none", "nil", "nat", "<na>", "missing", "-", "--", "\u2013", "\u2014", "?"}
GAPS |= {"#n/a", "#na", "#value!", "#div/0!", "#num!", "#null!", "#ref!", "#name?"}
FAST = set("0123456789.+-eE")
SPACES = " \u00a0\u202f\u2009'\u2019"


def _pattern(decimal: str, comma: str) -> re.Pattern:
    groups = rf"[1-9][0-9]{{0,2}}(?:(?P<group>[{comma}{SPACES}])[0-9]{{3}})(?:(?P=group)[0-9]{{3}})*"
    return re.compile(rf"[+-]?(?:(?:[0-9]+|{groups})(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eEdD][+-]?[0-9]+)?")


PATTERNS = {".": _pattern(r"\.", ","), ",": _pattern(",", r"\.")}
WHOLE = re.compile("[0-9]{1,18}")


def is_gap(cell: str) -> bool:
    return cell.lower() in GAPS


def is_number(cell: str) -> bool:
    return bool(ways(cell))


def is_whole(cell: str) -> bool:
    return bool(WHOLE.fullmatch(cell))


def ways(cell: str) -> str:
    """The decimal signs with which the cell is a number: "", ".", "," or ".,"."""
    cell = cell.replace("\u2212", "-")
    return "".join(decimal for decimal, pattern in PATTERNS.items() if pattern.fullmatch(cell))


def value(cell: str, decimal: str) -> float:
    """The number in the cell, NaN for a gap and for what is no number with this decimal sign."""
    cell = cell.replace("\u2212", "-")
    if is_gap(cell) or not PATTERNS[decimal].fullmatch(cell):
        return np.nan
    plain = re.sub(rf"[{SPACES}{'.' if decimal == ',' else ','}]", "", cell).replace(decimal, ".")
    return float(plain.lower().replace("d", "e"))


def fast(cells: Sequence[str]) -> np.ndarray | None:
    """All cells as floats where they are plain numbers with points, else None."""
    if set("".join(cells)) <= FAST:
        try:
            return np.array(cells, dtype=float)
        except ValueError:
            pass
    return None


class Signs:
    """Evidence of the decimal sign in the cells of a column. `point`, `comma`: a row that is a number with that sign alone.

    `groups` has a row of the form `1,234` (by its sign), which can be thousands as well as a decimal sign.
    `counts` says that rows below 1,000 stand without a sign, and none above, as where thousands are set apart.
    """

    def __init__(self, cells: Iterable[str]) -> None:
        self.point: int | None = None
        self.comma: int | None = None
        self.groups: dict[str, int] = {}
        short = long = False
        for row, cell in enumerate(cells):
            if "," not in cell and "." not in cell:
                size = len(cell.lstrip("+-")) if ways(cell) else 0
                short, long = short or 0 < size <= 3, long or size > 3
                continue
            able = ways(cell)
            if able == "." and self.point is None:
                self.point = row
            elif able == "," and self.comma is None:
                self.comma = row
            elif able == ".,":
                self.groups.setdefault("," if "," in cell else ".", row)
        self.counts = short and not long


def decimal(mine: Signs, others: Sequence[Signs], delimiter: str | None) -> str | tuple[int, int | None]:
    """The decimal sign of a column beside `others`; or the one or two rows that leave it undecided."""
    if mine.point is not None and mine.comma is not None:
        return mine.point, mine.comma
    if mine.point is not None or mine.comma is not None or not mine.groups:
        return "," if mine.comma is not None else "."
    if len(mine.groups) == 2:
        first, second = mine.groups.values()
        return first, second
    points, commas = any(s.point is not None for s in others), any(s.comma is not None for s in others)
    (sign, row), *_ = mine.groups.items()
    if sign == ".":
        if not commas or points:
            return "."
        return "," if mine.counts else (row, None)
    if (commas and not points) or (delimiter == ";" and not points and not mine.counts):
        return ","
    return "." if points and not commas and mine.counts else (row, None)


__all__ = ["GAPS", "Signs", "decimal", "fast", "is_gap", "is_number", "is_whole", "value", "ways"]
