"""Findings of a comparison in sentences and tables, and the tokens that the eidetic memories kept."""

import json
import math
from collections.abc import Callable
from typing import Any

from .._utils.spelling import counted
from ..tasks import summaries
from .charts import bytes_text, fixed, short, tokens
from .results import MEASURED, Compared, Entry, Stat, Task, number, state

HIDDEN = {"task", "curve", "kept", "config", "metric", "value", "length", "documents", "sums", "counts", *MEASURED}
CHIPS, STRIP = 600, 2000  # tokens drawn as words; tokens drawn at all


def cell_text(value: object) -> str:
    if value is None:
        return "–"
    if (finite := number(value)) is None:
        return str(value)
    return f"{finite:.4g}" if abs(finite) < 1e4 and not isinstance(finite, int) else f"{finite:,.0f}"


def findings(tasks: list[Task]) -> list[str]:
    """A sentence for the first recall task and one for the first text: the best, the runner-up of another family and the
    Transformer, and whether these can be told from the best. Of equals the one with the smaller state is first. A last
    sentence says how many runs stand behind it."""
    sentences = []
    for task in [*[t for t in tasks if not t.lower_is_better][:1], *[t for t in tasks if t.lower_is_better][:1]]:
        length = task.longest_common()
        sign = 1 if task.lower_is_better else -1

        ranked = sorted(
            ((e, s.mean) for e in task.entries if (s := task.value(e, length))),
            key=lambda pair: (sign * float(fixed(pair[1])), size(pair[0], length)),
        )
        if not ranked or length is None:
            continue
        best, others = ranked[0], [r for r in ranked[1:] if r[0].family != ranked[0][0].family]
        rivals = others[:1] + [r for r in others[1:] if r[0].arch == "transformer"]
        times = length / task.train_length if task.train_length else 1
        where = f"at {times:.3g}× its training length" if times > 1 else f"at length {tokens(length)}"

        def held(entry: Entry, before: str) -> str:
            return f" with {before}{bytes_text(size(entry, length))}" if size(entry, length) < math.inf else ""

        verb, unit = (
            ("recalls", "")
            if task.metric == "accuracy"
            else ("needs" if task.lower_is_better else "scores", f" {task.unit}")
        )
        line = f"On {task.name}, {best[0].label} {verb} {fixed(best[1])}{unit} {where}{held(best[0], 'a state of ')}"
        for i, (entry, value) in enumerate(rivals):
            line += f"; {entry.label}{', the runner-up,' if i == 0 else ''} {fixed(value)}{held(entry, '')}"
            against = task.compared(entry, length, best[0])
            if against and against.within and str(against):
                line += f", not distinguishable from it ({against})"
        sentences.append(f"{line}.")
    return sentences + [runs_text(tasks)] if sentences else []


def runs_text(tasks: list[Task]) -> str:
    """How many seeds and learning rates each architecture was trained with."""
    seeds = {len(e.cells) for t in tasks for e in t.entries}
    rates = {max(1, len(e.rates)) for t in tasks for e in t.entries}

    def count(numbers: set[int], what: str) -> str:
        low, high = min(numbers), max(numbers)
        return f"{low} {what}{'s' * (low > 1)}" if low == high else f"{low} to {high} {what}s"

    rows = any("rows" in t.covered or "documents" in t.covered for t in tasks)
    one = (
        "intervals cover held-out rows alone, not what another seed gives"
        if rows
        else "small differences may be chance"
    )
    chance = f"; with one seed, {one}" if min(seeds) == 1 else ""
    return f"Each was trained with {count(seeds, 'seed')} and {count(rates, 'learning rate')}{chance}."


def legend(tasks: list[Task], run: dict) -> list[tuple[str, str]]:
    """(name, what is asked in a line) of each task that is known."""
    known = summaries()
    runs = run.get("settings", {}).get("runs", {}) if isinstance(run.get("settings"), dict) else {}
    lines = []
    for task in tasks:
        settings = runs.get(task.name) if isinstance(runs, dict) else None
        about = known.get(str(settings.get("task", task.name)) if isinstance(settings, dict) else task.name)
        if about is None:
            continue
        chance = next((c for cell in task.cells for s in cell["scores"] if (c := number(s.get("chance")))), None)
        about += f"; {task.unit}, {'lower' if task.lower_is_better else 'higher'} is better"
        lines.append((task.name, about + (f", a guess is right with {fixed(chance)}" if chance else "") + scored(task)))
    return lines


def scored(task: Task) -> str:
    """How much text was scored, where the task has documents."""
    for cell in task.cells:
        for s in cell["scores"]:
            if isinstance(names := cell.get("documents"), list) and number(s.get("count")):
                what = task.metric.removeprefix("bits_per_") + "s"
                return f"; scored on {s['count']:,} {what} of {counted(len(names), 'held-out document')}"
    return ""


def _column(
    task: Task,
    group: str,
    head: str,
    pick: Callable[[Entry], Stat | None],
    text: Callable[[float], str],
    *,
    lower: bool | None = None,
    log: bool = False,
    span: tuple[float, float] | None = None,
    compared: Callable[[Entry], Compared | None] = lambda entry: None,
) -> dict:
    """A cell an architecture; its shade runs from 0, the worst of the column, to 1. `lower` None: no value is better.

    The best are those that are shown alike, or, where values are `compared`, those that cannot be told from the best.
    """
    stats = {e.arch: s for e in task.entries if (s := pick(e))}
    means = [s.mean for s in stats.values()]
    low, high = span or (min(means, default=0.0), max(means, default=0.0))
    scale = math.log if log and low > 0 else float
    best = text((min if lower else max)(means)) if len(means) > 1 and lower is not None else None
    cells = {}
    for entry in task.entries:
        if (s := stats.get(entry.arch)) is None:
            continue
        at = (scale(s.mean) - scale(low)) / (scale(high) - scale(low)) if high > low else 0.5
        spread = f"{text(s.low)} – {text(s.high)}" if text(s.low) != text(s.high) else ""
        against = compared(entry)
        cells[entry.arch] = {
            "text": text(s.mean),
            "value": s.mean,
            "range": spread,
            "tip": str(against or ""),
            "best": best is not None and (against.within if against else text(s.mean) == best),
            "shade": 0 if lower is None else round(min(1.0, max(0.0, 1 - at if lower else at)), 2),
        }
    return {"group": group, "head": head, "cells": cells}


def summary(tasks: list[Task]) -> dict:
    """A row an architecture, the best at the first task's longest length on top, of equals the one with the smaller state."""
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
                    compared=lambda e: task.compared(e, length),
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
    columns.append(_column(task, task.name, "parameters", parameters, short))
    sign = 1 if task.lower_is_better else -1
    reached = {
        e.arch: (sign * float(fixed(s.mean)), size(e, longest)) for e in task.entries if (s := task.value(e, longest))
    }
    rows = {e.arch: e for t in tasks for e in t.entries}
    groups = [
        {"text": g, "columns": [c for c in columns if c["group"] == g]}
        for g in dict.fromkeys(c["group"] for c in columns)
    ]
    return {
        "groups": groups,
        "columns": columns,
        "rows": sorted(rows.values(), key=lambda e: reached.get(e.arch, (math.inf, 0))),
    }


def size(entry: Entry, length: float | None) -> float:
    """Bytes of the state, infinity where that is not known."""
    held = entry.stat(state, length)
    return held.mean if held else math.inf


def parameters(entry: Entry) -> Stat | None:
    return entry.stat(lambda cell: number(cell.get("params")))


def everything(cells: list[dict], tasks: list[Task]) -> list[dict]:
    """A table a task with every value of every line, save what the charts and pictures alone can show."""
    shown = {id(cell) for task in tasks for cell in task.cells}
    tables = []
    for task in tasks:
        rows: list[dict[str, Any]] = []
        for cell in (c for c in cells if c["task"] == task.name):
            row = {k: v for k, v in cell.items() if k not in HIDDEN}
            for s in sorted(cell["scores"], key=lambda s: s.get("position") is not None):
                at = f"{s.get('length')}:{s['position']}" if s.get("position") is not None else s.get("length")
                row[f"{s.get('metric')} @ {at}"] = s.get("value")
            for x in [*cell["scores"], *cell["costs"]]:
                if x.get("position") is None:
                    row |= {f"{k} @ {x.get('length')}": v for k, v in x.items() if k not in HIDDEN}
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
        score = scores[i]
        return 0.35 + 0.65 * (score - low) / (high - low) if high > low and score is not None else 0.65

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
