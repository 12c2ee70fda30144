"""One self-contained page from the results of a comparison.

`write_report` reads `results.jsonl` (a line per finished cell) and `run.json`, and writes
`report.html`: no script, no external address. Results may be partial.

This file shapes data: which cells are shown, what each chart holds, what is found. The geometry
is in `charts.py`, the markup in `report.html.j2`, the looks in `report.css.j2`.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2

from solomonic.compare.charts import MARKERS, Axis, Point, Series, bytes_text, chart, fixed, short, time_text, tokens
from solomonic.compare.matrix import sound
from solomonic.files import write

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
    "bmojo_published": "B'MOJO as published",
    "bmojo": "B'MOJO",
}
KNOWN = list(NAMES)  # in the order that they are drawn in
FIRST = ("transformer", "sliding_window", "mamba2", "gated_deltanet", "jamba", "samba", "bmojo_f", "bmojo")
STYLES = {a: FIRST.index(a) if a in FIRST else 12 + i for i, a in enumerate(sorted(KNOWN, key=lambda a: a in FIRST))}
MEASURED = ("scores", "costs")  # lists in a cell, with an entry a length
CURVE_POINTS = 150  # drawn a loss curve
CHIPS, STRIP = 600, 2000  # tokens drawn as words; tokens drawn at all


# Reading


def load(folder: Path) -> tuple[list[dict], dict, list[str]]:
    """The cells, the run, and notes on what could not be read."""
    results, notes = folder / "results.jsonl", []
    if not results.is_file():
        raise FileNotFoundError(
            f"{results} does not exist: expected the folder of a comparison, with one line a finished cell"
        )
    lines = [line for line in results.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    cells = [cell for cell in map(_cell, lines) if cell is not None]
    if torn := len(lines) - len(cells):
        notes.append(f"{torn} unreadable {'line' if torn == 1 else 'lines'} of results.jsonl skipped.")
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if not isinstance(run, dict):
            raise ValueError("not an object")
    except (OSError, ValueError):
        run = {}
        notes.append("run.json is missing or unreadable: command and settings are unknown.")
    return cells, run, notes


def _cell(line: str) -> dict | None:
    cell = sound(line)
    named = cell is not None and all(isinstance(cell.get(key), str) for key in ("arch", "task"))
    if not named or not all(isinstance(entry, dict) for key in MEASURED for entry in cell.get(key) or ()):
        return None
    return cell | {key: cell.get(key) or [] for key in MEASURED}


def number(value: object) -> float | None:
    """A finite number, or None."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def cell_text(value: object) -> str:
    if value is None:
        return "–"
    if number(value) is None:
        return str(value)
    return f"{value:.4g}" if abs(value) < 1e4 and not isinstance(value, int) else f"{value:,.0f}"


# Choosing and averaging


@dataclass(frozen=True)
class Stat:
    """A mean over seeds and its spread."""

    mean: float
    low: float
    high: float
    count: int


def stat(values: Iterable[float | None]) -> Stat | None:
    there = [v for v in values if v is not None]
    return Stat(sum(there) / len(there), min(there), max(there), len(there)) if there else None


def score(cell: dict, metric: str, length: float, key: str = "value", position: float | None = None) -> float | None:
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

    @property
    def label(self) -> str:
        return NAMES.get(self.arch, self.arch)

    def stat(self, pick: Callable[..., float | None], *args) -> Stat | None:
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
            entries.append(Entry(arch, style[arch], max(groups.values(), key=quality)))
        tasks.append(Task(name, metric, entries))
    return sorted(tasks, key=lambda t: t.lower_is_better)


# Charts


def point(
    x: float, s: Stat | None, label: str, x_text: str, y_text: Callable[[float], str], hollow: bool = False
) -> Point:
    if s is None:
        return Point(x, None)
    tip, low, high = f"{label}: {y_text(s.mean)} {x_text}", None, None
    if s.count > 1:
        tip, low, high = f"{tip} ({y_text(s.low)} to {y_text(s.high)}, {s.count} seeds)", s.low, s.high
    return Point(x, s.mean, low, high, tip, hollow)


def lines(
    task: Task,
    xs: list[float],
    pick: Callable[[Entry, float], Stat | None],
    y_text: Callable[[float], str],
    at: str = "at length",
) -> list[Series]:
    return [
        Series(e.arch, e.label, e.style, [point(x, pick(e, x), e.label, f"{at} {tokens(x)}", y_text) for x in xs])
        for e in task.entries
    ]


def seeds_note(task: Task) -> str:
    counts = sorted({len(e.cells) for e in task.entries})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[-1]}"
    return f"{task.name}: mean over {many} seeds, band from lowest to highest" if counts[-1] > 1 else task.name


LENGTH = Axis("length (tokens, log scale)", tokens, log=2, data_ticks=True)


def trained(task: Task) -> list[tuple[float, str]]:
    return [(task.train_length, f"trained at {tokens(task.train_length)}")] if task.train_length else []


def quality_against_length(task: Task) -> dict | None:
    lengths = task.lengths()
    series = lines(task, lengths, task.value, fixed)
    known = {
        what: [(n, s.mean) for n in lengths if (s := stat(score(c, task.metric, n, what) for c in task.cells))]
        for what in ("chance", "bound")
    }
    dotted = next((what for what, there in known.items() if there), None)
    what = "prediction" if task.lower_is_better else "recall" if task.metric == "accuracy" else "the score"
    return chart(
        f"quality:{task.name}",
        f"Does {what} hold beyond the training length?",
        seeds_note(task) + (f"; dotted: {dotted}" if dotted else ""),
        LENGTH,
        task.axis,
        series,
        marks=trained(task),
        reference=known.get(dotted, []),
    )


def quality_against_state(task: Task) -> dict | None:
    train, longest = task.train_length, task.longest_common(key="state_bytes")
    stops = list(dict.fromkeys(n for n in (train, longest) if n))
    series = []
    for e in task.entries:
        found = [(n, size.mean, task.value(e, n)) for n in stops if (size := e.stat(state, n))]
        series.append(
            Series(
                e.arch,
                e.label,
                e.style,
                [
                    point(
                        size, s, e.label, f"at length {tokens(n)} with {bytes_text(size)}", fixed, hollow=n != longest
                    )
                    for n, size, s in found
                ],
            )
        )
    where = (
        f"hollow at length {tokens(train)}, filled at {tokens(longest)}"
        if len(stops) > 1
        else f"at length {tokens(longest or 0)}"
    )
    return chart(
        f"state_quality:{task.name}",
        "How much memory does the recall take?",
        f"{task.name}: {where}",
        Axis("state per sequence (log scale)", bytes_text, log=2),
        task.axis,
        series,
        beside=True,
    )


def quality_against_position(task: Task) -> dict | None:
    metric = f"{task.metric}_at"
    length = task.longest_common(metric)
    positions = sorted(
        {
            s["position"]
            for c in task.cells
            for s in c["scores"]
            if s.get("metric") == metric and s.get("length") == length and number(s.get("position"))
        }
    )
    series = lines(task, positions, lambda e, x: e.stat(score, metric, length, "value", x), fixed, "up to position")
    return chart(
        f"position:{task.name}",
        "Does more context still help?",
        f"{seeds_note(task)}; texts of {tokens(length or 0)}",
        Axis("position in the text (log scale)", tokens, log=2, data_ticks=True),
        task.axis,
        series,
        marks=trained(task),
    )


def against_length(
    task: Task, name: str, title: str, y: Axis, pick: Callable[[dict, float], float | None]
) -> dict | None:
    entries = [x for c in task.cells for x in [*c["scores"], *c["costs"]]]
    lengths = sorted({x["length"] for x in entries if number(x.get("length"))})
    lengths = [n for n in lengths if any(pick(c, n) is not None for c in task.cells)]
    series = lines(task, lengths, lambda e, n: e.stat(pick, n), y.text)
    return chart(f"{name}:{task.name}", title, seeds_note(task), LENGTH, y, series, marks=trained(task))


def loss_curves(task: Task) -> dict | None:
    series = []
    for e in task.entries:
        curves = [{s: number(v) for s, v in c["curve"]} for c in e.cells if c.get("curve")]
        steps = sorted(set.intersection(*map(set, curves)) or set.union(*map(set, curves))) if curves else []
        every = math.ceil(len(steps) / CURVE_POINTS) or 1
        steps = steps[::-1][::every][::-1]
        series.append(
            Series(
                e.arch,
                e.label,
                e.style,
                [point(x, stat(c.get(x) for c in curves), e.label, f"after step {x:,}", short) for x in steps],
            )
        )
    values = [v for s in series for p in s.points for v in (p.low, p.y) if v is not None]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > 20
    return chart(
        f"loss:{task.name}",
        "How fast does it learn?",
        seeds_note(task),
        Axis("training step", short, low=0),
        Axis(f"training loss (nats{', log scale' if log else ''})", short, log=10 if log else 0),
        series,
        dots=False,
    )


def sections(tasks: list[Task]) -> list[dict]:
    recall, text = [t for t in tasks if not t.lower_is_better], [t for t in tasks if t.lower_is_better]
    costs = [
        partial(
            against_length,
            name="prefill",
            title="What does reading a token cost?",
            y=Axis("prefill, time per token (log scale)", time_text, log=10),
            pick=lambda c, n: cost(c, "prefill_us_per_token", n),
        ),
        partial(
            against_length,
            name="decode",
            title="What does writing a token cost?",
            y=Axis("decode, time per token (log scale)", time_text, log=10),
            pick=lambda c, n: cost(c, "decode_us_per_token", n),
        ),
        partial(
            against_length,
            name="state",
            title="How does the state grow with the length?",
            y=Axis("state per sequence (log scale)", bytes_text, log=2),
            pick=state,
        ),
    ]
    plan = [
        ("recall", "Recall", [(make, t) for t in recall for make in (quality_against_length, quality_against_state)]),
        ("text", "Text", [(make, t) for t in text for make in (quality_against_position, quality_against_length)]),
        ("cost", "Cost", [(make, t) for make in costs for t in tasks]),
        ("training", "Training", [(loss_curves, t) for t in tasks]),
    ]
    drawn = [
        {"id": id, "title": title, "charts": [c for pair in pairs if (c := pair[0](pair[1]))]}
        for id, title, pairs in plan
    ]
    return [s for s in drawn if s["charts"]]


# Findings and tables


def findings(tasks: list[Task]) -> list[str]:
    """A sentence for the first recall task and one for the first text: the best, and what it is measured against."""
    said = []
    for task in [*[t for t in tasks if not t.lower_is_better][:1], *[t for t in tasks if t.lower_is_better][:1]]:
        length = task.longest_common()
        ranked = sorted(
            ((e, s.mean) for e in task.entries if (s := task.value(e, length))),
            key=lambda pair: pair[1],
            reverse=not task.lower_is_better,
        )
        if not ranked:
            continue
        best, rival = ranked[0], next((r for r in ranked[1:] if r[0].arch == "transformer"), (*ranked[1:], None)[0])
        times = length / task.train_length if task.train_length else 1
        where = f"at {times:.3g}× its training length" if times > 1 else f"at length {tokens(length)}"

        def size(entry: Entry, before: str) -> str:
            s = entry.stat(state, length)
            return f" with {before}{bytes_text(s.mean)}" if s else ""

        verb, unit = (
            ("recalls", "")
            if task.metric == "accuracy"
            else ("needs" if task.lower_is_better else "scores", f" {task.unit}")
        )
        line = f"On {task.name}, {best[0].label} {verb} {fixed(best[1])}{unit} {where}{size(best[0], 'a state of ')}"
        said.append(f"{line}; {rival[0].label} {fixed(rival[1])}{size(rival[0], '')}." if rival else f"{line}.")
    return said


def _column(
    task: Task,
    group: str,
    head: str,
    pick: Callable[[Entry], Stat | None],
    text: Callable[[float], str],
    *,
    lower: bool,
    log: bool = False,
    span: tuple[float, float] | None = None,
) -> dict:
    """A cell an architecture; its shade runs from 0, the worst of the column, to 1."""
    stats = {e.arch: s for e in task.entries if (s := pick(e))}
    means = [s.mean for s in stats.values()]
    low, high = span or (min(means, default=0.0), max(means, default=0.0))
    scale = math.log if log and low > 0 else float
    best = text((min if lower else max)(means)) if len(means) > 1 else None
    cells = {}
    for arch, s in stats.items():
        at = (scale(s.mean) - scale(low)) / (scale(high) - scale(low)) if high > low else 0.5
        spread = f"{text(s.low)} – {text(s.high)}" if text(s.low) != text(s.high) else ""
        cells[arch] = {
            "text": text(s.mean),
            "range": spread,
            "best": text(s.mean) == best,
            "shade": round(min(1.0, max(0.0, 1 - at if lower else at)), 2),
        }
    return {"group": group, "head": head, "cells": cells}


def summary(tasks: list[Task]) -> dict:
    """A row an architecture, the best at the first task's longest length on top."""
    if not tasks:
        return {"groups": [], "columns": [], "rows": []}
    columns = []
    for task in tasks:
        group = f"{task.name}: {task.unit} {'↓' if task.lower_is_better else '↑'}"
        for length in dict.fromkeys(n for n in (task.train_length, max(task.lengths(), default=None)) if n):
            head = f"{tokens(length)} (trained)" if length == task.train_length else tokens(length)
            columns.append(
                _column(
                    task,
                    group,
                    head,
                    lambda e: task.value(e, length),
                    fixed,
                    lower=task.lower_is_better,
                    span=(0.0, 1.0) if task.metric == "accuracy" else None,
                )
            )
    task, longest = tasks[0], max(tasks[0].lengths(), default=None)
    if longest:
        columns.append(
            _column(
                task,
                task.name,
                f"state at {tokens(longest)} ↓",
                lambda e: e.stat(state, longest),
                bytes_text,
                lower=True,
                log=True,
            )
        )
    columns.append(
        _column(
            task,
            task.name,
            "training tokens/s ↑",
            lambda e: e.stat(lambda c: number(c.get("tokens_per_second"))),
            short,
            lower=False,
            log=True,
        )
    )
    sign = 1 if task.lower_is_better else -1
    reached = {e.arch: sign * s.mean for e in task.entries if (s := task.value(e, longest))}
    rows = {e.arch: e for t in tasks for e in t.entries}
    groups = [
        {"text": g, "columns": [c for c in columns if c["group"] == g]}
        for g in dict.fromkeys(c["group"] for c in columns)
    ]
    return {
        "groups": groups,
        "columns": columns,
        "rows": sorted(rows.values(), key=lambda e: reached.get(e.arch, math.inf)),
    }


def everything(cells: list[dict], tasks: list[Task]) -> list[dict]:
    """A table a task with every value of every line, save what the charts and pictures alone can show."""
    shown = {id(cell) for task in tasks for cell in task.cells}
    tables = []
    for task in tasks:
        rows = []
        for cell in (c for c in cells if c["task"] == task.name):
            row = {k: v for k, v in cell.items() if k not in ("task", "curve", "kept", "config", "metric", *MEASURED)}
            for s in sorted(cell["scores"], key=lambda s: s.get("position") is not None):
                at = f"{s.get('length')}:{s['position']}" if s.get("position") is not None else s.get("length")
                row[f"{s.get('metric')} @ {at}"] = s.get("value")
            for x in [*cell["scores"], *cell["costs"]]:
                row |= {
                    f"{k} @ {x.get('length')}": v
                    for k, v in x.items()
                    if k not in ("metric", "value", "length", "position")
                }
            rows.append({"values": row, "shown": id(cell) in shown})
        heads = list(dict.fromkeys(k for row in rows for k in row["values"]))
        for row in rows:
            row["cells"] = [row["values"].get(head) for head in heads]
        tables.append({"task": task.name, "heads": heads, "rows": rows})
    return tables


def flat(settings: object, path: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    if isinstance(settings, dict) and settings:
        return [pair for key, value in settings.items() for pair in flat(value, f"{path}.{key}" if path else str(key))]
    return [(path, settings if isinstance(settings, str) else json.dumps(settings, ensure_ascii=False))] if path else []


# The picture of kept tokens


def kept_pictures(tasks: list[Task]) -> list[dict]:
    pictures = []
    for task in tasks:
        for entry in task.entries:
            kept = next(
                (c["kept"] for c in entry.cells if isinstance(c.get("kept"), dict) and c["kept"].get("tokens")), None
            )
            if kept:
                layers = [_strip(kept, layer) for layer in kept.get("layers") or ()]
                size = len(kept["tokens"])
                each = math.ceil(size / STRIP)
                pictures.append(
                    {
                        "arch": entry.arch,
                        "label": entry.label,
                        "style": entry.style,
                        "task": task.name,
                        "layers": layers,
                        "tokens": size,
                        "chips": size <= CHIPS,
                        "each": each,
                        "marked": bool(kept.get("marked")),
                        "window": kept.get("window"),
                        "capacity": kept.get("capacity"),
                    }
                )
    return pictures


def _strip(kept: dict, layer: dict) -> dict:
    """One layer's chips. A kept token's `level` runs from 0.35 to 1 with its score among the kept ones."""
    words, size = [str(w).replace(" ", "␣").replace("\n", "↵") for w in kept["tokens"]], len(kept["tokens"])
    held, marked = ({i for i in places or () if 0 <= i < size} for places in (layer.get("kept"), kept.get("marked")))
    scores = [number(s) for s in (layer.get("score") or [])[:size]]
    scores += [None] * (size - len(scores))
    there = [scores[i] for i in held if scores[i] is not None]
    low, high = (min(there), max(there)) if there else (0.0, 0.0)

    def level(i: int) -> float:
        return 0.35 + 0.65 * (scores[i] - low) / (high - low) if high > low and scores[i] is not None else 0.65

    cells, each, window = [], math.ceil(size / STRIP), kept.get("window") or 0
    for start in range(0, size, each):
        group = range(start, min(start + each, size))
        facts = [
            f"{words[i]} at {i}"
            + (f", score {scores[i]:.3g}" if scores[i] is not None else "")
            + (", kept" if i in held else "")
            + (", will be asked for" if i in marked else "")
            for i in group
        ]
        cells.append(
            {
                "text": words[start],
                "tip": "; ".join(facts),
                "kept": any(i in held for i in group),
                "level": round(max((level(i) for i in group if i in held), default=0), 2),
                "window": group[-1] >= size - window,
                "marked": any(i in marked for i in group),
            }
        )
    note = f"{len(held)} of {size:,} tokens kept"
    if marked:
        note += f", {len(held & marked)} of the {len(marked)} that the task will ask for"
    return {"name": layer.get("layer"), "note": note, "cells": cells}


# The page


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from `folder/results.jsonl` and `folder/run.json`; return its path."""
    folder = Path(folder)
    cells, run, notes = load(folder)
    tasks = choose(cells)
    planned = number(run.get("cells"))
    if planned and len(cells) < planned:
        notes.insert(0, f"Partial results: {len(cells)} of {planned:g} planned cells have finished.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = cell_text
    page = environment.get_template("report.html.j2").render(
        run=run,
        notes=notes,
        count=len(cells),
        findings=findings(tasks),
        summary=summary(tasks),
        sections=sections(tasks),
        pictures=kept_pictures(tasks),
        tables=everything(cells, tasks),
        settings=flat(run.get("settings")),
        versions=flat(run.get("versions")),
        markers=MARKERS,
    )
    write(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"
