"""The cells of a comparison as a page shows them: read from disk, the best learning rate chosen, averaged over seeds."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._utils import jsontext
from .charts import Axis, fixed, short
from .folder import read_lines
from .statistics import Interval, interval

NAMES = {
    "transformer": "Transformer",
    "sliding_window": "Sliding window",
    "mamba2": "Mamba-2",
    "gated_deltanet": "Gated DeltaNet",
    "kda": "Kimi Delta Attention",
    "gated_deltanet2": "Gated DeltaNet-2",
    "mamba3": "Mamba-3",
    "jamba": "Jamba",
    "samba": "Samba",
    "bmojo_f": "B'MOJO-F",
    "bmojo_published": "B'MOJO published",
    "bmojo": "B'MOJO",
}
KNOWN = list(NAMES)  # in the order that they are drawn in
FIRST = ("transformer", "sliding_window", "mamba2", "gated_deltanet", "jamba", "samba", "bmojo_f", "bmojo")
STYLES = {a: FIRST.index(a) if a in FIRST else 12 + i for i, a in enumerate(sorted(KNOWN, key=lambda a: a in FIRST))}
MEASURED = ("scores", "costs")  # lists in a cell, with an entry a length


def load(folder: Path) -> tuple[list[dict], dict, list[str]]:
    """The cells, the run, and notes on what could not be read."""
    results, notes = folder / "results.jsonl", []
    if not results.is_file():
        raise FileNotFoundError(
            f"{results} does not exist: expected the folder of a comparison, with one line a finished cell"
        )
    lines, damaged = read_lines(results, ("arch", "task"))
    cells = [line | {key: line.get(key) or [] for key in MEASURED} for line in lines if _is_cell(line)]
    if torn := len(damaged) + len(lines) - len(cells):
        notes.append(f"{torn} unreadable {'line' if torn == 1 else 'lines'} of results.jsonl skipped.")
    try:
        run = jsontext.read(folder / "run.json", dict, infinite=True)
    except (OSError, ValueError):
        run = {}
        notes.append("run.json is missing or unreadable: command and settings are unknown.")
    return cells, run, notes


def _is_cell(line: dict[str, Any]) -> bool:
    named = all(isinstance(line[key], str) for key in ("arch", "task"))
    return named and all(isinstance(entry, dict) for key in MEASURED for entry in line.get(key) or ())


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Stat:
    """A mean over seeds and its spread: of a score the 95 % interval, of anything else the lowest and highest."""

    mean: float
    low: float
    high: float
    count: int


def stat(values: Iterable[float | None]) -> Stat | None:
    known = [v for v in values if v is not None]
    return Stat(sum(known) / len(known), min(known), max(known), len(known)) if known else None


def score(
    cell: dict, metric: str, length: float | None, key: str = "value", position: float | None = None
) -> float | None:
    return number(_entry(cell, metric, length, position).get(key))


def _entry(cell: dict, metric: str, length: float | None, position: float | None) -> dict:
    for s in cell["scores"]:
        if (s.get("metric"), s.get("length"), s.get("position")) == (metric, length, position):
            return s
    return {}


class Sample(NamedTuple):
    """Scores of an architecture: (K seeds, U rows or documents, 2), sums and positions scored; and which these are."""

    values: np.ndarray
    units: tuple

    def together(self) -> "Sample":
        """As one unit, whose score alone is known."""
        return Sample(self.values.sum(1, keepdims=True), ())


def _sums(cell: dict, metric: str, length: float | None, position: float | None) -> Sample | None:
    """One seed's. Lines of an earlier version, and damaged ones, have the score alone: one unit."""
    entry = _entry(cell, metric, length, position)
    value = number(entry.get("value"))
    if value is None:
        return None
    try:
        sums = np.array(entry["sums"], dtype=np.float64)
        values = np.stack([sums, np.broadcast_to(np.array(entry["counts"], dtype=np.float64), sums.shape)], -1)
        if values.ndim == 2 and len(values) > 1 and np.isfinite(values).all() and values[:, 1].sum() > 0:
            return Sample(values[None], (len(values), *map(str, cell.get("documents", ()))))
    except (KeyError, TypeError, ValueError):
        pass
    return Sample(np.array([[[value, 1.0]]]), ())


def cost(cell: dict, key: str, length: float) -> float | None:
    for c in cell["costs"]:
        if c.get("length") == length:
            return number(c.get(key))
    return None


def state(cell: dict, length: float) -> float | None:
    for entry in [*cell["scores"], *cell["costs"]]:
        if entry.get("length") == length and number(entry.get("state_bytes")) is not None:
            return entry["state_bytes"]
    return None


@dataclass(frozen=True)
class Entry:
    """An architecture on a task at its best learning rate: one cell a seed."""

    arch: str
    style: int
    cells: list[dict]
    rates: tuple[float | None, ...] = ()  # learning rates that were tried

    @property
    def label(self) -> str:
        return NAMES.get(self.arch, self.arch)

    @property
    def family(self) -> str:
        """Variants of one architecture are of one family."""
        return self.arch.split("_")[0] if self.arch.startswith("bmojo") else self.arch

    def stat(self, pick: Callable[..., float | None], *args: Any) -> Stat | None:
        return stat(pick(cell, *args) for cell in self.cells)

    def sample(self, metric: str, length: float | None, position: float | None = None) -> Sample | None:
        """The seeds that have the score, row by row where all of them know the same rows."""
        seeds = [s for cell in self.cells if (s := _sums(cell, metric, length, position))]
        if len({s.units for s in seeds}) > 1:
            seeds = [s.together() for s in seeds]
        return Sample(np.concatenate([s.values for s in seeds]), seeds[0].units) if seeds else None

    def interval(self, metric: str, length: float | None, position: float | None = None) -> Interval | None:
        """The mean score over seeds and its 95 % interval; None where that is not known."""
        sample = self.sample(metric, length, position)
        return interval(sample.values) if sample else None


@dataclass(frozen=True)
class Task:
    name: str
    metric: str
    entries: list[Entry]

    @property
    def lower_is_better(self) -> bool:
        return self.metric.startswith("bits_per_")

    @property
    def unit(self) -> str:
        return "recall" if self.metric == "accuracy" else self.metric.replace("_", " ")

    @property
    def axis(self) -> Axis:
        low, high = (-0.03, 1.03) if self.metric == "accuracy" else (None, None)
        label = self.unit + (" (lower is better)" if self.lower_is_better else "")
        return Axis(label, short, low=low, high=high, column=self.metric)

    @property
    def cells(self) -> list[dict]:
        return [cell for e in self.entries for cell in e.cells]

    @property
    def train_length(self) -> float | None:
        lengths = {number(cell.get("train_length")) for cell in self.cells}
        return lengths.pop() if len(lengths) == 1 else None

    def lengths(self, metric: str | None = None) -> list[float]:
        metric = metric or self.metric
        return sorted(
            {
                s["length"]
                for c in self.cells
                for s in c["scores"]
                if s.get("metric") == metric and number(s.get("length")) and number(s.get("value")) is not None
            }
        )

    def longest_common(self, metric: str | None = None, key: str = "value") -> float | None:
        """The longest length that the most architectures reached."""
        metric = metric or self.metric

        def reached(length: float) -> int:
            return sum(
                any(
                    s.get("metric") == metric and s.get("length") == length and number(s.get(key)) is not None
                    for c in e.cells
                    for s in c["scores"]
                )
                for e in self.entries
            )

        return max(self.lengths(metric), key=lambda n: (reached(n), n), default=None)

    def value(
        self, entry: Entry, length: float | None, metric: str | None = None, position: float | None = None
    ) -> Stat | None:
        """The mean over seeds, and the 95 % interval as far as scores can be; one value where that is not known."""
        metric = metric or self.metric
        mean = entry.stat(score, metric, length, "value", position)
        known = entry.interval(metric, length, position)
        if mean is None or known is None:
            return mean
        most = 1.0 if self.metric == "accuracy" else math.inf
        low, high = max(known.low, min(0.0, mean.mean)), min(known.high, max(most, mean.mean))
        return Stat(mean.mean, low, high, mean.count)

    @property
    def covered(self) -> str:
        """What the intervals of the task's scores cover: "documents and seeds", "rows", ..., or nothing."""
        units = [s.units for e in self.entries for n in self.lengths()[:1] if (s := e.sample(self.metric, n))]
        rows = [] if not any(units) else ["documents"] if any(len(names) > 1 for names in units) else ["rows"]
        return " and ".join(rows + ["seeds"] * any(len(e.cells) > 1 for e in self.entries))

    def compared(self, entry: Entry, length: float | None, best: Entry | None = None) -> "Compared | None":
        """The entry against `best`, by default that of the best mean; None where one of them has no score."""
        means = [(s.mean, e) for e in self.entries if (s := e.stat(score, self.metric, length))]
        mine = entry.sample(self.metric, length)
        if mine is None or not means:
            return None
        best = best or (min if self.lower_is_better else max)(means, key=lambda pair: pair[0])[1]
        if entry is best:
            return Compared(best, Interval(0.0, 0.0), True)
        others = best.sample(self.metric, length)
        if others is None:
            return None
        if mine.units != others.units:
            mine, others = mine.together(), others.together()
        if (difference := interval(mine.values, others.values)) is not None:
            return Compared(best, difference, difference.low <= 0 <= difference.high)
        return Compared(best, None, len({fixed(mean) for mean, e in means if e in (entry, best)}) == 1)


class Compared(NamedTuple):
    """An architecture against the best: its score less the best's, paired by rows, None where that has no interval."""

    best: Entry
    difference: Interval | None
    within: bool  # not distinguishable: the 95 % interval covers 0, or both are the same as they are shown

    def __str__(self) -> str:
        if self.difference is None or self.difference == (0.0, 0.0):
            return ""
        estimate, low, high = (
            f"{x:+.3f}" for x in (self.difference.estimate, self.difference.low, self.difference.high)
        )
        return f"difference from {self.best.label} {estimate}, 95 % interval {low} to {high}"


def edges(tasks: Iterable[Task]) -> list[str]:
    """A warning for each end of a grid of learning rates at which the best rate of some architectures lies."""
    warnings = []
    for task in tasks:
        at: dict[tuple[str, float], list[str]] = {}
        for entry in task.entries:
            rates = sorted(rate for rate in entry.rates if rate is not None)
            best = number(entry.cells[0].get("lr"))
            if len(rates) > 1 and best in (rates[0], rates[-1]):
                at.setdefault(("lowest" if best == rates[0] else "highest", best), []).append(entry.label)
        for (end, rate), labels in at.items():
            warnings.append(
                f"{task.name}: the best learning rate of {', '.join(labels)} is the {end} of its grid, {rate:g}; a "
                f"{end.removesuffix('est')}er one may be better."
            )
    return warnings


def choose(cells: list[dict]) -> list[Task]:
    """Recall tasks, then text, as they appeared; in each, every architecture at its best learning rate.

    Best is the mean over seeds of the score at the training length: a learning rate where a seed
    has no such score comes last, the lowest loss decides a tie. A cell that was run twice counts
    as it was last.
    """
    others = [a for a in dict.fromkeys(c["arch"] for c in cells) if a not in KNOWN]
    style = STYLES | {a: 8 + i % 4 for i, a in enumerate(others)}
    unique = {tuple(json.dumps(c.get(k)) for k in ("task", "arch", "lr", "seed")): c for c in cells}.values()
    tasks = []
    for name in dict.fromkeys(c["task"] for c in cells):
        here = [c for c in unique if c["task"] == name]
        metrics = [s["metric"] for c in here for s in c["scores"] if isinstance(s.get("metric"), str)]
        metric = next((m for m in metrics if not m.endswith("_at")), "accuracy")
        sign = -1 if metric.startswith("bits_per_") else 1

        def quality(group: list[dict]) -> tuple[float, float]:
            at = stat(score(c, metric, c.get("train_length")) for c in group)
            loss = stat(number(c.get("loss")) for c in group)
            return sign * at.mean if at and at.count == len(group) else -math.inf, -loss.mean if loss else -math.inf

        entries = []
        for arch in sorted(
            {c["arch"] for c in here}, key=lambda a: (a in KNOWN, KNOWN.index(a) if a in KNOWN else style[a], a)
        ):
            groups: dict[str, list[dict]] = {}
            for c in here:
                if c["arch"] == arch:
                    groups.setdefault(json.dumps(c.get("lr")), []).append(c)
            entries.append(
                Entry(
                    arch,
                    style[arch],
                    max(groups.values(), key=quality),
                    tuple(number(g[0].get("lr")) for g in groups.values()),
                )
            )
        tasks.append(Task(name, metric, entries))
    return sorted(tasks, key=lambda t: t.lower_is_better)
