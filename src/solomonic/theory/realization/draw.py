"""A picture of a model: fit, whiteness of the residuals, poles, canonical correlations. Needs matplotlib."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..._utils import files, look
from ..._utils.look import FEW, LIGHT
from .identify import Identified
from .linear import fit
from .whiteness import correlations, largest

Array = np.ndarray
INK, GREY, PALE = LIGHT["ink"], LIGHT["pale"], LIGHT["rule"]
SHADES = tuple(LIGHT[name] for name in FEW)
BLUE, ORANGE = SHADES[:2]
MOST = 6  # outputs that are drawn
LONGEST = 20  # letters of a name
AWAY = "runs away"


@rc_context(look.matplotlib())
def draw(
    result: Identified, y: Array, predicted: Array, simulated: Array | None, trained: int, path: Path, name: str = ""
) -> None:
    """Write a PNG of `y`, `predicted` one step ahead and `simulated`, all (T, p); `simulated` is None without inputs.

    The model was fitted to the first `trained` rows; `name` is the name of the data.
    """
    p = min(y.shape[1], MOST)
    figure = Figure(figsize=(11, 1.7 * p + 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(headline(result, name)), fontsize=11)
    grid = figure.add_gridspec(p + 1, 3, height_ratios=[1.0] * p + [2.2])
    test = slice(trained, None) if trained < len(y) else slice(None)
    top = None
    for i in range(p):
        top = axes = figure.add_subplot(grid[i, :], sharex=top)
        draw_rows(axes, y[:, i], predicted[:, i], None if simulated is None else simulated[:, i], test)
        if trained < len(y):
            axes.axvspan(0.5, trained + 0.5, color=PALE, alpha=0.4, linewidth=0)
        axes.set_ylabel(_label(result.model.outputs[i]))
        axes.tick_params(labelbottom=i == p - 1)
    axes.set_xlim(0.5, len(y) + 0.5)
    judged = "shaded: fitted to; fits are of the rest" if trained < len(y) else "all fitted to"
    left_out = f"; {p} of {y.shape[1]} outputs are drawn" * (p < y.shape[1])
    axes.set_xlabel(f"row ({judged}: 100 is perfect, 0 no better than the mean{left_out})")
    _whiteness(figure.add_subplot(grid[p, 0]), result)
    _poles(figure.add_subplot(grid[p, 1]), result)
    _correlations(figure.add_subplot(grid[p, 2]), result)
    with files.replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for a letter that no font has
        figure.savefig(partial, format="png", dpi=110)


def headline(result: Identified, name: str = "") -> str:
    """The title of the picture, two lines."""
    model, white = result.model, result.white
    radius = np.abs(model.poles).max(initial=0)
    kind = "stable" if model.stable else f"unstable (a pole of modulus {radius:.4g}; stable.json has a stable model)"
    first = f"order {model.order}, {kind if model.order else 'no state helps'}"
    first = f"{_short(name, 60)}: {first}" if name else first
    size, lag = largest(result.innovations, white.lags)
    second = (
        f"residuals {'white' if white.passed else 'not white'} ({white.chance} over {white.lags} lags, "
        f"largest correlation {size:.2f} at lag {lag})"
    )
    if (test := result.unexplained) is not None:
        second += f", {'free' if test.passed else 'not free'} of past inputs ({test.chance})"
    return f"{first}\n{second}"


def draw_rows(axes, y: Array, predicted: Array, simulated: Array | None, test: slice) -> None:
    rows, low, high = np.arange(1, len(y) + 1), y.min(), y.max()
    room = 0.25 * (high - low)
    axes.plot(rows, y, color=GREY, linewidth=2.2, label="measured")
    axes.plot(
        rows, predicted, color=BLUE, linewidth=0.8, label=f"one step ahead, {fit_label(y[test], predicted[test])}"
    )
    if simulated is not None:
        start, end, label = test.start or 0, len(y), fit_label(y[test], simulated[test])
        if label == AWAY:
            outside = ~(np.abs(simulated[start:] - (low + high) / 2) < 3 * (high - low))
            end = start + int(outside.argmax())
            label = f"{AWAY} from row {end + 1}"
        axes.plot(rows[start:end], simulated[start:end], color=ORANGE, linewidth=0.8, label=f"simulated, {label}")
    axes.set_ylim(low - room, high + 2 * room)  # room for the legend
    axes.legend(loc="upper right", ncols=3, frameon=True, framealpha=0.8, edgecolor="none")


def fit_label(y: Array, predicted: Array) -> str:
    value = fit(y, predicted)[0]
    return "no fit (nothing moves)" if np.isnan(value) else f"fit {value:.1f}" if value > -1000 else AWAY


def _whiteness(axes, result: Identified) -> None:
    lags = result.white.lags
    r = correlations(result.innovations, lags)[1:]
    p, bound = min(r.shape[1], MOST), 1.96 / np.sqrt(len(result.innovations))
    axes.axhspan(-bound, bound, color=PALE, alpha=0.6, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.6)
    for i in range(p):
        at = np.arange(1, lags + 1) + 0.6 * (i - (p - 1) / 2) / p
        name = _label(result.model.outputs[i])
        axes.vlines(at, 0, r[:, i, i], color=SHADES[i], linewidth=max(1.0, 4 / p), label=name)
    across = r[:, ~np.eye(r.shape[1], dtype=bool)]
    low, high = (max(3 * bound, 1.15 * (sign * r).max()) for sign in (-1, 1))
    if across.size:
        at = np.repeat(np.arange(1, lags + 1), across.shape[1])
        axes.plot(at, across.ravel(), ".", color=GREY, markersize=2.5, label="between two outputs")
        axes.legend(fontsize=7, ncols=2, loc="upper right")
        high += (0.06 + 0.08 * -(-(p + 1) // 2)) * (low + high)  # room for the legend
    axes.set_ylim(-low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    verdict = "white" if result.white.passed else "not white"
    axes.set_title(f"residuals: {verdict} ({result.white.chance})")
    axes.set_xlabel("lag in rows (shaded: 95 % of white noise)")
    axes.set_ylabel("autocorrelation")


def _poles(axes, result: Identified) -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(angle), np.sin(angle), color=INK, linewidth=0.8)
    poles = result.model.poles
    axes.plot(poles.real, poles.imag, "x", color=BLUE, markersize=8, label="model")
    if result.stable is not None:
        axes.plot(*_parts(result.stable.poles), "+", color=ORANGE, markersize=9, label="nearest stable")
        axes.legend(loc="upper left")
    axes.set_aspect("equal")
    reach = max(1.1, 1.05 * np.abs(poles).max(initial=0))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="real part", ylabel="imaginary part")
    outside = int((np.abs(poles) >= 1).sum())
    where = f"{outside} of {len(poles)} outside" if outside else "all inside"
    axes.set_title(f"poles: {where} the unit circle" if len(poles) else "poles: none (order 0)")


def _parts(z: Array) -> tuple[Array, Array]:
    return z.real, z.imag


def _correlations(axes, result: Identified) -> None:
    n, shown = result.model.order, result.correlations[: max(12, result.model.order + 4)]
    at = np.arange(1, len(shown) + 1)
    for part, color, label in ((at <= n, BLUE, f"states of the model ({n})"), (at > n, PALE, "left out")):
        if part.any():
            axes.bar(at[part], shown[part], color=color, label=label)
    axes.set_ylim(0, 1.2)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right", ncols=2)
    axes.set_title(f"past and future share {result.information:.2f} nats")
    axes.set_xlabel("candidate state" + ", inputs given" * bool(result.model.inputs))
    axes.set_ylabel("canonical correlation")


def _label(name: str) -> str:
    """A column's name for an axis or a legend, which would hide a name that begins with _."""
    return _plain(_short(f"column {name}" if name.isdigit() else f" {name}" if name.startswith("_") else name))


def _short(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _plain(text: str) -> str:
    """The text with $ escaped, so that matplotlib reads no formula in it."""
    return text.replace("$", r"\$")


__all__ = ["draw", "headline"]
