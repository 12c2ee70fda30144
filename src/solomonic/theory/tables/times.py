"""Cells as times: ISO 8601, and dates as people and spreadsheets write them where the column says what is day and month.

`03/04/2024` is the third of April or the fourth of March. A column is read in the order of which all its cells are dates;
where two orders remain, in that which makes nearly all steps alike; where neither does, not at all.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from ..._utils.spelling import shortened

MICRO = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1)
DAY = timedelta(days=1) // MICRO
HOUR = timedelta(hours=1) // MICRO
UNITS = {1.0: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
FROM, TO = 3e8, 4.2e9  # seconds that are taken for a time since 1970: from 1979 to 2103
MONTHS = {
    name: i
    for i, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}

_CLOCK = r"(?P<h>\d{1,3}):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d)(?:[.,:](?P<f>\d{1,9}))?)?(?:\s*(?P<half>[ap])\.?\s?m\.?)?"
_ZONE = r"(?:\s*(?P<zone>z|utc|gmt|[+-]\d{2}:?\d{2}))?"
_DAYS = (
    r"(?P<a>\d{1,4})(?P<sep>[./-])\s?(?P<b>\d{1,2})(?P=sep)\s?(?P<c>\d{4}|\d{1,2})\.?",
    r"(?P<a>\d{1,2})[ -]?(?P<b>[a-z]{3,9})\.?,?[ -]?(?P<c>\d{4})",
    r"(?P<b>[a-z]{3,9})\.?[ -](?P<a>\d{1,2}),?[ -](?P<c>\d{4})",
    r"(?P<c>\d{4})-(?P<b>\d{2})",
)
DATES = [re.compile(rf"(?:[a-z]{{3,9}},? )?{day}(?:[t ,]+{_CLOCK})?{_ZONE}", re.IGNORECASE | re.ASCII) for day in _DAYS]
CLOCK = re.compile(_CLOCK + _ZONE, re.IGNORECASE | re.ASCII)
COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
ENGLISH = "time times timestamp datetime date t ts epoch unixtime elapsed second seconds sec minute minutes hour hours day days year"
OTHERS = "zeit zeitstempel datum uhrzeit temps heure fecha hora tempo"
NAMES = {*ENGLISH.split(), *OTHERS.split()}

Orders = dict[str, tuple[int, bool] | None]
"""For each order of day, month and year: microseconds since 1970, and whether they have a zone; None: no such date."""


@dataclass(frozen=True)
class Times:
    """`at` (rows,), rising but for a few rows: microseconds, months or, without `dates`, numbers of no known unit.

    `shown` has them as in the file. `step` is the most frequent step, `uneven` the rows that come after another one.
    """

    name: str
    at: np.ndarray
    shown: list[str]
    unit: timedelta | str
    step: float
    uneven: list[int]

    @property
    def length(self) -> timedelta | None:
        """The step, where it is one that a clock knows."""
        return self.step * self.unit if isinstance(self.unit, timedelta) else None

    def with_unit(self, step: float) -> str:
        """A step, with its unit."""
        if isinstance(self.unit, timedelta):
            sign = "-" if step < 0 else ""
            return f"{sign}{abs(step) * self.unit}"
        return f"{step:g}{f' {self.unit}' if self.unit else ''}"


def is_named(name: str) -> bool:
    """Whether a column's name says that it holds times: `Time (s)`, `timestamp`, `t_ms`; `T` may be a temperature."""
    words = re.findall(r"[^\W\d_]+", name) or [""]
    return (words[0] != "T" and words[0].lower() in NAMES) or (len(words[-1]) > 2 and words[-1].lower() in NAMES)


def is_moment(cell: str) -> bool:
    return any(orders(cell).values())


def is_clock(cell: str) -> bool:
    return bool(CLOCK.fullmatch(cell))


def orders(cell: str) -> Orders:
    """The moment that a cell names, for each order of day, month and year; {} without a date. Digits alone are a number."""
    try:
        if not cell.isdigit():
            moment = datetime.fromisoformat(cell)
            return dict.fromkeys(("ymd", "dmy", "mdy"), _micro(moment))
    except ValueError:
        pass
    for i, pattern in enumerate(DATES):
        if match := pattern.fullmatch(cell):
            return {order: _parsed(match, order) for order in _able(match, i)}
    return {}


def _able(match: re.Match, kind: int) -> Sequence[str]:
    if kind:
        return ("ymd", "dmy", "mdy")  # the month stands by its name, or there is none but one way
    if len(match["a"]) == 4:
        return ("ymd",)
    if len(match["a"]) == 3:
        return ()
    if len(match["c"]) == 4:
        return ("dmy",) if match["sep"] == "." else ("dmy", "mdy")
    return ("dmy",) if match["sep"] == "." else ("dmy", "mdy", "ymd")


def _parsed(match: re.Match, order: str) -> tuple[int, bool] | None:
    parts = match.groupdict()
    day, month, year = parts.get("a") or "1", parts["b"], parts["c"]
    if "sep" in parts:
        by = dict(zip(order, (parts["a"], parts["b"], parts["c"])))
        day, month, year = by["d"], by["m"], by["y"]
    try:
        m = int(month) if month.isdigit() else MONTHS[month[:3].lower()]
        y = int(year) if len(year) == 4 else int(year) + (1900 if int(year) >= 69 else 2000) if len(year) == 2 else 0
        at = (datetime(y, m, int(day)) - EPOCH) // MICRO + _clock(match, 24)
    except (ValueError, KeyError, OverflowError):
        return None
    zone = (match["zone"] or "").lower()
    return at - _offset(zone), bool(zone)


def _clock(match: re.Match, hours: int = 999) -> int:
    """Microseconds since midnight. ValueError for an hour above `hours`."""
    if match["h"] is None:
        return 0
    hour = int(match["h"])
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + 12 * (match["half"].lower() == "p")
    elif hour > hours:
        raise ValueError
    fraction = int((match["f"] or "0").ljust(9, "0")) // 1000
    return (hour * 3600 + int(match["m"]) * 60 + int(match["s"] or 0)) * 10**6 + fraction


def _offset(zone: str) -> int:
    if not zone or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    return (-1 if zone[0] == "-" else 1) * (int(digits[:2]) * 60 + int(digits[2:])) * 60 * 10**6


def _micro(moment: datetime) -> tuple[int, bool]:
    zoned = moment.tzinfo is not None
    return (moment - (EPOCH.replace(tzinfo=UTC) if zoned else EPOCH)) // MICRO, zoned


class Unread(ValueError):
    """Why a column cannot be read as times, and what to do; `row` shows it."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def dates(cells: Sequence[str], clock: np.ndarray | int = 0) -> np.ndarray:
    """Microseconds (rows,), those of a column of clock times added.

    Unread where a cell is no time, or where it remains open what is day and what is month.
    """
    if (at := _iso(cells)) is not None:
        return at + clock
    read = [orders(cell) for cell in cells]
    for row, each in enumerate(read):
        if not any(each.values()):
            raise Unread(
                f"expected a time, got {shortened(cells[row]) or 'nothing'!r}; write times as 2024-01-31 23:59:00", row
            )
    able = ["ymd", "dmy", "mdy"]
    for row, each in enumerate(read):
        if not any(each.get(order) for order in able):
            raise Unread(f"expected a date in the order of those before, {cells[0]!r}, got {cells[row]!r}", row)
        able = [order for order in able if each.get(order)]
    moments = {order: [moment for each in read if (moment := each[order]) is not None] for order in able}
    micros = {order: np.array([at for at, _ in moments[order]], dtype=np.int64) + clock for order in able}
    order = min(able, key=lambda order: len(_uneven(micros[order])[1]))
    least = len(_uneven(micros[order])[1])
    for other in able:
        if (
            not (np.diff(micros[other]) == np.diff(micros[order])).all()
            and len(_uneven(micros[other])[1]) < 2 * least + 1
        ):
            raise Unread(f"expected dates of one meaning, got {cells[0]!r}: day or month? write them as 2024-01-31", 0)
    zones = [zoned for _, zoned in moments[order]]
    if len(set(zones)) > 1:
        raise Unread("expected times all with a zone or all without, got both", zones.index(not zones[0]))
    return micros[order]


def _iso(cells: Sequence[str]) -> np.ndarray | None:
    """Microseconds of cells that are all in ISO 8601 and without a zone, else None."""
    try:
        moments = list(map(datetime.fromisoformat, cells))
    except ValueError:
        return None
    if any(map(str.isdigit, cells)) or any(moment.tzinfo for moment in moments):
        return None
    return np.array(moments, dtype="datetime64[us]").astype(np.int64)


def clocks(cells: Sequence[str], over: bool) -> np.ndarray:
    """Microseconds (rows,) since midnight, or since the first midnight with `over`. Unread where a cell is no time."""
    at = np.empty(len(cells), dtype=np.int64)
    for row, cell in enumerate(cells):
        match = CLOCK.fullmatch(cell)
        try:
            if match is None:
                raise ValueError
            at[row] = _clock(match) - _offset((match["zone"] or "").lower())
        except ValueError:
            raise Unread(
                f"expected a time, got {shortened(cell) or 'nothing'!r}; write times as 23:59:00", row
            ) from None
    if over and len(at) > 1:
        down = np.median(np.diff(at)) < 0
        midnights = np.diff(at) > DAY // 2 if down else np.diff(at) < -DAY // 2
        at[1:] += (-DAY if down else DAY) * np.cumsum(midnights)
    return at


def numbers(values: np.ndarray, cells: Sequence[str], dated: bool) -> tuple[np.ndarray, timedelta | str]:
    """Numbers as times and their unit; where they may be `dated`, since 1970, if so large, or dates of digits alone."""
    if not dated:
        return values, ""
    size = len(cells[0]) if cells else 0
    if size in COMPACT and all(len(cell) == size and cell.isdigit() for cell in cells):
        try:
            moments = [datetime.strptime(cell, COMPACT[size]) for cell in cells]
            return np.array([(m - EPOCH) // MICRO for m in moments], dtype=np.int64), MICRO
        except ValueError:
            pass
    for scale in UNITS:
        if len(values) and FROM * scale <= values.min() and values.max() < TO * scale:
            whole = len(cells) and all(cell.isdigit() and len(cell) < 20 for cell in cells)
            exact = [int(cell) * 10**6 // int(scale) for cell in cells] if whole else np.rint(values * (1e6 / scale))
            return np.array(exact, dtype=np.int64), MICRO
    return values, ""


def times(name: str, at: np.ndarray, shown: list[str], unit: timedelta | str) -> Times:
    """The `Times` of rising `at`; the same day of successive months is counted in months."""
    if unit == MICRO and (months := _months(at)) is not None:
        at, unit = months, "months"
    step, uneven = _uneven(at)
    return Times(name, at, shown, unit, step, uneven)


def _months(at: np.ndarray) -> np.ndarray | None:
    if len(at) < 3 or not np.diff(at).min() >= 28 * DAY:
        return None
    moments = [EPOCH + int(each) * MICRO for each in at]
    if len({(m.day, m.time()) for m in moments}) > 1:
        return None
    return np.array([12 * m.year + m.month for m in moments])


def _uneven(at: np.ndarray) -> tuple[float, list[int]]:
    """The most frequent step, and the rows after another; of numbers that are no integers the median, give or take 1 %."""
    steps = np.diff(at)
    if not len(steps):
        return 0, []
    if at.dtype.kind == "i":
        if len(at) > 2 and (steps >= 28 * DAY).all() and (months := _months(at)) is not None:
            steps = np.diff(months)
        values, counts = np.unique(steps, return_counts=True)
        step = values[counts.argmax()]
        return int(step), (np.flatnonzero(steps != step) + 1).tolist()
    step = float(np.median(steps))
    return step, (np.flatnonzero(~(np.abs(steps - step) <= 0.01 * abs(step))) + 1).tolist()


def falls(at: np.ndarray) -> bool:
    """Whether times stand newest first."""
    steps = np.diff(at)
    return int((steps < 0).sum()) > int((steps > 0).sum())


def disorder(at: np.ndarray, unit: timedelta | str) -> tuple[int, str] | None:
    """The first row that keeps rising times from being an order, and why: None if rows are as they were measured.

    A clock that is set back by two hours at most, and a time that stands twice now and then, are none.
    """
    steps = np.diff(at)
    back = 2 * HOUR if unit == MICRO else 0
    rows = np.flatnonzero(steps < -back)
    if not len(rows) and (steps < 0).sum() > 0.01 * len(steps):
        rows = np.flatnonzero(steps < 0)
    if len(rows):
        return int(rows[0]) + 1, "goes back; sort the rows by time"
    equal = np.flatnonzero(steps == 0)
    if len(equal) > 0.25 * len(steps):
        return int(
            equal[0]
        ) + 1, f"stands again, as in {len(equal)} rows; keep one row for each time, or write it finer"
    return None


def shown(values: np.ndarray) -> Iterator[str]:
    return (f"{value:.10g}" for value in values)
