"""The charts of a comparison: what each holds. Their geometry is in `charts.py`."""

import math
import re
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from typing import Any

from .._utils.spelling import counted
from .charts import Axis, Point, Series, bytes_text, chart, fixed, short, time_text, tokens
from .results import Entry, Stat, Task, cost, number, score, stat, state

CURVE_POINTS = 150  # drawn a loss curve


def point(
    x: float,
    s: Stat | None,
    label: str,
    x_text: str,
    y_text: Callable[[float], str],
    hollow: bool = False,
    **more: float,
) -> Point:
    if s is None:
        return Point(x, None)
    tip, low, high = f"{label}: {y_text(s.mean)} {x_text}", None, None
    if s.count > 1 or s.low < s.high:
        seeds = counted(s.count, "seed")
        tip, low, high = f"{tip} ({y_text(s.low)} to {y_text(s.high)}, {seeds})", s.low, s.high
    return Point(x, s.mean, low, high, tip, hollow, {"seeds": s.count, **more})


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


def seeds_note(task: Task, band: str = "from lowest to highest") -> str:
    counts = sorted({len(e.cells) for e in task.entries})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[-1]}"
    return f"{task.name}: mean over {many} seeds, band {band}" if counts[-1] > 1 else task.name


def interval_note(task: Task) -> str:
    band = f"the 95 % interval over {task.covered}"
    return f"{task.name}: band {band}" if task.covered in ("rows", "documents") else seeds_note(task, band)


LENGTH = Axis("length (tokens, log scale)", tokens, log=2, data_ticks=True, column="length")


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
        interval_note(task) + (f"; dotted: {dotted}" if dotted else ""),
        LENGTH,
        task.axis,
        series,
        marks=trained(task),
        reference=known[dotted] if dotted else [],
        referred=dotted or "",
    )


def quality_against_state(task: Task) -> dict | None:
    train, longest = task.train_length, task.longest_common(key="state_bytes")
    stops = list(dict.fromkeys(n for n in (train, longest) if n))
    series = []
    for e in task.entries:
        sizes = [(n, size.mean, task.value(e, n)) for n in stops if (size := e.stat(state, n))]
        series.append(
            Series(
                e.arch,
                e.label,
                e.style,
                [
                    point(
                        size,
                        s,
                        e.label,
                        f"at length {tokens(n)} with {bytes_text(size)}",
                        fixed,
                        hollow=n != longest,
                        length=n,
                    )
                    for n, size, s in sizes
                ],
            )
        )
    where = (
        f"hollow at length {tokens(train)}, filled at {tokens(longest)}"
        if train and longest and train != longest
        else f"at length {tokens(longest or 0)}"
    )
    return chart(
        f"state_quality:{task.name}",
        "How much memory does the recall take?",
        f"{task.name}: {where}" + (f"; bars: 95 % interval over {task.covered}" if task.covered else ""),
        Axis("state per sequence (log scale)", bytes_text, log=2, column="state_bytes"),
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
    series = lines(task, positions, lambda e, x: task.value(e, length, metric, x), fixed, "up to position")
    return chart(
        f"position:{task.name}",
        "Does more context still help?",
        f"{interval_note(task)}; texts of {tokens(length or 0)}",
        Axis("position in the text (log scale)", tokens, log=2, data_ticks=True, column="position"),
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
        Axis("training step", short, low=0, column="step"),
        Axis(f"training loss (nats{', log scale' if log else ''})", short, log=10 if log else 0, column="loss_nats"),
        series,
        dots=False,
    )


def _per_token(name: str) -> Callable[[dict, float], float | None]:
    return lambda c, n: cost(c, f"{name}_us_per_token", n)


def sections(tasks: list[Task]) -> list[dict]:
    recall, text = [t for t in tasks if not t.lower_is_better], [t for t in tasks if t.lower_is_better]
    costs = [
        *(
            partial(
                against_length,
                name=name,
                title=f"What does {what} a token cost?",
                y=Axis(f"{name}, time per token (log scale)", time_text, log=10, column=f"{name}_us_per_token"),
                pick=_per_token(name),
            )
            for name, what in (("prefill", "reading"), ("decode", "writing"))
        ),
        partial(
            against_length,
            name="state",
            title="How does the state grow with the length?",
            y=Axis("state per sequence (log scale)", bytes_text, log=2, column="state_bytes"),
            pick=state,
        ),
    ]
    plan: list[tuple[str, str, list[tuple[Callable[[Task], dict | None], Task]]]] = [
        ("recall", "Recall", [(make, t) for t in recall for make in (quality_against_length, quality_against_state)]),
        ("text", "Text", [(make, t) for t in text for make in (quality_against_position, quality_against_length)]),
        ("cost", "Cost", [(make, t) for make in costs for t in tasks]),
        ("training", "Training", [(loss_curves, t) for t in tasks]),
    ]
    drawn: list[dict[str, Any]] = [
        {"id": id, "title": title, "charts": [c for make, task in pairs if (c := make(task))]}
        for id, title, pairs in plan
    ]
    taken: set[str] = set()
    for c in (c for s in drawn for c in s["charts"]):
        c["file"] = file_name(c["name"], taken)
    return [s for s in drawn if s["charts"]]


def file_name(name: str, taken: set[str]) -> str:
    """The name of a chart as that of a file without its ending, on any system, and none of `taken`, to which it is added."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:100] or "figure"
    names = chain([plain], (f"{plain}-{number}" for number in count(2)))
    free = next(each for each in names if each.lower() not in taken)
    taken.add(free.lower())
    return free
