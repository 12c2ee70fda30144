"""A table: named columns of cells, and what its first lines are."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..._utils.spelling import shortened, unknown
from . import decimals, times
from .rows import NONE, Rows, refuse_empty, rows
from .text import lines
from .times import Times, Unread

Cells = Sequence[str] | np.ndarray
FEW, MANY = 10, 1000  # rows: below which they do not show what is usual, and that do
MOST = 0.9  # of the steps of a column that is named for times, if it holds them
UNITS = 2  # lines below the names at most: units, and what loggers say of how a value was taken


@dataclass(frozen=True)
class Table:
    """Columns of equally many rows, by their names or, where there are none, their numbers from 1.

    A column is cells as the file has them, or numbers. `lines` has each row's line in the file, None where it has none.
    `notes` say how the file was read, `left_out` why a variable of it is no column.
    """

    path: str
    columns: Mapping[str, Cells]
    lines: Sequence[int] | None = None
    sign: str = NONE
    notes: tuple[str, ...] = ()
    doubled: frozenset[str] = frozenset()
    left_out: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, row: int) -> str:
        return f"line {self.lines[row]}" if self.lines is not None else f"row {row + 1}"

    def of_kind(self, kind: str, but: Sequence[str] = ()) -> list[str]:
        """Names of the columns that are "number", "date", "clock", "text" or "empty"."""
        return [name for name in self.columns if self.kinds[name] == kind and name not in but]

    def choose(self, text: str | None) -> list[str]:
        """The columns that `text` names, with commas between: by name, in quotes where it has a comma, or by number.

        ValueError for an unknown or doubled name.
        """
        if not text or not text.strip():
            return []
        asked = [text.strip()] if text.strip() in self.columns else _asked(text)
        names, columns = list(self.columns), []
        for name in asked:
            if name in self.doubled:
                among = ", ".join(str(i) for i, each in enumerate(names, 1) if each.rpartition(":")[0] == name)
                raise ValueError(
                    f"{self.path}: expected one column {name!r}, got {among}; choose by number, or rename one"
                )
            if name in self.left_out:
                raise ValueError(f"{self.path}: expected numbers in {name!r}, got {self.left_out[name]}")
            if name not in self.columns and decimals.is_whole(name) and 0 < int(name) <= len(names):
                name = names[int(name) - 1]
            if name not in self.columns:
                raise unknown(f"column of {self.path}", name, names)
            if name in columns:
                raise ValueError(f"expected each column once, got {name!r} twice")
            columns.append(name)
        return columns

    def numbers(self, name: str) -> np.ndarray:
        """(rows,) finite floats. ValueError, by line, for gaps, for what is no number, and for what may be two."""
        cells = self.columns[name]
        values = cells.astype(float) if isinstance(cells, np.ndarray) else decimals.fast(cells)
        if values is None or self.has_commas:
            values = np.array([decimals.value(cell, self._decimal(name)) for cell in cells])
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            cell = str(cells[wrong[0]])
            more = f", and so in {len(wrong) - 1} more" if len(wrong) > 1 else ""
            remedy = "fill the gaps, or give a part without any" if decimals.is_gap(cell) else "write it as 1234.5"
            raise ValueError(
                f"{self.path}, {self.where(wrong[0])}: expected a number for {name!r}, got {shortened(cell) or 'nothing'!r}{more}; {remedy}"
            )
        return values

    @cached_property
    def has_commas(self) -> bool:
        """Whether numbers have commas in them: then a point may set thousands apart."""
        return self.lines is not None and any("," in cell for n in self.of_kind("number") for cell in self.columns[n])

    @cached_property
    def _signs(self) -> dict[str, decimals.Signs]:
        return {name: decimals.Signs(self.columns[name]) for name in self.of_kind("number")}

    def guessed(self) -> list[str]:
        """Notes on columns that are read with decimal commas only because semicolons separate them."""
        if not self.has_commas or any(signs.comma is not None for signs in self._signs.values()):
            return []
        return [
            f"{self.where(signs.groups[','])}: {self.columns[name][signs.groups[',']]!r} of {name!r} is read with a decimal comma"
            for name, signs in self._signs.items()
            if "," in signs.groups and self._signs_of(name) == ","
        ]

    def _signs_of(self, name: str) -> str | tuple[int, int | None]:
        mine = self._signs.get(name) or decimals.Signs(self.columns[name])
        return decimals.decimal(mine, [signs for n, signs in self._signs.items() if n != name], self.sign)

    def _decimal(self, name: str) -> str:
        sign = self._signs_of(name)
        if isinstance(sign, str):
            return sign
        row, other = sign
        cell, cells = self.columns[name][row], self.columns[name]
        got = f"got {cell!r}" if other is None else f"got {cell!r} and, in {self.where(other)}, {cells[other]!r}"
        raise ValueError(
            f"{self.path}, {self.where(row)}: expected to know the decimal sign of {name!r}, {got};"
            " write thousands without a sign, and decimals with a point"
        )

    def time(self, asked: str | None = None, but: Sequence[str] = ()) -> tuple["Table", Times | None]:
        """The table, oldest row first, and its times: of the column `asked`, or of one that shows that it holds them.

        A date and a clock beside it are one time. `asked` None: times are the first column of dates, else of clock times, else
        of rising numbers that is named for times or counts rows. ValueError, by line, for cells that are no times and
        rows out of order.
        """
        for name in [asked] if asked else self._timed(but):
            try:
                at, cells, unit = self._moments(name, but)
                falls = times.falls(at)
                table = self.flipped() if falls else self
                at, cells = (at[::-1], cells[::-1]) if falls else (at, cells)
                if wrong := times.disorder(at, unit):
                    row, why = wrong
                    raise Unread(f"expected rising times, {cells[row]!r} {why}", len(at) - 1 - row if falls else row)
            except Unread as error:
                message = f"{self.where(error.row)}: {error} (column {name!r})"
                if asked or times.is_named(name) or name == next(iter(self.columns)):
                    raise ValueError(f"{self.path}, {message}") from None
                table = replace(self, notes=(*self.notes, f"{message}; the column is not used"))
                return table, None
            if falls:
                table = replace(
                    table, notes=(*table.notes, f"{name!r} falls: rows are read from the last to the first")
                )
            return table, times.times(name, at, cells, unit)
        unread = [n for n in self.of_kind("text", but) if times.is_named(n)]
        notes = [
            f"{n!r} holds no times that can be read ({shortened(str(self.columns[n][0]))!r}); write them as 2024-01-31 23:59:00"
            for n in unread
        ]
        return replace(self, notes=(*self.notes, *notes)), None

    def counts(self, but: Sequence[str] = ()) -> list[str]:
        """Columns that rise by one step, give or take 1 %, as times and numbers of rows do."""
        return [name for name in self.of_kind("number", but) if self._rises(name, evenly=True)]

    def flipped(self) -> "Table":
        return replace(
            self,
            columns={name: cells[::-1] for name, cells in self.columns.items()},
            lines=None if self.lines is None else self.lines[::-1],
        )

    def _timed(self, but: Sequence[str]) -> list[str]:
        named = [n for n in self.of_kind("number", but) if times.is_named(n) and self._rises(n, evenly=False)]
        counts = self.counts(but) if len(self.of_kind("number")) > 1 else []
        return [*self.of_kind("date", but), *self.of_kind("clock", but), *named, *counts][:1]

    def _text(self, name: str) -> Sequence[str]:
        cells = self.columns[name]
        assert not isinstance(cells, np.ndarray)
        return cells

    def _moments(self, name: str, but: Sequence[str]) -> tuple[np.ndarray, list[str], timedelta | str]:
        """Times of the rows of a column, as numbers and as cells, and the unit of the numbers."""
        kind = self.kinds[name]
        if kind == "number":
            numbers = self.columns[name]
            dated = times.is_named(name) or name.isdigit() or name.startswith("column ")
            at, unit = times.numbers(self.numbers(name), () if isinstance(numbers, np.ndarray) else numbers, dated)
            return at, list(times.shown(numbers)) if isinstance(numbers, np.ndarray) else list(numbers), unit
        cells = self._text(name)
        if kind == "clock":
            return times.clocks(cells, over=True), list(cells), times.MICRO
        clock = next(iter(self.of_kind("clock", but)), None) if not any(":" in cell for cell in cells) else None
        if kind == "date" and clock:
            beside = self._text(clock)
            return (
                times.dates(cells, times.clocks(beside, over=False)),
                [*map(" ".join, zip(cells, beside))],
                times.MICRO,
            )
        return times.dates(cells), list(cells), times.MICRO

    def _rises(self, name: str, evenly: bool) -> bool:
        """Whether a column rises: evenly, or else with nearly all steps in one direction or, once rows are sorted, even ones.

        False for a column with gaps, or too short to show it.
        """
        try:
            values = self.numbers(name)
        except ValueError:
            return False
        with np.errstate(over="ignore", invalid="ignore"):  # steps beyond all floats are not even
            steps = np.diff(values)
            if len(values) < FEW or not steps.any():
                return False
            if not evenly and max((steps >= 0).mean(), (steps <= 0).mean()) > MOST:
                return True
            steps = steps if evenly else np.diff(np.sort(values))
            return bool((steps > 0).all() and np.ptp(steps) <= 0.01 * np.median(steps))


def read(path: str | Path, *chosen: str | None) -> Table:
    """The table in a text file, or the matrices of one .mat file.

    `chosen` is what `Table.choose` will be asked for: a first line of numbers has names where one of them is asked for.
    ValueError for what is no table, and for what may be read in more than one way, by line and with what to do.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    if Path(path).is_dir():
        raise ValueError(f"{path}: expected a table, got a folder")
    if Path(path).suffix.lower() == ".mat":
        from .mat import read as read_mat

        columns, left_out = read_mat(path)
        notes = [f"{name} in {path} is left out: {what}" for name, what in left_out.items()]
        kinds = dict.fromkeys(columns, "number")
        return Table(str(path), columns, notes=tuple(notes), left_out=left_out, kinds=kinds)
    text = lines(path)
    parted = rows(str(path), text)
    notes, head, body, starts = list(text.notes), parted.cells[0], parted.cells[1:], parted.lines[1:]
    head = [""] * (parted.width - len(head)) + head
    kind_of = [_kind(column) for column in zip(*body)] or ["empty"] * parted.width
    asked = [name for names in chosen for name in _asked(names or "")]
    if not _has_asked(head, asked) and not _is_header(str(path), parted.lines[0], head, kind_of, body):
        if _is_beyond(head, body):
            notes.append(
                f"line {parted.lines[0]} is read as values: {', '.join(head)}; if it has names, choose a column by one, or"
                " make them no numbers"
            )
        body, starts = [head, *body], parted.lines
        head = _commented(text.comment, parted) or [""] * parted.width
        kind_of = [_kind(column) for column in zip(*body)]
        if any(head):
            notes.append(f"the comment above the rows is read as their names: {', '.join(head)}")
    while len(body) > 1 and starts[0] <= parted.lines[0] + UNITS and any(head) and _is_units(body[0], kind_of):
        notes.append(f"line {starts[0]} is read as units: {', '.join(filter(None, body[0]))}")
        if any(unit and not name for unit, name in zip(body[0], head)):
            raise ValueError(
                f"{path}, line {starts[0]}: expected values, got names, where line {parted.lines[0]} has others;"
                " put # before what is no name"
            )
        body, starts = body[1:], starts[1:]
        kind_of = [_kind(column) for column in zip(*body)]
    if parted.width == 1:
        refuse_empty(str(path), text, starts)
    if not body:
        raise ValueError(f"{path}: expected rows of values below the names, got none")
    used = [i for i in range(parted.width) if head[i] or kind_of[i] != "empty"]
    names, doubled = _names([" ".join(head[i].split()) for i in used], used)
    cells = {name: tuple(row[i] for row in body) for name, i in zip(names, used)}
    kinds = {name: kind_of[i] for name, i in zip(names, used)}
    table = Table(str(path), cells, starts, parted.sign, tuple(notes), doubled, kinds=kinds)
    return replace(table, notes=(*notes, *table.guessed()))


def _kind(cells: Sequence[str]) -> str:
    """The kind of at least half of the cells that are no gaps, of a sample of MANY cells evenly apart."""
    filled = [cell for cell in cells[:: 1 + len(cells) // MANY] if not decimals.is_gap(cell)]
    filled = filled or [cell for cell in cells if not decimals.is_gap(cell)]
    for kind, test in (("number", decimals.is_number), ("date", times.is_moment), ("clock", times.is_clock)):
        if filled and 2 * sum(map(test, filled)) >= len(filled):
            return kind
    return "text" if filled else "empty"


def _is_a(cell: str, kind: str) -> bool:
    tests = {"number": decimals.is_number, "date": times.is_moment, "clock": times.is_clock}
    return kind in tests and tests[kind](cell)


def _is_header(path: str, line: int, first: list[str], kinds: list[str], body: list[list[str]]) -> bool:
    """Whether the first row names the columns. ValueError where it may be names as well as values."""
    own = [cell for cell, kind in zip(first, kinds) if _is_a(cell, kind)]
    other = [
        cell
        for cell, kind in zip(first, kinds)
        if kind in ("number", "date", "clock") and not _is_a(cell, kind) and not decimals.is_gap(cell)
    ]
    unlike = len(set(own)) == len(own)
    names = unlike and all(map(decimals.is_whole, own))
    if not own:
        return bool(other) or not any(map(decimals.is_number, first))
    if not other and not first[0] and len(first) > 1 and names and _index(body):
        return True  # pandas writes its count of rows in a column without a name
    if not other and not (unlike and _like_names(own, kinds, first, body)):
        return False
    if other and names:
        return True
    raise ValueError(
        f"{path}, line {line}: expected to know whether the first line has names or values, got {', '.join(first[:6])};"
        " give it names that are no numbers, choose a column by its name, or put a line of names above it"
    )


def _asked(text: str) -> list[str]:
    return [name.strip() for row in csv.reader([text], skipinitialspace=True) for name in row if name.strip()]


def _has_asked(first: list[str], asked: list[str]) -> bool:
    """Whether the cells of the first row are all numbers and one, alone, is asked for, which is not a column's number."""
    numbers = [name for name in asked if not (decimals.is_whole(name) and 0 < int(name) <= len(first))]
    return all(map(decimals.is_number, first)) and any(first.count(name) == 1 for name in numbers)


def _is_beyond(first: list[str], body: list[list[str]]) -> bool:
    """Whether the first row has whole numbers, each above or below all others of its column."""
    columns = [decimals.fast(column) for column in zip(*body)]
    return bool(columns) and all(
        decimals.is_whole(cell) and column is not None and not column.min() <= int(cell) <= column.max()
        for cell, column in zip(first, columns)
    )


def _index(body: list[list[str]]) -> bool:
    return len(body) > 2 and [row[0] for row in body] == [str(i) for i in range(len(body))]


def _like_names(own: list[str], kinds: list[str], first: list[str], body: list[list[str]]) -> bool:
    """Whether numbers, all different, are so unlike those below that they may be names: 2019,2020,2021."""
    columns = [[row[i] for row in body] for i, kind in enumerate(kinds) if _is_a(first[i], kind)]
    if all(map(decimals.is_whole, own)):
        values = [int(cell) for cell in own]
        if len(values) > 1 and all(b - a == 1 for a, b in pairwise(values)):
            return True
        if len(body) > 1 and not any(cell.lstrip("-").isdigit() for column in columns for cell in column):
            return True
    if len(body) < FEW or (len(own) < 2 and not decimals.is_whole(own[0])):
        return False
    for cell, column in zip(own, columns):
        value, plain = decimals.fast([cell]), decimals.fast(column)
        if value is None or plain is None or not abs(value[0] - np.median(plain)) > 10 * np.ptp(plain) > 0:
            return False
    return True


def _is_units(row: list[str], kinds: list[str]) -> bool:
    """Whether no column of numbers or times has one in the first row below the names, but something else: V, [s], °C."""
    cells = [(cell, kind) for cell, kind in zip(row, kinds) if kind in ("number", "date", "clock")]
    return (
        bool(cells)
        and not any(_is_a(cell, kind) for cell, kind in cells)
        and any(not decimals.is_gap(cell) for cell, _ in cells)
    )


def _commented(comment: str | None, parted: Rows) -> list[str] | None:
    """Names for columns without any in the last comment above them, as numpy writes them."""
    if not comment:
        return None
    sign = parted.sign
    names = comment.split() if sign == " " else next(csv.reader([comment], delimiter=sign, skipinitialspace=True))
    names = [name.strip() for name in names]
    fits = len(names) == parted.width and any(names) and not any(map(decimals.is_number, names))
    return names if fits and len(set(names)) == len(names) else None


def _names(names: list[str], at: list[int]) -> tuple[list[str], frozenset[str]]:
    """A unique name for each column: its number from 1 where it has none, and with its number where others share the name."""
    doubled = frozenset(name for name in names if name and names.count(name) > 1)
    own = [f"{name}:{i + 1}" if name in doubled else name for name, i in zip(names, at)]
    for place, i in enumerate(at):
        own[place] = own[place] or (str(i + 1) if str(i + 1) not in own else f"column {i + 1}")
    return own, doubled
