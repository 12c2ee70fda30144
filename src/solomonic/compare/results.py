"""The cells of a comparison as a page shows them: read from disk, the best learning rate chosen, averaged over seeds."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._utils import jsontext
from .charts import Axis, short
from .folder import read_lines

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
    """A mean over seeds and its spread."""

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
    for s in cell["scores"]:
        if (s.get("metric"), s.get("length"), s.get("position")) == (metric, length, position):
            return number(s.get(key))
    return None


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
    rates: int = 1  # learning rates that were tried

    @property
    def label(self) -> str:
        return NAMES.get(self.arch, self.arch)

    @property
    def family(self) -> str:
        """Variants of one architecture are of one family."""
        return self.arch.split("_")[0] if self.arch.startswith("bmojo") else self.arch

    def stat(self, pick: Callable[..., float | None], *args: Any) -> Stat | None:
        return stat(pick(cell, *args) for cell in self.cells)


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
        return Axis(self.unit + (" (lower is better)" if self.lower_is_better else ""), short, low=low, high=high)

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

    def value(self, entry: Entry, length: float | None) -> Stat | None:
        return entry.stat(score, self.metric, length)


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
            entries.append(Entry(arch, style[arch], max(groups.values(), key=quality), len(groups)))
        tasks.append(Task(name, metric, entries))
    return sorted(tasks, key=lambda t: t.lower_is_better)
