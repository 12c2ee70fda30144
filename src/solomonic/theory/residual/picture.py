"""A picture of a series, what each layer left of it, and what was new."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..._utils.spelling import shortened
from .series import Series
from .stack import Stretch

INK, MARK = "#0072b2", "#d55e00"
FAR = 100  # powers of ten


def draw(
    series: Series,
    names: Sequence[str],
    expected: np.ndarray,
    residuals: np.ndarray,
    surprise: np.ndarray,
    stretches: Sequence[Stretch],
) -> bytes:
    """PNG: the series over what was expected, the residuals of the layers `names` (rows, layers), surprise and stretches.

    Series and residuals are in the unit of the data, which their axis names; surprise is in nats.
    """
    values = series.values
    power = int(np.log10(max(np.abs(values).max(), 1e-300)))
    if abs(power) > FAR:  # matplotlib's ticks overflow
        values, expected, residuals = (each / 10.0**power for each in (values, expected, residuals))
    figure = Figure(figsize=(9, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=(2, 1.4, 1.2))
    row, unit = np.arange(len(surprise)), _short(series.name)
    of_axis = f"{unit}\n/ 1e{power}" if abs(power) > FAR else unit
    many = f"{len(stretches)} stretch{'es' * (len(stretches) != 1)}"
    top.set_title(f"{unit}: {len(row):,} rows, {many} least like what came before (shaded)", fontsize=10, loc="left")
    top.plot(row, expected, color="#bbb", linewidth=0.8, label="expected")
    top.plot(row, values, color=INK, linewidth=0.5, label="measured")
    top.set_ylabel(of_axis)
    for layer, shade in enumerate(np.linspace(0.8, 0, residuals.shape[1])):
        middle.plot(row, residuals[:, layer], color=str(shade), linewidth=0.4, label=f"after {names[layer]}")
    middle.set_ylabel("residual,\nsame unit")
    for axes in (top, middle):
        legend = axes.legend(frameon=False, loc="upper left", ncols=3, fontsize=8)
        for line in legend.get_lines():
            line.set_linewidth(2)
    bottom.plot(row, surprise, color=INK, linewidth=0.6)
    bottom.set_ylabel("surprise, nats")
    for stretch in stretches:
        bottom.plot(stretch.peak, stretch.score, "v", color=MARK, markersize=6)
        for axes in (top, middle, bottom):
            axes.axvspan(stretch.first - 1, stretch.last + 1, color=MARK, alpha=0.25, linewidth=0)
    ticks = np.linspace(0, len(row) - 1, 6).astype(int)
    bottom.set_xticks(ticks, [series.when(at)[:16] if series.times else f"{at:,}" for at in ticks], fontsize=8)
    bottom.set_xlabel("time" if series.times else "row")
    for axes in (top, middle, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _short(name: str) -> str:
    """A name as matplotlib is to show it, no formula in it."""
    return shortened(" ".join(name.split()) or "value").replace("$", r"\$")
