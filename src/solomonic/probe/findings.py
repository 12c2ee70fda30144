"""What a study found, in sentences: each memory's worth with its uncertainty, and how long and how much it holds."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .study import BLOCK, LEFT

KINDS = ("fading", "eidetic", "window")
"""In the order in which they are named: what a model has them for first."""


def findings(results: dict[str, Any]) -> list[str]:
    """Sentences about what `study.study` returns, the worth of the memories first."""
    return [*_worths(results), *_fading(results), *_generation(results)]


def uncertain(value: float, error: float) -> str:
    """A number and two standard errors, to two digits of the latter: 0.270 ± 0.021."""
    spread = 2 * error
    digits = 3 if spread <= 0 else min(max(3, 1 - math.floor(math.log10(spread))), 6)
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


def everywhere(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The ablation of each memory in all layers that have it, in the order of KINDS."""
    rows = [
        max((row for row in results["ablations"] if row["memory"] == kind), key=_layers, default=None) for kind in KINDS
    ]
    return [row for row in rows if row is not None]


def attention(results: dict[str, Any], kind: str) -> float | None:
    """The share of the softmax that falls on a memory, mean over the layers whose softmax has it and others; else None."""
    at = results["groups"].index(kind)
    shares = [entry["mean"][at] for entry in results["mass"] if kind in entry["softmax"] and len(entry["softmax"]) > 1]
    return sum(shares) / len(shares) if shares else None


def where(row: dict[str, Any], results: dict[str, Any]) -> str:
    """The layers of an ablation: all those that have the memory, or one."""
    layers = row["layers"]
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if len(layers) < len(results["layers"]):
        return f"layers {joined(layers)}"
    return "both layers" if len(layers) == 2 else f"all {len(layers)} layers"


def _worths(results: dict[str, Any]) -> list[str]:
    rows, kinds = everywhere(results), sorted({entry["memory"] for entry in results["systems"]})
    sentences = [_worth(row, results) for row in rows]
    if not rows and kinds:
        sentences.append(
            f"What its {joined(kinds)} is worth in bits is not measured: such a layer has nothing beside it."
        )
    elif not rows:
        sentences.append("No layer has a memory that could be taken away.")
    guess = f"a guess among its {results['vocabulary']:,} tokens takes {math.log2(results['vocabulary']):.3f}"
    sentences.append(f"The loss of the whole model is {results['bits_per_token']:.3f} bits a token; {guess}.")
    return sentences + [f"± is two standard errors, over blocks of {BLOCK} tokens."] * bool(rows)


def _worth(row: dict[str, Any], results: dict[str, Any]) -> str:
    value, error, kind = row["more_bits"], row["error"], row["memory"]
    memory, number = f"The {_name(kind)} ({where(row, results)})", f"{uncertain(value, error)} bits a token"
    if abs(value) <= 2 * error or value == 0:
        share = attention(results, kind)
        though = f", though {percent(share)} of the attention falls on it" if share and share >= 0.005 else ""
        return f"{memory} is worth nothing on this text: without it the loss changes by {number}{though}."
    if value < 0:
        return f"{memory} does harm on this text: without it the loss changes by {number}."
    return f"{memory} is worth {number}: without it the loss is {results['bits_per_token'] + value:.3f}."


def _fading(results: dict[str, Any]) -> list[str]:
    sentences = []
    if results["fading"]:
        left = [
            f"{name} is left after {_span([tokens for entry in results['fading'] for tokens in entry['horizon'][name]])}"
            for name in LEFT
        ]
        sentences.append(
            f"Of what a token writes into a fading memory, {joined(left)}: by head, the median over the text."
        )
    if unknown := {entry["memory"] for entry in results["systems"]} - {entry["memory"] for entry in results["fading"]}:
        sentences.append(f"How long {joined(sorted(unknown))} remembers is not measured: its decays are not read yet.")
    orders = [(int(order), entry["states"]) for entry in results["fading"] for order in entry["order"] or ()]
    if orders:
        used, available = zip(*orders)
        sentences.append(f"A head writes and later reads {_range(used)} of its {_range(available)} states.")
    if results["systems"]:
        best = [100 * max(0.0, *system["explained"].values()) for system in results["systems"]]
        low, high = f"{min(best):.0f}", f"{max(best):.0f}"
        shares = f"{low} %" if low == high else f"{low} to {high} %"
        states = _range([system["effective"] for system in results["systems"]])
        enough = "1 state is" if states == "1" else f"{states} states are"
        sentences.append(
            f"A linear system explains {shares} of the variance of what a fading memory puts out; {enough} enough for it."
        )
    return sentences


def _generation(results: dict[str, Any]) -> list[str]:
    taken = [entry for entry in results["interventions"] if entry["how"] == "without"]
    if not taken:
        return []
    length, same, changed = results["interventions"][0]["agrees"], [], []
    for kind in KINDS:
        first = min(
            (entry for entry in taken if entry["memory"] == kind), key=lambda entry: entry["agrees"], default=None
        )
        if first is not None and first["agrees"] == length:
            same.append(f"the {_name(kind)}")
        elif first is not None:
            changed.append(f"from token {first['agrees'] + 1} without the {_name(kind)} of layer {first['layer']}")
    parts = [f"none changes without {joined(same, 'or')} of any one layer"] if same else []
    parts += [f"they change {joined(changed)}"] if changed else []
    return [f"Of {length:,} token{'s' * (length != 1)} generated after half of the text, {'; '.join(parts)}."]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 or not share else f"{100 * share:.2g} %"


def joined(words: Sequence[Any], last: str = "and") -> str:
    words = [str(word) for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _layers(row: dict[str, Any]) -> int:
    return len(row["layers"])


def _name(kind: str) -> str:
    return kind if kind == "window" else f"{kind} memory"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _span(tokens: list[float | None]) -> str:
    """From the fewest tokens to the most; None is beyond the text."""
    reached = [t for t in tokens if t is not None]
    if not reached:
        return "more tokens than the text has"
    low, high = f"{min(reached):,.0f}", f"{max(reached):,.0f}"
    if len(reached) < len(tokens):
        return f"{low} tokens to beyond the text"
    return f"{low} tokens" if low == high else f"{low} to {high} tokens"
