"""Tables, as wide as the terminal at most (or $COLUMNS; 80 where there is neither)."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

GAP = 2  # between columns
NARROW = 12  # to which a column of text is narrowed before the table is cut into several


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns two spaces apart: the first to the left, the others to the right. A float has three digits, None is -.

    A table that is too wide wraps its head, then its texts; if that is not enough, it becomes several tables, each with
    the first column.
    """
    return _table([list(head)] + [[_cell(value) for value in row] for row in rows], columns())


def columns() -> int:
    return shutil.get_terminal_size().columns


def _table(lines: list[list[str]], width: int) -> str:
    (head, *rows), count = lines, len(lines[0])
    bodies = [[row[i] for row in rows] for i in range(count)]
    widths = [max(map(len, (name, *body))) for name, body in zip(head, bodies)]
    unwrapped = [max(map(len, (*name.split(), *body, ""))) for name, body in zip(head, bodies)]
    least = [_least(name, body) for name, body in zip(head, bodies)]
    if unwrapped[0] <= width // 4:
        least[0] = max(least[0], unwrapped[0])  # a short name of a row stays whole
    for bounds in (unwrapped, least):
        while sum(widths) + GAP * (count - 1) > width and any(map(int.__gt__, widths, bounds)):
            _, i = max((wide, i) for i, (wide, bound) in enumerate(zip(widths, bounds)) if wide > bound)
            widths[i] -= 1
    if sum(widths) + GAP * (count - 1) > width and count > 2:
        fitting = max(2, sum(sum(widths[:n]) + GAP * (n - 1) <= width for n in range(1, count)))
        parts = [row[:fitting] for row in lines], [[row[0], *row[fitting:]] for row in lines]
        return "\n\n".join(_table(part, width) for part in parts)
    if count == 2:
        widths[1] = max(1, min(widths[1], width - GAP - widths[0]))
    rest = sum(widths[1:]) + GAP * (count - 1)
    widths[0] = max(1, min(widths[0], width - rest))
    return "\n".join(_lines(cells, widths, i > 0) for i, cells in enumerate(lines))


def _least(name: str, body: list[str]) -> int:
    """Characters of a column without which words would be broken, or, of texts, too many of them."""
    longest = max(map(len, [word for cell in (name, *body) for word in cell.split(" ")] + [""]))
    return min(longest, NARROW) if any(re.search("[^\\W\\d_]{2}", cell) for cell in body) else longest


def _lines(cells: list[str], widths: list[int], is_body: bool) -> str:
    parts = [textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(cells, widths)]
    height = max(map(len, parts))
    left = [i == 0 or (is_body and len(part) > 1) for i, part in enumerate(parts)]
    parts = [part + [""] * (height - len(part)) for part in parts]
    made = (
        (" " * GAP).join(
            part[line].ljust(width) if to_left else part[line].rjust(width)
            for part, width, to_left in zip(parts, widths, left)
        )
        for line in range(height)
    )
    return "\n".join(line.rstrip() for line in made)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
