"""The page of a study: what `study` found, said and drawn; one file that works offline, in light and in dark."""

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from .._utils import look
from . import pictures
from .findings import everywhere, findings, joined, uncertain, where
from .study import LEFT
from .system import STABLE

STYLE = """
h2 { margin-top: 52px; }
p, ul, dl { max-width: 46rem; }
.soft, dt { color: var(--soft); overflow-wrap: anywhere; }
.lead { padding: 0; list-style: none; }
.lead li { margin: .5rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dd { margin: 0; }
.scroll { margin: 1rem 0; width: fit-content; max-width: 100%; }
table { width: auto; }
th { white-space: normal; min-width: 4.5rem; }
td { border-bottom: 1px solid var(--faint); }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child, th.bar { text-align: left; }
td.bar { position: relative; min-width: 5rem; width: 24rem; }
td.bar i, td.bar b { position: absolute; top: 25%; height: 50%; background: var(--c); }
td.bar b { top: calc(50% - 1px); height: 2px; background: var(--ink); min-width: 2px; }
.window { --c: var(--s0); } .fading { --c: var(--s6); } .eidetic { --c: var(--s2); }
.swatch { display: inline-block; width: .75em; height: .75em; margin-right: .4em; background: var(--c); }
.chart svg text { font-family: inherit !important; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
pre span { color: var(--soft); }
@media (max-width: 600px) { table { font-size: .8rem; } th { min-width: 3.5rem; } }
"""


def page(results: dict[str, Any], title: str, notes: Iterable[str], decode: Callable[[list[int]], str]) -> str:
    """HTML of what `study.study` returns; `decode` makes text of tokens."""
    sentences = "".join(f"<li>{_unbroken(sentence)}</li>" for sentence in findings(results))
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="soft">{escape(note)}</p>' for note in notes)]
    parts += [f'<ul class="lead">{sentences}</ul>', _glossary(results)]
    if results["ablations"]:
        parts += [*_worth(results), *_attention(results), *_generation(results, decode)]
    if results["fading"]:
        parts += _fading(results)
    if results["systems"]:
        parts += _systems(results)
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<style>{look.css()}{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def _glossary(results: dict[str, Any]) -> str:
    """What each memory is, and how large."""
    kinds = {row["memory"] for row in results["ablations"]}
    about = []
    for kind, size, text in (
        ("window", "window", "the last {} tokens, verbatim"),
        ("eidetic", "capacity", "up to {} tokens from before the window, verbatim"),
    ):
        sizes = sorted({layer[size] for layer in results["sizes"] if layer[size]})
        if kind in kinds and sizes:
            about.append((kind, text.format(joined([f"{n:,}" for n in sizes], "or"))))
    numbers = {f"{s['states_there']:,} numbers a layer ({s['memory']}) that decay" for s in results["systems"]}
    if numbers:
        about.append(("fading", f"{joined(sorted(numbers))}, made of all tokens so far"))
    terms = "".join(f'<dt><i class="swatch {kind}"></i>{kind}</dt><dd>{escape(text)}</dd>' for kind, text in about)
    return f"<dl>{terms}</dl>" if terms else ""


def _worth(results: dict[str, Any]) -> list[str]:
    all_layers = everywhere(results)
    rows = [*all_layers, *(row for row in results["ablations"] if row not in all_layers)]
    ends = [row["more_bits"] + sign * 2 * row["error"] for row in rows for sign in (-1, 0, 1)]
    low, high = min(0.0, *ends), max(1e-9, *ends)

    def across(first: float, last: float) -> str:
        return f"left:{100 * (first - low) / (high - low):.2f}%;width:{100 * (last - first) / (high - low):.2f}%"

    head, lines = '<th>without</th><th>bits a token more</th><th class="bar"></th>', []
    for row in rows:
        value, spread = row["more_bits"], 2 * row["error"]
        bars = f'<i style="{across(min(0, value), max(0, value))}"></i><b style="{across(value - spread, value + spread)}"></b>'
        name = f'<i class="swatch {row["memory"]}"></i>{row["memory"]}, {where(row, results)}'
        number = _unbroken(uncertain(value, row["error"]))
        lines.append(f'<tr><td>{name}</td><td>{number}</td><td class="bar {row["memory"]}">{bars}</td></tr>')
    return [
        *_section(
            "What each memory is worth",
            "Bits a token that the loss rises by when one memory is taken away (a softmax runs over the others; a fading "
            "memory that is read directly adds nothing). ± and the thin lines are two standard errors. The weights were "
            "trained with all memories: this is what the trained model uses, not what one trained without would lose.",
        ),
        _framed(f"<tr>{head}</tr>", "".join(lines)),
    ]


def _attention(results: dict[str, Any]) -> list[str]:
    entries = [entry for entry in results["mass"] if len(entry["softmax"]) > 1]
    if not entries:
        return []
    beside = [
        entry["layer"]
        for entry in entries
        if "fading" not in entry["softmax"] and _has(results, entry["layer"], "fading")
    ]
    of = where({"layers": beside}, results) if beside else ""
    direct = f"The fading memory of {of} is read beside the softmax and has no share. " if beside else ""
    return [
        *_section(
            "Where the attention goes",
            "The share of a layer's softmax that falls on each memory, the mean over the text, by head. "
            f"{direct}A share is not a worth: compare the section above.",
        ),
        _pictures(
            (
                f"layer {entry['layer']}",
                _shares(entry, results),
                f"mass{entry['layer']}",
                pictures.mass,
                entry,
                results["groups"],
            )
            for entry in entries
        ),
    ]


def _generation(results: dict[str, Any], decode: Callable[[list[int]], str]) -> list[str]:
    intact, *others = results["interventions"]
    rows: list[tuple[str, str, str, str]] = [
        (
            f"{entry['memory']}, layer {entry['layer']}",
            {"without": "taken away", "held": "held still"}[entry["how"]],
            "all" if entry["agrees"] == intact["agrees"] else f"{entry['agrees']:,}",
            f"{entry['divergence']:.4f}",
        )
        for entry in others
    ]
    before = f'<pre class="card"><span>{escape(decode(results["before"]))}</span>'
    texts = [f"<h3>intact, after the text in grey</h3>{before}{escape(decode(intact['text']))}</pre>"]
    for entry, (name, how, *_) in zip(others, rows, strict=True):
        if entry["agrees"] < intact["agrees"]:
            said = escape(decode(entry["text"]))
            texts.append(f'<h3>{escape(f"{name}, {how}")}</h3><pre class="card">{said}</pre>')
    return [
        *_section(
            "What it changes in generation",
            f"The {intact['agrees']:,} likeliest tokens after the first half of the text, with one memory taken away or "
            "held still, that is, nothing new is written to it. Same tokens: before the first that differs from the "
            "intact model's. Divergence: KL from the intact model's next-token distribution in nats, the mean over its own "
            "tokens. The texts of those that differ follow.",
        ),
        _table(("memory", "how", f"same tokens of {intact['agrees']:,}", "divergence, nats"), rows),
        *texts,
    ]


def _fading(results: dict[str, Any]) -> list[str]:
    rows = []
    for entry in results["fading"]:
        for head, decay in enumerate(entry["mean_decay"]):
            horizon = [entry["horizon"][name][head] for name in LEFT]
            ranks = [entry[f"{name}_rank"] for name in ("controllability", "observability")]
            order = f"{entry['order'][head]:.0f} of {entry['states']}" if entry["order"] else "-"
            rows.append(
                (
                    f"layer {entry['layer']}, head {head}",
                    f"{decay:.4f}",
                    *(f"{tokens:,.0f}" if tokens is not None else "beyond the text" for tokens in horizon),
                    *(f"{rank[head]:.1f}" if rank else "-" for rank in ranks),
                    order,
                )
            )
    unknown = sorted({entry["memory"] for entry in results["fading"] if not entry["order"]})
    columns = ("", "mean decay a token", *(f"tokens until {name} is left" for name in LEFT))
    parts = [
        *_section(
            "How long a fading memory remembers",
            "What is left of a change of the state after so many tokens of this text, by head: points are measured on "
            "two runs of the memory, lines are the decay at its mean along the text. Under the delta rule, and where "
            "the decay depends on the token, they need not agree. Less than 0.1 % is not drawn.",
        ),
        _pictures(
            (
                f"layer {entry['layer']}, {entry['memory']}",
                _many(entry),
                f"impulse{entry['layer']}",
                pictures.impulse,
                entry,
            )
            for entry in results["fading"]
        ),
        _table(
            (*columns, "directions written", "directions read", "order"),
            rows,
            "Tokens until 1/e and 1 % of what was written is left are medians over the text. Directions written and read: "
            "(sum of eigenvalues)² / sum of squares of the controllability and the observability Gramian. Order: "
            "directions that hold 99 % of the Hankel singular values, the written ones that are read later."
            + (f" -: not known of {joined(unknown)}, whose solver changes what reads the state." if unknown else ""),
        ),
    ]
    if entries := [entry for entry in results["fading"] if entry["hankel"]]:
        parts += [
            *_section(
                "Written before, read after",
                "Hankel singular values of each head, as shares of their sum: how much of each direction of the state is "
                "both written before a token and read after it. A line that falls fast is a head with few states in use.",
            ),
            _pictures(
                (
                    f"layer {entry['layer']}, {entry['memory']}",
                    _many(entry),
                    f"hankel{entry['layer']}",
                    pictures.hankel,
                    entry,
                )
                for entry in entries
            ),
        ]
    return parts


def _systems(results: dict[str, Any]) -> list[str]:
    entries = results["systems"]
    orders = list(dict.fromkeys(order for entry in entries for order in entry["explained"]))
    rows = [
        (
            f"layer {s['layer']}, {s['memory']}",
            f"{s['states_there']:,}",
            s["correlated"],
            s["effective"],
            *(f"{s['explained'][n]:.3f}" if n in s["explained"] else "-" for n in orders),
            f"{s['outputs_kept']:.2f}",
        )
        for s in entries
    ]
    head = ("", "numbers in the state", "correlated", "effective order", *(f"{n} states" for n in orders))
    parts = [
        *_section(
            "As a linear system",
            "How much of the variance of a fading memory's outputs a linear system of so many states explains, from "
            "the inputs alone, on the half of the text that it was not fitted to; and, on that half, the canonical "
            "correlations between past inputs and future outputs (dotted: 0.1).",
        ),
        _pictures(
            [
                ("variance explained, by layer", "", "explained", pictures.explained, entries),
                ("canonical correlations, by layer", "", "correlations", pictures.correlations, entries),
            ]
        ),
        _table(
            (*head, "variance kept"),
            rows,
            "Correlated: states whose correlation with the future is 0.1 or more on the held-out half, of "
            f"{len(entries[0]['correlations'])} looked at. Effective order: the smallest within 5 % of the best. A column "
            "of so many states: the share explained. Variance kept: what the leading directions of the outputs hold, which "
            "is what is explained.",
        ),
    ]
    if pulled := [f"layer {s['layer']}, {order} states" for s in entries for order in s["pulled_in"]]:
        parts.append(
            f'<p class="soft">Not stable as fitted, so that eigenvalues were shrunk to {STABLE}: {"; ".join(pulled)}.</p>'
        )
    return parts


def _unbroken(text: str) -> str:
    """As HTML, with no line break within a number and its unit."""
    return escape(text).replace(" ± ", "&nbsp;±&nbsp;").replace(" %", "&nbsp;%")


def _has(results: dict[str, Any], layer: int, kind: str) -> bool:
    return any(row["layers"] == [layer] and row["memory"] == kind for row in results["ablations"])


def _shares(entry: dict[str, Any], results: dict[str, Any]) -> str:
    shares = dict(zip(results["groups"], entry["mean"], strict=True))
    return ", ".join(f"{name} {shares[name]:.3f}" for name in entry["softmax"])


def _many(entry: dict[str, Any]) -> str:
    heads = len(entry["mean_decay"])
    return f"{heads} heads, by name in the table" if heads > len(pictures.SHADES) else ""


def _pictures(drawn: Iterable[tuple]) -> str:
    """(title, what it says, name, a function of `pictures`, what it draws) each."""
    return f'<div class="charts">{"".join(_picture(*one) for one in drawn)}</div>'


def _picture(title: str, note: str, name: str, draw: Callable, *what: Any) -> str:
    spoken = (draw.__doc__ or "").split("\n")[0]
    image = pictures.svg(name, f"{title}. {spoken} {note}".strip(), lambda axes: draw(axes, *what))
    caption = f"<strong>{escape(title)}</strong>" + (f"<span>{escape(note)}</span>" if note else "")
    return f'<figure class="card chart"><figcaption>{caption}</figcaption>{image}</figure>'


def _section(title: str, text: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", f'<p class="intro">{escape(text)}</p>']


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]], note: str = "") -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    lines = "".join(line(row, "td") for row in rows)
    return _framed(line(head, "th"), lines) + (f'<p class="soft">{escape(note)}</p>' if note else "")


def _framed(head: str, lines: str) -> str:
    table = f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"
    return f'<div class="card scroll tall" tabindex="0">{table}</div>'
