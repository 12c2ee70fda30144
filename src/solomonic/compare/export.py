"""Results of one or several comparisons for other programs: as CSV, as a table in Markdown, as one in LaTeX.

As on the page, an architecture is shown at its best learning rate, and what is measured is the mean over its seeds, with its
95 % interval. A star is at the best and at those not distinguishable from it.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from .charts import bytes_text, short, tokens
from .results import Entry, Task, choose, edges, load, number, score, state
from .statistics import Interval
from .tables import parameters

FIELDS = (
    "task",
    "arch",
    "parameters",
    "lr",
    "seeds",
    "metric",
    "length",
    "position",
    "mean",
    "standard_deviation",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "state_bytes",
)
SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}


def joined(folders: Sequence[Path]) -> tuple[list[Task], list[str]]:
    """The tasks of all `folders` as of one comparison, and notes on lines that could not be read and on grids of rates.

    A cell that two folders have counts as in the last one. FileNotFoundError for a folder without results; ValueError
    where folders have a task with other settings or data, or an architecture in another configuration.
    """
    cells, notes = [], []
    settings: dict[str, tuple[str, Path]] = {}
    configs: dict[tuple[str, str], tuple[str, Path]] = {}

    def same(known: dict, key: object, what: object, folder: Path, name: str) -> None:
        text = json.dumps(what, sort_keys=True)
        before, where = known.setdefault(key, (text, folder))
        if before != text:
            raise ValueError(
                f"{folder}: expected {name} as in {where}, got other settings, data or version; print the two apart, or join "
                "runs of one configuration"
            )

    for folder in folders:
        found, run, said = load(folder)
        notes += [f"{folder}: {note}" for note in said]
        about = run.get("settings")
        runs, digests = ((about.get(key) or {}) if isinstance(about, dict) else {} for key in ("runs", "tasks"))
        for cell in found:
            name, arch = cell["task"], cell["arch"]
            version = cell.get("version", 1)
            same(settings, name, [runs.get(name), digests.get(name), version], folder, f"the task {name}")
            same(configs, (name, arch), cell.get("config"), folder, f"{arch} on {name}")
        cells += found
    tasks = choose(cells)
    return tasks, notes + edges(tasks)


def rows(tasks: Iterable[Task]) -> list[dict[str, object]]:
    """A row with `FIELDS` for each score.

    `standard_deviation` is that of the sample of seeds, None for one seed; `low` to `high` the 95 % interval of the mean,
    `difference` that from the best, of a length's score, with its own: None where they are not known.
    """
    made = []
    for task in tasks:
        for entry in task.entries:
            named = [(s.get("metric"), s.get("length"), s.get("position")) for c in entry.cells for s in c["scores"]]
            for metric, length, position in dict.fromkeys(named):
                values = _values(entry, metric, length, position)
                if not values:
                    continue
                size, held = parameters(entry), entry.stat(state, length)
                spread = stdev(values) if len(values) > 1 else None
                about = (task.name, entry.arch, size and int(size.mean), entry.cells[0].get("lr"), len(values), metric)
                known = entry.interval(metric, length, position)
                against = task.compared(entry, length) if metric == task.metric and position is None else None
                difference = against.difference if against else None
                figures = (length, position, mean(values), spread, *_ends(known)[1:], *_ends(difference))
                made.append(dict(zip(FIELDS, (*about, *figures, held and int(held.mean)), strict=True)))
    return made


def as_csv(tasks: Iterable[Task]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(tasks))
    return text.getvalue()


def tables(tasks: Iterable[Task]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, lines) of each task: an architecture a line, its score at every length as mean ± half of the interval."""
    made = []
    for task in tasks:
        lengths = task.lengths()
        head = ["architecture", "parameters", "seeds", *(f"at {tokens(n)}" for n in lengths)]
        longest = max(lengths, default=math.inf)
        lines = []
        for entry in task.entries:
            size, held = parameters(entry), entry.stat(state, longest)
            scores = [_score(task, entry, n) for n in lengths]
            line = [entry.arch, short(size.mean) if size else "", str(len(entry.cells)), *scores]
            lines.append([*line, bytes_text(held.mean) if held else ""])
        title = f"{task.name}: {task.unit}, {'lower' if task.lower_is_better else 'higher'} is better"
        if task.covered:
            title += (
                f"; ± half of the 95 % interval over {task.covered}; * the best, and those not distinguishable from it"
            )
        made.append((title, [*head, f"state at {tokens(longest)}" if lengths else "state"], lines))
    return made


def as_markdown(tasks: Iterable[Task]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"

    parts = []
    for title, head, lines in tables(tasks):
        body = "".join(line([f"`{first}`", *rest]) for first, *rest in lines)
        parts.append(f"{title}\n\n{line(head)}|{'---|' * len(head)}\n{body}")
    return "\n".join(parts)


def as_latex(tasks: Iterable[Task]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"{' & '.join(map(_latex, cells))} \\\\\n"

    parts = []
    for title, head, lines in tables(tasks):
        body = "".join(map(line, lines))
        columns = "l" + "r" * (len(head) - 1)
        parts.append(
            f"% {title}\n\\begin{{tabular}}{{{columns}}}\n\\hline\n{line(head)}\\hline\n{body}\\hline\n\\end{{tabular}}\n"
        )
    return "\n".join(parts)


def _values(entry: Entry, metric: str, length: float | None, position: float | None = None) -> list[float]:
    values = (number(score(cell, metric, length, position=position)) for cell in entry.cells)
    return [value for value in values if value is not None]


def _score(task: Task, entry: Entry, length: float) -> str:
    values = _values(entry, task.metric, length)
    if not values:
        return ""
    known, against = entry.interval(task.metric, length), task.compared(entry, length)
    star = " *" if task.covered and against and against.within else ""
    return f"{mean(values):.3f}" + (f" ± {known.half:.3f}" if known else "") + star


def _ends(known: Interval | None) -> tuple[float | None, ...]:
    return (known.estimate, known.low, known.high) if known else (None,) * 3


def _latex(text: str) -> str:
    return re.sub(r"[&%$#_{}\\~±]", lambda found: SPECIAL[found[0]], text.replace("\N{NO-BREAK SPACE}", " "))


__all__ = ["FIELDS", "as_csv", "as_latex", "as_markdown", "joined", "rows", "tables"]
