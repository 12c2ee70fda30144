"""The pictures of a study, as SVG that takes its colours from the page that it stands in."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .._utils import look
from .._utils.look import FEW, LIGHT

INK, SOFT = LIGHT["ink"], LIGHT["soft"]
COLORS = ("ink", "soft", *FEW)
"""The colours that a picture may have: each becomes the page's variable of that name, in light and in dark."""
MEMORIES = {"window": LIGHT["s0"], "fading": LIGHT["s6"], "eidetic": LIGHT["s2"]}
SHADES = tuple(LIGHT[name] for name in FEW)
MARKERS, MANY = "osD^vP*X", "."
LEAST = 1e-3  # of a change of the state that is still drawn
LOOKS = look.matplotlib() | {"svg.fonttype": "none", "svg.hashsalt": "probe"}


def svg(name: str, spoken: str, draw: Callable[[Axes], None], width: float = 4.7, height: float = 3.1) -> str:
    """What `draw` makes of an axes, in inches, as an SVG element; `name` tells its ids from those of another."""
    with matplotlib.rc_context(LOOKS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = out.getvalue()[out.getvalue().index("<svg") :]
    text = re.sub(r'(id="|url\(#|href="#)', rf"\1{name}-", text)
    for color in COLORS:
        text = text.replace(LIGHT[color], f"var(--{color})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(spoken)}"', 1)


def mass(axes: Axes, entry: dict[str, Any], groups: list[str]) -> None:
    """Attention by head, stacked."""
    heads, shown = entry["heads"], [name for name in groups if name in entry["softmax"]]
    below = [0.0] * len(heads)
    for name in shown:
        shares = [head[groups.index(name)] for head in heads]
        axes.bar(range(len(heads)), shares, bottom=below, color=MEMORIES[name], label=name, width=0.8)
        below = [a + b for a, b in zip(below, shares, strict=True)]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1)
    axes.set_xlabel("head")
    axes.set_ylabel("share of the attention")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def impulse(axes: Axes, entry: dict[str, Any]) -> None:
    """What is left of a change of the state: points measured, lines at the mean decay."""
    lags = entry["impulse"]["lags"]
    for head, decay in enumerate(entry["mean_decay"]):
        left = [max(row[head], LEAST / 10) for row in entry["impulse"]["left"]]
        color, marker = _look(head, len(entry["mean_decay"]))
        axes.plot(lags, left, marker, color=color, markersize=4, linestyle="none", label=f"head {head}")
        axes.plot(lags, [max(decay**lag, LEAST / 10) for lag in lags], color=color, linewidth=1)
    for level, name in ((0.3679, "1/e"), (0.01, "1 %")):
        axes.axhline(level, color=SOFT, linewidth=0.8, linestyle=":")
        axes.annotate(name, (1, level), (-2, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 1.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set_xlabel("tokens later")
    axes.set_ylabel("left of a change of the state")
    _legend(axes, len(entry["mean_decay"]))


def hankel(axes: Axes, entry: dict[str, Any]) -> None:
    """Hankel singular values of each head, as shares of their sum."""
    for head, values in enumerate(entry["hankel"]):
        color, marker = _look(head, len(entry["hankel"]))
        at = range(1, len(values) + 1)
        shares, mark = [max(value, 1e-9) for value in values], marker if marker != MANY else None
        axes.plot(at, shares, color=color, label=f"head {head}", marker=mark, markersize=3, linewidth=1)
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("direction of the state, the largest first")
    axes.set_ylabel("Hankel singular value, share")
    _legend(axes, len(entry["hankel"]))


def explained(axes: Axes, entries: list[dict[str, Any]]) -> None:
    """Variance of the outputs that a system of each order explains, a line a layer."""
    for at, entry in enumerate(entries):
        color, marker = _look(at, len(entries))
        values = list(entry["explained"].values())
        axes.plot(range(len(values)), values, f"{marker}-", color=color, markersize=4, label=f"layer {entry['layer']}")
        axes.set_xticks(range(len(values)), list(entry["explained"]))
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.set_ylim(max(-1, min(0, axes.get_ylim()[0])), 1)
    axes.set_xlabel("states of the linear system")
    axes.set_ylabel("variance explained, share")
    _legend(axes, len(entries))


def correlations(axes: Axes, entries: list[dict[str, Any]]) -> None:
    """Canonical correlations of past inputs and future outputs, a line a layer."""
    for at, entry in enumerate(entries):
        color, _ = _look(at, len(entries))
        values = entry["correlations"]
        axes.plot(range(1, len(values) + 1), values, color=color, linewidth=1.2, label=f"layer {entry['layer']}")
    axes.axhline(0.1, color=SOFT, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1)
    axes.set_xlabel("combination of past inputs")
    axes.set_ylabel("correlation with future outputs")
    _legend(axes, len(entries))


def _look(at: int, count: int) -> tuple[str, str]:
    """A colour and a marker of its own for each of a few; one colour for many."""
    return (SHADES[at], MARKERS[at]) if count <= len(SHADES) else (SHADES[0], MANY)


def _legend(axes: Axes, count: int) -> None:
    if 1 < count <= len(SHADES):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, columnspacing=1, handletextpad=0.4)
