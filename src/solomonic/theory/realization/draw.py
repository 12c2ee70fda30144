"""A picture of a model: fit, whiteness of the residuals, poles, canonical correlations. Needs matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ... import files
from .identify import Identified
from .linear import fit
from .whiteness import correlations

Array = np.ndarray
INK, GREY, BLUE, ORANGE, PALE = "#222222", "#9aa0a6", "#1f6fb4", "#d9730d", "#c9d6e2"
MOST = 6  # outputs that are drawn


def draw(found: Identified, y: Array, predicted: Array, simulated: Array | None, trained: int, path: Path) -> None:
    """`y`, `predicted` one step ahead and `simulated` (all (T, p); the last None without inputs) as a PNG.

    The first `trained` rows are those that the model was fitted to.
    """
    p = min(y.shape[1], MOST)
    figure = Figure(figsize=(11, 1.7 * p + 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(p + 1, 3, height_ratios=[1.0] * p + [2.0])
    rows = np.arange(1, len(y) + 1)
    for i in range(p):
        axes = figure.add_subplot(grid[i, :])
        axes.plot(rows, y[:, i], color=GREY, linewidth=2.2, label="measured")
        test = slice(trained, None) if trained < len(y) else slice(None)
        one = fit(y[test, i], predicted[test, i])[0]
        axes.plot(rows, predicted[:, i], color=BLUE, linewidth=0.8, label=f"one step ahead, fit {one:.1f}")
        if simulated is not None:
            fitted = fit(y[test, i], simulated[test, i])[0]
            label = f"simulated, fit {fitted:.1f}" if fitted > -1000 else "simulated, runs away"
            axes.plot(rows[test], simulated[test, i], color=ORANGE, linewidth=0.8, label=label)
        if trained < len(y):
            axes.axvspan(0, trained, color=PALE, alpha=0.4, linewidth=0)
        low, high = y[:, i].min(), y[:, i].max()
        axes.set_ylim(low - 0.25 * (high - low), high + 0.25 * (high - low))
        axes.set_xlim(0, len(y))
        axes.set_ylabel(found.model.outputs[i])
        axes.legend(loc="upper right", fontsize=7, ncols=3, framealpha=0.8)
    axes.set_xlabel("row (shaded: fitted to)")
    _whiteness(figure.add_subplot(grid[p, 0]), found)
    _poles(figure.add_subplot(grid[p, 1]), found)
    _correlations(figure.add_subplot(grid[p, 2]), found)
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _whiteness(axes, found: Identified) -> None:
    lags = max(2, min(25, len(found.innovations) // 5))
    r = correlations(found.innovations, lags)[1:]
    p, bound = r.shape[1], 1.96 / np.sqrt(len(found.innovations))
    for i in range(p):
        axes.vlines(
            np.arange(1, lags + 1) + 0.6 * (i - (p - 1) / 2) / p, 0, r[:, i, i], color=BLUE, linewidth=max(1.0, 4 / p)
        )
    axes.axhspan(-bound, bound, color=PALE, alpha=0.6, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.6)
    most = max(3 * bound, 1.15 * np.abs(r).max())
    axes.set_ylim(-most, most)
    axes.set_title(f"residuals: autocorrelation (white: p = {found.white.p:.2g})", fontsize=9)
    axes.set_xlabel("lag (shaded: 95 % of white noise)")


def _poles(axes, found: Identified) -> None:
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=INK, linewidth=0.8)
    poles = found.model.poles
    axes.plot(poles.real, poles.imag, "x", color=BLUE, markersize=8, label="model")
    if found.stable is not None:
        axes.plot(*_parts(found.stable.poles), "+", color=ORANGE, markersize=9, label="nearest stable")
        axes.legend(fontsize=7, loc="upper left")
    axes.set_aspect("equal")
    reach = max(1.1, 1.05 * np.abs(poles).max(initial=0))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_title("poles, and the circle of stability", fontsize=9)


def _parts(z: Array) -> tuple[Array, Array]:
    return z.real, z.imag


def _correlations(axes, found: Identified) -> None:
    shown = found.correlations[: max(12, found.model.order + 4)]
    colors = [BLUE if i < found.model.order else PALE for i in range(len(shown))]
    axes.bar(np.arange(1, len(shown) + 1), shown, color=colors)
    axes.set_ylim(0, 1.05)
    axes.set_title(f"canonical correlations of past and future (order {found.model.order})", fontsize=9)
    axes.set_xlabel("state")


__all__ = ["draw"]
