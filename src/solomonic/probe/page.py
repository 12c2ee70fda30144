"""The page of a study: what `study` found, drawn; one file that works offline."""

import base64
import io
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .system import STABLE

COLORS = {"window": "#0072b2", "fading": "#e69f00", "eidetic": "#009e73"}
SHADES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#666666", "#f0e442")

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
body { background: #fff; color: #111 } h1, h2 { line-height: 1.2; font-weight: 600 } h2 { margin-top: 2.5rem }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .9rem; display: block; overflow-x: auto }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
pre { white-space: pre-wrap; font-size: .85rem; background: #f4f4f4; padding: .75rem; overflow-wrap: anywhere }
"""


def page(found: dict[str, Any], title: str, notes: Iterable[str], decode: Callable[[list[int]], str]) -> str:
    """HTML of what `study.study` returns; `decode` makes text of tokens."""
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes)]
    if found["ablations"]:
        parts += _section(
            "What each memory is worth",
            "Loss in bits a token with one memory of a layer taken away (the softmax runs over the others), less the "
            f"loss of the whole model, {found['bits_per_token']:.3f}. Bars are two standard errors. The weights were "
            "trained with all memories: this is what the trained model uses, not what one trained without would lose.",
            _png(ablations, found),
        )
        parts += _section(
            "Where the attention goes",
            "The share of the softmax that falls on each memory, mean over the text, by layer and head.",
            _png(mass, found),
        )
        rows = [
            (_where(i), i["how"], i["agrees"], f"{i['divergence']:.4f}", decode(i["text"]))
            for i in found["interventions"]
        ]
        parts += [
            "<h2>What it changes in generation</h2>",
            "<p>The likeliest tokens after the first half of the text, with one memory taken away or held still, that "
            "is, nothing new is written to it. Same tokens: before the first that differs from the intact model's; "
            "divergence: KL from the intact model's next-token distribution, in nats, over its own tokens.</p>",
            _table(("memory", "how", "same tokens", "divergence"), (row[:4] for row in rows)),
            *(f"<p>{escape(f'{where}, {how}')}</p><pre>{escape(text)}</pre>" for where, how, _, _, text in rows[:7]),
        ]
    if found["fading"]:
        parts += _section(
            "How long a fading memory remembers",
            "What is left of a change of the state after so many tokens of this text, by head: points are measured on "
            "two runs of the memory, lines are the decay at its mean along the text. Under the delta rule, and where "
            "the decay depends on the token, they need not agree.",
            _png(impulses, found),
        )
        rows = []
        for entry in found["fading"]:
            for head, decay in enumerate(entry["mean_decay"]):
                horizon = [entry["horizon"][name][head] for name in entry["horizon"]]
                order = entry["order"][head] if entry["order"] else None
                ranks = [entry[f"{name}_rank"] for name in ("controllability", "observability")]
                used = [f"{rank[head]:.1f}" if rank else "-" for rank in ranks]
                shown = [f"{tokens:.0f}" if tokens else "beyond the text" for tokens in horizon]
                told = f"{order:.0f} of {entry['states']}" if order is not None else "-"
                rows.append((f"layer {entry['layer']}, head {head}", f"{decay:.4f}", *shown, *used, told))
        parts.append(
            _table(("", "mean decay", "1/e left", "1 % left", "written", "read", "order"), rows)
            + "<p>Tokens until 1/e and 1 % of what was written is left, medians over the text. Written and read: "
            "directions in use, (sum of eigenvalues)^2 / sum of squares of the controllability and the observability "
            "Gramian. Order: directions that hold 99 % of the Hankel singular values, the written ones that are read "
            "later.</p>"
        )
        if any(entry["hankel"] for entry in found["fading"]):
            parts += _section(
                "Written before, read after", "Hankel singular values of each head, as shares.", _png(hankel, found)
            )
    if found["systems"]:
        parts += _section(
            "As a linear system",
            "How much of the variance of a fading memory's outputs a linear system of so many states explains, from "
            "the inputs alone, on the half of the text that it was not fitted to; and the canonical correlations "
            "between past inputs and future outputs.",
            _png(systems, found),
        )
        rows = [
            (
                f"layer {s['layer']}, {s['memory']}",
                f"{s['states_there']:,}",
                s["correlated"],
                s["effective"],
                *(f"{value:.3f}" for value in s["explained"].values()),
                f"{s['outputs_kept']:.2f}",
            )
            for s in found["systems"]
        ]
        head = (
            "",
            "numbers in the state",
            "correlated",
            "effective order",
            *(f"order {n}" for n in found["systems"][0]["explained"]),
        )
        parts.append(
            _table((*head, "variance kept"), rows)
            + "<p>Correlated: states whose correlation with the future is 0.1 or more on the held-out half, of "
            f"{len(found['systems'][0]['correlations'])} looked at. Effective order: the smallest within 5 % of the "
            "best. Variance kept: what the leading directions of the outputs hold, which is what is explained.</p>"
        )
        pulled = [f"layer {s['layer']}, order {order}" for s in found["systems"] for order in s["pulled_in"]]
        if pulled:
            where = "; ".join(pulled)
            parts.append(f"<p>Not stable as fitted, so that their eigenvalues were shrunk to {STABLE}: {where}.</p>")
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>\n'
    )


def ablations(figure: Figure, found: dict[str, Any]) -> None:
    axes, rows = figure.subplots(), found["ablations"]
    for at, row in enumerate(rows):
        axes.bar(at, row["more_bits"], yerr=2 * row["error"], color=COLORS[row["memory"]], capsize=3)
    names = [f"{'all' if len(row['layers']) > 1 else row['layers'][0]}" for row in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlabel("layer")
    axes.set_ylabel("bits a token more")
    axes.axhline(0, color="#888", linewidth=0.8)
    _legend(axes, [name for name in COLORS if any(row["memory"] == name for row in rows)])


def mass(figure: Figure, found: dict[str, Any]) -> None:
    axes, labels = figure.subplots(), []
    for entry in found["mass"]:
        for head, shares in enumerate(entry["heads"]):
            below = 0.0
            for name, share in zip(found["groups"], shares):
                axes.bar(len(labels), share, bottom=below, color=COLORS[name])
                below += share
            labels.append(f"{entry['layer']}.{head}")
    axes.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 24 else 0)
    axes.set_xlabel("layer.head")
    axes.set_ylabel("attention mass")
    _legend(axes, found["groups"])


def impulses(figure: Figure, found: dict[str, Any]) -> None:
    for axes, entry in _panels(figure, found["fading"]):
        for head, decay in enumerate(entry["mean_decay"]):
            color, lags = SHADES[head % len(SHADES)], entry["impulse"]["lags"]
            axes.plot(lags, [max(row[head], 1e-6) for row in entry["impulse"]["left"]], "o", color=color, markersize=4)
            axes.plot(lags, [max(decay**lag, 1e-6) for lag in lags], color=color, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 1.5)
        for level in (0.3679, 0.01):
            axes.axhline(level, color="#888", linewidth=0.8, linestyle=":")
        axes.set_xlabel("tokens later")
        axes.set_ylabel("left")


def hankel(figure: Figure, found: dict[str, Any]) -> None:
    for axes, entry in _panels(figure, [entry for entry in found["fading"] if entry["hankel"]]):
        for head, values in enumerate(entry["hankel"]):
            axes.plot(
                range(1, len(values) + 1),
                [max(v, 1e-9) for v in values],
                color=SHADES[head % len(SHADES)],
                linewidth=1.2,
            )
        axes.set_yscale("log")
        axes.set_ylim(1e-5, 1)
        axes.set_xlabel("direction")
        axes.set_ylabel("share")


def systems(figure: Figure, found: dict[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    for at, entry in enumerate(found["systems"]):
        color, name = SHADES[at % len(SHADES)], f"layer {entry['layer']}"
        orders = [int(order) for order in entry["explained"]]
        left.plot(range(len(orders)), list(entry["explained"].values()), "o-", color=color, label=name)
        right.plot(range(1, len(entry["correlations"]) + 1), entry["correlations"], color=color, label=name)
    left.set_xticks(range(len(orders)), orders)
    left.set_ylim(min(0, left.get_ylim()[0]), 1)
    left.set_xlabel("order")
    left.set_ylabel("variance explained")
    left.legend(frameon=False)
    right.set_ylim(0, 1)
    right.set_xlabel("direction")
    right.set_ylabel("canonical correlation, held out")


def draw(kind: Callable[[Figure, dict[str, Any]], None], found: dict[str, Any]) -> bytes:
    """PNG of one of the figures above."""
    figure = Figure(figsize=(8, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    kind(figure, found)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _panels(figure: Figure, entries: list[dict[str, Any]]) -> Iterable[tuple[Axes, dict[str, Any]]]:
    """An axes for each entry, four a row, named by layer."""
    rows = -(-len(entries) // 4)
    figure.set_figheight(3.2 * rows)
    grid = figure.subplots(rows, min(len(entries), 4), squeeze=False, sharey=True).flatten()
    for axes in grid[len(entries) :]:
        axes.remove()
    for axes, entry in zip(grid, entries):
        axes.set_title(f"layer {entry['layer']}", fontsize=10)
        yield axes, entry


def _legend(axes: Axes, names: Iterable[str]) -> None:
    for name in names:
        axes.bar(0, 0, color=COLORS[name], label=name)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _where(entry: dict[str, Any]) -> str:
    return "none" if entry["layer"] is None else f"layer {entry['layer']}, {entry['memory']}"


def _png(kind: Callable[[Figure, dict[str, Any]], None], found: dict[str, Any]) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(draw(kind, found)).decode()}">'


def _section(title: str, text: str, picture: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", f"<p>{escape(text)}</p>", picture]


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
