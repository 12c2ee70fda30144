"""A picture of a series, what each layer left of it, and what was new."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .series import Series
from .stack import Stretch

INK, MARK = "#0072b2", "#d55e00"


def draw(
    series: Series, expected: np.ndarray, residuals: np.ndarray, scores: np.ndarray, found: Sequence[Stretch]
) -> bytes:
    """PNG: the series over what was expected, the residuals of all layers (rows, layers), the scores and stretches."""
    figure = Figure(figsize=(9, 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=(2, 1.4, 1.2))
    row = np.arange(len(scores))
    top.plot(row, expected, color="#bbb", linewidth=0.8, label="expected")
    top.plot(row, series.values, color=INK, linewidth=0.5, label=series.name)
    top.legend(frameon=False, loc="upper left", ncols=2)
    for layer, shade in enumerate(np.linspace(0.8, 0, residuals.shape[1])):
        middle.plot(row, residuals[:, layer], color=str(shade), linewidth=0.4)
    middle.set_ylabel("residuals")
    bottom.plot(row, scores, color=INK, linewidth=0.6)
    bottom.set_ylabel("nats")
    for stretch in found:
        bottom.plot(stretch.peak, stretch.score, "v", color=MARK, markersize=6)
        for axes in (top, middle, bottom):
            axes.axvspan(stretch.first - 1, stretch.last + 1, color=MARK, alpha=0.25, linewidth=0)
    ticks = np.linspace(0, len(row) - 1, 6).astype(int)
    bottom.set_xticks(ticks, [series.when(at)[:16] if series.times else f"{at:,}" for at in ticks], fontsize=8)
    for axes in (top, middle, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
