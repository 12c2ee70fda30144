"""The page of a study: what `study` found, said and drawn; one file that works offline, in light and in dark."""

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from . import pictures
from .findings import everywhere, findings, joined, uncertain, where
from .study import LEFT
from .system import STABLE

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f8f6f1; --card: #fffefb; --ink: #1d1b18; --soft: #635e56; --faint: #e5e0d6;
  --window: #0b62b0; --fading: #c77700; --eidetic: #007a5a;
  --s0: #0b62b0; --s1: #c77700; --s2: #007a5a; --s3: #b3589b; --s4: #6f6f6f; --s5: #8b7500; --s6: #3fa2d8; --s7: #c2330a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121315; --card: #1a1c1f; --ink: #ece8e0; --soft: #a8a49b; --faint: #32353a;
    --window: #4d9df0; --fading: #ffb347; --eidetic: #2fb98c;
    --s0: #4d9df0; --s1: #ffb347; --s2: #2fb98c; --s3: #e08fca; --s4: #a9a9a9; --s5: #cdb53a; --s6: #9ad8ff; --s7: #ff7042;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, Arial, sans-serif }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1, h2, h3 { line-height: 1.2; font-weight: 600; overflow-wrap: anywhere }
h2 { margin: 3rem 0 .5rem } h3 { font-size: 1rem; margin: 1.5rem 0 .4rem }
p, ul, dl { max-width: 46rem } .soft, dt, figcaption { color: var(--soft) } .soft { overflow-wrap: anywhere }
.lead { font-size: 1.15rem; padding: 0; list-style: none } .lead li { margin: .5rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0 } dd { margin: 0 }
.scroll { overflow: auto; max-height: 36rem; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--faint) }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; white-space: normal; min-width: 4.5rem }
th:first-child, td:first-child { text-align: left; padding-left: 0 } th.bar { text-align: left }
td.bar { position: relative; min-width: 5rem; width: 24rem }
td.bar i, td.bar b { position: absolute; top: 25%; height: 50%; background: var(--c) }
td.bar b { top: calc(50% - 1px); height: 2px; background: var(--ink); min-width: 2px }
.window { --c: var(--window) } .fading { --c: var(--fading) } .eidetic { --c: var(--eidetic) }
.swatch { display: inline-block; width: .75em; height: .75em; margin-right: .4em; background: var(--c) }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 1rem; margin: 1rem 0 }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--faint); border-radius: 8px; max-width: 36rem }
figcaption { font-size: .9rem; margin-bottom: .3rem } svg { display: block; width: 100%; height: auto }
svg text { font-family: inherit !important }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; background: var(--card); padding: .75rem; margin: .4rem 0;
  border: 1px solid var(--faint); border-radius: 6px }
pre span { color: var(--soft) }
@media (max-width: 600px) { table { font-size: .8rem } th, td { padding: .3rem .35rem } th { min-width: 3.5rem } }
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
        f"<style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
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
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>',
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
    before = f"<pre><span>{escape(decode(results['before']))}</span>"
    texts = [f"<h3>intact, after the text in grey</h3>{before}{escape(decode(intact['text']))}</pre>"]
    for entry, (name, how, *_) in zip(others, rows, strict=True):
        if entry["agrees"] < intact["agrees"]:
            texts.append(f"<h3>{escape(f'{name}, {how}')}</h3><pre>{escape(decode(entry['text']))}</pre>")
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
    return f'<div class="pictures">{"".join(_picture(*one) for one in drawn)}</div>'


def _picture(title: str, note: str, name: str, draw: Callable, *what: Any) -> str:
    spoken = (draw.__doc__ or "").split("\n")[0]
    image = pictures.svg(name, f"{title}. {spoken} {note}".strip(), lambda axes: draw(axes, *what))
    return f"<figure><figcaption>{escape(f'{title}: {note}' if note else title)}</figcaption>{image}</figure>"


def _section(title: str, text: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", f'<p class="soft">{escape(text)}</p>']


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]], note: str = "") -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    lines = line(head, "th") + "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table>{lines}</table></div>' + (f'<p class="soft">{escape(note)}</p>' if note else "")
