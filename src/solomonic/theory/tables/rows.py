"""Lines as rows of cells: by which sign they are parted, where a quote was left open, and whether a row is short.

The csv module reads, strictly. A sign parts the cells if by it the rows have as many as the first, and most of them are
numbers or times; no sign is one of the ways, of a file of one column.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..._utils.spelling import shortened
from . import decimals, times
from .text import Lines

NONE = "\x1f"  # in no text
SIGNS = ("\t", ";", "|", ",", " ", NONE)
NAMED = {"\t": "a tab", " ": "a space"}
LOOK = 1000  # lines that show the sign
TITLES = 5  # lines that may stand above the names, less one


@dataclass(frozen=True)
class Rows:
    """`cells`, all of `width` but the first, which may have one less; `lines`: where each begins in the file."""

    sign: str
    cells: list[list[str]]
    lines: list[int]
    width: int


def rows(path: str, lines: Lines) -> Rows:
    """The rows of a table. ValueError, by line, for a quote that is not closed, for a short or a long row, and for lines that
    can be split in two ways.
    """
    if lines.separator:
        return _checked(path, lines, lines.separator)
    looked = lines.kept[:LOOK]
    able = [sign for sign in SIGNS if sign in (" ", NONE) or any(sign in line for _, line in looked)]
    parted = {sign: _split(looked, sign)[0] for sign in able}
    parted = {sign: cells for sign, cells in parted.items() if any(len(row) > (sign != NONE) for row in cells)}
    ratings = {sign: _rating(cells, _width(cells, sign)) for sign, cells in parted.items()}
    if not any(ratings.values()):  # the first line is unlike the others: they show the sign, and it is refused
        widths = {
            sign: Counter(map(len, cells[1:] or cells)).most_common(1)[0][0] for sign, cells in parted.items() if cells
        }
        ratings = {sign: _rating(parted[sign], width) for sign, width in widths.items()}
    parting = max((rating for sign, rating in ratings.items() if sign != NONE), default=0)
    if parting >= ratings.get(NONE, 0) / 2:  # a short row makes no single column of decimal commas
        ratings.pop(NONE, None)
    best = max(ratings, key=lambda sign: ratings[sign], default=",")  # the first of equals
    if not any(ratings.values()):
        best = max(able, key=lambda sign: looked[0][1].count(sign) if sign != " " else 0)
    if best == NONE:  # or titles stand above names of more columns
        under = [(sign, cells[titles:]) for sign, cells in parted.items() for titles in range(1, TITLES)]
        best = next((sign for sign, cells in under if _is_named(cells, sign)), NONE)
    if best in (",", NONE) and _is_one_of_decimals(path, lines, best):
        best = NONE
    return _checked(path, lines, best)


def _split(lines: Sequence[tuple[int, str]], sign: str) -> tuple[list[list[str]], list[int], str | None]:
    """The cells and the lines of the rows, and the error that ended them, if any."""
    text = [line + "\n" for _, line in lines]
    if sign == " ":
        text = [line.replace("\t", " ").strip() + "\n" for line in text]
    reader = csv.reader(text, delimiter=sign, strict=True, skipinitialspace=True)
    cells: list[list[str]] = []
    starts: list[int] = []
    start = 0
    try:
        for row in reader:
            row = [cell.strip() for cell in row]
            if reader.line_num > start + 1 and _holds_rows(row):
                return cells, starts, f"line {lines[start][0]}: a quote is opened here and closed lines below"
            if row:
                cells.append(row)
                starts.append(lines[start][0])
            start = reader.line_num
    except csv.Error as error:
        what = "more follows its closing one" if "expected after" in str(error) else "it is never closed"
        return cells, starts, f"line {lines[start][0]}: a quote is opened here and {what}"
    return cells, starts, None


def _holds_rows(row: list[str]) -> bool:
    """Whether a cell of many lines has swallowed rows: its lines are parted as the row is, or are the numbers of a column."""
    if len(row) == 1:
        first, *others = row[0].split("\n")
        return (decimals.is_number(first) or len(others) > 1) and all(map(decimals.is_number, others))
    return len(row) > 1 and any(
        line.count(sign) >= len(row) - 1 for cell in row for line in cell.split("\n")[1:] for sign in ",;\t|"
    )


def _trimmed(row: list[str], width: int) -> list[str]:
    """The row without the empty cells that signs at the end of a line make."""
    last = len(row)
    while last > width and not row[last - 1]:
        last -= 1
    return row[:last]


def _rating(cells: list[list[str]], width: int) -> float:
    """How well a sign parts rows: the share of those of the width, times that of cells that are numbers or times.

    0 without any number.
    """
    body = cells[1:] or cells
    right = [row for row in (_trimmed(row, width) for row in body) if len(row) == width]
    filled = [cell for row in right for cell in row if not decimals.is_gap(cell)]
    numeric = [decimals.is_number(cell) for cell in filled]
    if not any(numeric):
        return 0
    known = sum(numeric) + sum(not n and (times.is_moment(c) or times.is_clock(c)) for n, c in zip(numeric, filled))
    return len(right) / len(body) * known / len(filled)


def _width(cells: list[list[str]], sign: str) -> int:
    """The number of cells of a row, by the first one."""
    first = cells[0]
    if not first[-1]:
        return min(len(first), max(len(_trimmed(row, 1)) for row in cells))
    return len(first) + _has_row_names(cells, sign)


def _is_named(cells: list[list[str]], sign: str) -> bool:
    """Whether a row of more than one name stands above rows of as many numbers."""
    if len(cells) < 2 or len(cells[0]) < 2 or any(map(decimals.is_number, cells[0])):
        return False
    return _rating(cells, _width(cells, sign)) > 0.5


def _has_row_names(cells: list[list[str]], sign: str) -> bool:
    """Whether the rows have a name or a count in front that the first one, of names, lacks, as R writes them.

    Not where a comma parts whole numbers: there it may be a decimal comma that makes a cell too many.
    """
    first, body = cells[0], cells[1:]
    if (
        not body
        or any(len(row) != len(first) + 1 or not row[-1] for row in body)
        or any(map(decimals.is_number, first))
    ):
        return False
    heads = [row[0] for row in body]
    named = not any(map(decimals.is_number, heads)) or any(
        heads == [str(i + start) for i in range(len(heads))] for start in (0, 1)
    )
    return named and (sign != "," or any("." in cell for row in body for cell in row[1:]))


def _checked(path: str, lines: Lines, sign: str) -> Rows:
    cells, starts, broken = _split(lines.kept, sign)
    if broken:
        raise ValueError(f'{path}, {broken}; close it, or write a " within a cell twice and put the cell in quotes')
    if not cells:
        raise ValueError(f"{path}: expected a table, got an empty file")
    width = _width(cells, sign)
    named = f" ({', '.join(map(shortened, cells[0][:6]))}{', ...' if len(cells[0]) > 6 else ''})"
    cells = [_trimmed(row, width) for row in cells]
    below = Counter(map(len, cells[1:])).most_common(1)
    if below and below[0][0] != width and below[0][1] > 0.9 * (len(cells) - 1) and len(cells) > 3:
        raise ValueError(
            f"{path}, line {starts[0]}: expected a name for each of the {below[0][0]} values that the lines below have,"
            f" got {len(cells[0])}{named}; put # before a title, and quotes around a value with {_sign_name(sign)} in it"
        )
    for row, line in zip(cells[1:], starts[1:]):
        if len(row) != width:
            raise ValueError(
                f"{path}, line {line}: expected {width} values{named}, got {len(row)}; "
                + (f"put quotes around a value with {_sign_name(sign)} in it" if len(row) > width else "fill it up")
                + ", or # before a line that is no row"
            )
    while len(cells) > 1 and not any(cells[-1]):  # what spreadsheets leave below a table
        cells.pop()
    return Rows(sign, cells, starts[: len(cells)], width)


def refuse_empty(path: str, lines: Lines, starts: list[int]) -> None:
    """ValueError for an empty line in a table of one column, where it may be a missing value, unless all rows have one."""
    between = [n for n in lines.empty if starts and starts[0] < n < starts[-1]]
    if between and len(between) % (len(starts) - 1):
        raise ValueError(
            f"{path}, line {between[0]}: expected a value, got an empty line; fill it, or take the line out"
        )


def _is_one_of_decimals(path: str, lines: Lines, sign: str) -> bool:
    """Whether lines without names, each a number as a whole, are one column of decimal commas: 12,05 is no pair.

    False where they are two columns or where there is no question; ValueError where it cannot be known. `Level, m` above
    such lines is a name as well as two.
    """
    whole = [line.strip() for _, line in lines.kept]
    if all(re.fullmatch('"[^"]*"', line) for line in whole) and ", " not in whole[0]:
        whole = [line[1:-1] for line in whole]  # quotes around each line
    if "," in whole[0] and '"' not in whole[0] and len(whole) > 1 and (", " in whole[0] or lines.kept[0][1][0] == '"'):
        whole = whole[1:]
    commas = [line for line in whole if "," in line]
    if not commas or not all(map(decimals.is_number, whole)):
        return False
    parts = [line.partition(",") for line in whole]
    if any(part.startswith("0") and len(part) > 1 for _, _, part in parts) and all(
        "," in decimals.ways(line) for line in commas
    ):
        return True
    if sign == "," and len(commas) == len(whole) and _counts([part for part, _, _ in parts]):
        return False
    line = next(number for number, line in lines.kept if line.strip().strip('"') == commas[0])
    raise ValueError(
        f"{path}, line {line}: expected to know whether {commas[0]!r} is one number or two; begin the file with a line of"
        " names, one for each column, in quotes where there is a comma in it"
    )


def _counts(cells: list[str]) -> bool:
    return (
        len(cells) > 2 and all(map(decimals.is_whole, cells)) and all(int(b) - int(a) == 1 for a, b in pairwise(cells))
    )


def _sign_name(sign: str) -> str:
    return NAMED.get(sign, f"a {sign}")


__all__ = ["Rows", "refuse_empty", "rows"]
