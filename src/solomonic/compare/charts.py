"""Chart maths: from data to coordinates on a fixed canvas.

Nothing here knows what is compared, and nothing here is markup: `chart` returns plain
numbers and path strings, and `chart.svg.j2` draws them.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

WIDTH, HEIGHT = 460, 330
LEFT, TOP, BOTTOM = 58, 40, 46
LETTER = 7.2  # width of a letter of a label
LINE = 15.5  # height of a label

MARKERS = (
    "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z",  # circle
    "M-3.6-3.6H3.6V3.6H-3.6Z",  # square
    "M0-4.8L4.6 3.4H-4.6Z",  # triangle
    "M0-5.2L4.4 0L0 5.2L-4.4 0Z",  # diamond
    "M0 4.8L4.6-3.4H-4.6Z",  # triangle, point down
    "M-1.5-4.6H1.5V-1.5H4.6V1.5H1.5V4.6H-1.5V1.5H-4.6V-1.5H-1.5Z",  # plus
    "M0-5L4.8-1.5L2.9 4H-2.9L-4.8-1.5Z",  # pentagon
    "M0-6.4L1.8-2.2L6.2-2L2.7.8L3.9 5.2L0 2.7L-3.9 5.2L-2.7.8L-6.2-2L-1.8-2.2Z",  # star
)
DASHES = ("6 3", "2 3", "9 3 2 3", "5 2 1 2", "1 2.5", "12 3", "4 4", "")


# Numbers as text


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def fixed(value: float) -> str:
    return f"{value:.2f}"


def tokens(value: float) -> str:
    return f"{value / 1024:g}k" if value >= 1024 and value % 256 == 0 else f"{value:,.0f}"


def bytes_text(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g}\N{NO-BREAK SPACE}{unit}"
        value /= 1024
    return f"{value:,.4g}\N{NO-BREAK SPACE}GiB"


def time_text(microseconds: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{microseconds:.3g}\N{NO-BREAK SPACE}µs"


# Geometry


@dataclass(frozen=True)
class Axis:
    """`log` is the base of the ticks (0: a linear axis); `data_ticks` puts them at the data's own values.

    `column` is the name of its numbers, with their unit, in a CSV: the label where it is empty.
    """

    label: str
    text: Callable[[float], str] = "{:g}".format
    log: int = 0
    low: float | None = None
    high: float | None = None
    data_ticks: bool = False
    column: str = ""


@dataclass(frozen=True)
class Point:
    """One value; `y` None is a gap in the line, `low` and `high` the spread around `y`, `more` further numbers by name."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None
    tip: str = ""
    hollow: bool = False
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    key: str
    label: str
    style: int  # 0-7: marker and dash of its own; colours go on
    points: list[Point] = field(default_factory=list)

    @property
    def marker(self) -> str:
        return MARKERS[self.style % len(MARKERS)]

    @property
    def dash(self) -> str:
        return DASHES[(self.style + 3 * (self.style // 8)) % len(DASHES)]


class Scale:
    """Maps data to pixels, and knows good ticks."""

    def __init__(self, axis: Axis, values: Iterable[float], start: float, end: float):
        self.axis, self.start, self.end = axis, start, end
        self.values = sorted(set(values))
        low, high = self.values[0], self.values[-1]
        if axis.log:
            low, high = math.log(low), math.log(high)
            pad = 0.05 * (high - low) or math.log(2)
        else:
            pad = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        self.low = low - pad if axis.low is None else axis.low
        self.high = high + pad if axis.high is None else axis.high

    def __call__(self, value: float) -> float:
        value = math.log(value) if self.axis.log else value
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def _inside(self, values: Iterable[float]) -> list[float]:
        first, last = sorted((self.start, self.end))
        return [v for v in values if (v > 0 or not self.axis.log) and first <= self(v) <= last]

    def _candidates(self) -> list[float]:
        if self.axis.data_ticks and len(self.values) <= 8:
            return self.values
        if self.axis.log:
            first = math.floor(self.low / math.log(self.axis.log))
            last = math.ceil(self.high / math.log(self.axis.log))
            powers = [float(self.axis.log) ** e for e in range(first, last + 1)]
            choices = [[p for i, p in enumerate(powers) if (first + i) % step == 0] for step in range(1, 9)]
            if self.axis.log == 10:
                choices = [[m * p for p in powers for m in ms] for ms in ((1, 2, 5), (1, 3))] + choices
            enough = 3 if self.axis.log == 10 else 2
            fitting = [ticks for choice in choices if enough <= len(ticks := self._inside(choice)) <= 7]
            if fitting:
                return fitting[0]
        low, high = (math.exp(self.low), math.exp(self.high)) if self.axis.log else (self.low, self.high)
        raw = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
        return [round(i * step, 12) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]

    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and text of each tick, without those whose text would touch the one before."""
        horizontal, kept, edge = self.end > self.start, [], -math.inf
        for value in self._inside(self._candidates()):
            pixel, text = self(value), self.axis.text(value)
            half = LETTER * len(text) / 2 + 3 if horizontal else LINE / 2
            at = pixel if horizontal else -pixel
            if at - half >= edge:
                kept.append((pixel, text))
                edge = at + half
        return kept


def push_apart(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in [low, high], at least `gap` apart, in the order of the targets and close to them.

    With i * gap taken from the i-th smallest target the gap becomes "not decreasing", and the
    nearest such positions are the block means of an isotonic regression.
    """
    if len(targets) > 1:
        gap = min(gap, (high - low) / (len(targets) - 1))
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    blocks: list[list[float]] = []  # [mean, size]
    for rank, i in enumerate(order):
        blocks.append([targets[i] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, size = blocks.pop()
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * size) / (blocks[-1][1] + size), blocks[-1][1] + size]
    top = high - gap * max(0, len(targets) - 1)
    flat = [min(max(mean, low), max(top, low)) for mean, size in blocks for _ in range(int(size))]
    placed = [0.0] * len(targets)
    for rank, i in enumerate(order):
        placed[i] = round(flat[rank] + rank * gap, 1)
    return placed


def place_beside(
    points: Sequence[tuple[float, float, str]], taken: list[tuple], box: tuple
) -> list[tuple[float, float]]:
    """Left end and middle of a label for each (x, y, text): the nearest free spot around the point."""
    taken, places = list(taken), []
    for x, y, text in points:
        width = LETTER * len(text) + 4
        spots = [
            (x + dx, y + dy)
            for far in range(14)
            for dy in ((0,) if far == 0 else (-far * 8, far * 8))
            for dx in (9, -9 - width, -width / 2)
            if far or dx != -width / 2
        ]

        def cost(spot: tuple[float, float]) -> tuple[float, int]:
            a, b, c, d = spot[0], spot[1] - LINE / 2, spot[0] + width, spot[1] + LINE / 2
            outside = max(0, box[0] - a) + max(0, c - box[2]) + max(0, box[1] - b) + max(0, d - box[3])
            overlap = sum(max(0, min(c, t[2]) - max(a, t[0])) * max(0, min(d, t[3]) - max(b, t[1])) for t in taken)
            return 50 * outside + overlap, spots.index(spot)

        left, middle = min(spots, key=cost)
        taken.append((left, middle - LINE / 2, left + width, middle + LINE / 2))
        places.append((round(left, 1), round(middle, 1)))
    return places


def _path(pixels: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in pixels)


def _drawn(series: Series, x: Scale, y: Scale, band: bool, dots: bool, more: Sequence[str]) -> dict:
    runs = [list(run) for there, run in groupby(series.points, key=lambda p: p.y is not None) if there]
    points = [p for run in runs for p in run]
    spread = [p for p in points if p.low is not None]
    bands = [[p for p in run if p.low is not None] for run in runs] if band else []

    def pixel(p: Point, value: float | None) -> tuple[float, float]:
        assert value is not None  # gaps are left out above
        return x(p.x), y(value)

    return {
        "key": series.key,
        "label": series.label,
        "style": series.style,
        "marker": series.marker,
        "dash": series.dash,
        "line": "".join(_path(pixel(p, p.y) for p in run) for run in runs if len(run) > 1),
        "band": "".join(
            _path([pixel(p, p.high) for p in run] + [pixel(p, p.low) for p in run[::-1]]) + "Z"
            for run in bands
            if len(run) > 1
        ),
        "whiskers": "".join("M{:g} {:g}V{:g}".format(*pixel(p, p.low), pixel(p, p.high)[1]) for p in spread),
        "points": [
            dict(zip("xy", pixel(p, p.y))) | {"tip": p.tip, "hollow": p.hollow}
            for p in (points if dots else points[-1:])
        ],
        "ends": (points[0], points[-1]),
        "data": [
            [*pixel(p, p.y), p.tip.removeprefix(f"{series.label}: "), p.x, p.y, p.low, p.high, *map(p.more.get, more)]
            for p in points
        ],
    }


def _reference(
    key: str, values: Sequence[tuple[float, float]], x: Scale, y: Scale, text: Callable[[float], str], more: int
) -> dict:
    pixels = [(x(a), y(b)) for a, b in values]
    rest = [None] * (2 + more)
    data = [[*pixel, text(b), a, b, *rest] for pixel, (a, b) in zip(pixels, values, strict=True)]
    return {"key": key, "path": _path(pixels), "data": data}


def chart(
    name: str,
    title: str,
    note: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    marks: Sequence[tuple[float, str]] = (),
    reference: Sequence[tuple[float, float]] = (),
    referred: str = "reference",
    beside: bool = False,
    dots: bool = True,
) -> dict | None:
    """Everything a template needs to draw one chart, or None when there is no point to draw.

    `marks` are vertical lines, `reference` a dotted line across the series, whose name is `referred`. Labels stand at
    the right edge, one a series, or `beside` the last point of each. `dots` False marks the ends only.

    `data` of a series and of the reference has a list a point: its pixel (x, y), its value as text, and then its numbers
    by `columns` but the first, which is the series' key. `box` is the view of the picture with its `caption` on top.
    """

    def fits(p: Point) -> bool:
        return p.y is None or not ((x.log and p.x <= 0) or (y.log and min(p.y, p.y if p.low is None else p.low) <= 0))

    series = [Series(s.key, s.label, s.style, [p if fits(p) else Point(p.x, None) for p in s.points]) for s in series]
    series = [s for s in series if any(p.y is not None for p in s.points)]
    if not series:
        return None
    points = [p for s in series for p in s.points if p.y is not None]
    labels = [s.label if len(s.label) <= 17 else s.label[:16] + "…" for s in series]
    right = WIDTH - 14 if beside else WIDTH - 32 - LETTER * max(map(len, labels))
    sx = Scale(x, [p.x for p in points] + [m for m, _ in marks], LEFT, right)
    heights = [v for p in points for v in (p.y, p.low, p.high) if v is not None] + [v for _, v in reference]
    sy = Scale(y, heights, HEIGHT - BOTTOM, TOP)
    more = list(dict.fromkeys(name for p in points for name in p.more))
    drawn = [_drawn(s, sx, sy, band=not beside, dots=dots, more=more) for s in series]
    tips = [d["points"][-1] for d in drawn]
    if beside:
        taken = [(p["x"] - 5, p["y"] - 5, p["x"] + 5, p["y"] + 5) for d in drawn for p in d["points"]]
        places = place_beside(
            [(t["x"], t["y"], text) for t, text in zip(tips, labels)], taken, (LEFT, TOP, right, HEIGHT - BOTTOM)
        )
    else:
        column = push_apart([t["y"] for t in tips], LINE, TOP, HEIGHT - BOTTOM)
        places = [(right + 24, at) for at in column]
    for one, tip, text, place in zip(drawn, tips, labels, places):
        one["text"], one["at"], one["tip"] = text, place, tip
    spoken = "; ".join(
        f"{d['label']} from {y.text(a.y)} at {x.text(a.x)} to {y.text(b.y)} at {x.text(b.x)}"
        for d, (a, b) in ((d, d["ends"]) for d in drawn)
    )
    caption = [*textwrap.wrap(title, 48), *textwrap.wrap(note, 72)]
    above = 17 * len(caption) + 12
    return {
        "name": name,
        "title": title,
        "note": note,
        "caption": caption,
        "box": (0, -above, WIDTH, HEIGHT + above),
        "columns": ["arch", x.column or x.label, y.column or y.label, "low", "high", *more],
        "width": WIDTH,
        "height": HEIGHT,
        "beside": beside,
        "dots": dots,
        "left": LEFT,
        "right": right,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "x_label": x.label,
        "y_label": y.label,
        "x_ticks": sx.ticks(),
        "y_ticks": sy.ticks(),
        "series": drawn,
        "marks": [(sx(value), text) for value, text in marks],
        "reference": _reference(referred, reference, sx, sy, y.text, len(more)) if len(reference) > 1 else None,
        "spoken": f"{title} {note}. {y.label} against {x.label}. {spoken}.",
    }
