"""A picture of a series, what each layer left of it, and what was new."""

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..._utils import look
from ..._utils.look import LIGHT
from ..._utils.spelling import shortened
from .series import Series
from .stack import Stretch

EXPECTED, MEASURED, MARK = LIGHT["pale"], LIGHT["s0"], LIGHT["s7"]
FAR = 100  # powers of ten
WIDE = 600  # of the picture's width: the least that is shaded on each side of a row


@rc_context(look.matplotlib())
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
    top.set_title(f"{unit}: {len(row):,} rows, {many} least like what came before (shaded by surprise)", loc="left")
    top.plot(row, expected, color=EXPECTED, linewidth=0.8, label="expected")
    top.plot(row, values, color=MEASURED, linewidth=0.5, label="measured")
    top.set_ylabel(of_axis)
    for layer, shade in enumerate(np.linspace(0.8, 0, residuals.shape[1])):
        middle.plot(row, residuals[:, layer], color=str(shade), linewidth=0.4, label=f"after {names[layer]}")
    middle.set_ylabel("residual,\nsame unit")
    for axes in (top, middle):
        legend = axes.legend(loc="upper left", ncols=3)
        for line in legend.get_lines():
            line.set_linewidth(2)
    bottom.plot(row, surprise, color=MEASURED, linewidth=0.6)
    bottom.set_ylabel("surprise, nats")
    for stretch in stretches:
        bottom.plot(stretch.peak, stretch.score, "v", color=MARK, markersize=6)
    for first, last, strength in shades(stretches, surprise):
        for axes in (top, middle, bottom):
            axes.axvspan(first - 0.5, last + 0.5, color=MARK, alpha=0.5 * strength, linewidth=0)
    ticks = np.linspace(0, len(row) - 1, 6).astype(int)
    bottom.set_xticks(ticks, [series.when(at)[:16] if series.times else f"{at:,}" for at in ticks])
    bottom.set_xlabel("time" if series.times else "row")
    for axes in (top, middle, bottom):
        axes.margins(x=0)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def shades(stretches: Sequence[Stretch], surprise: np.ndarray) -> list[tuple[int, int, float]]:
    """(first row, last row, strength) of what is shaded, no row twice: the rows of stretches by the square of their nats.

    Strength is 1 for the highest of all scores, in tenths, and 0 is left out. A shade is wide enough to be seen; where two
    meet, the stronger one stays.
    """
    rows, highest = len(surprise), max((stretch.score for stretch in stretches), default=0.0)
    strength, wider = np.zeros(rows), max(1, rows // WIDE)
    for stretch in stretches:
        for row in range(stretch.first, stretch.last + 1):
            part = strength[max(row - wider, 0) : row + wider + 1]
            np.maximum(part, np.round((surprise[row] / highest) ** 2, 1), out=part)
    edges = [0, *(np.flatnonzero(np.diff(strength)) + 1).tolist(), rows]
    return [(a, b - 1, float(strength[a])) for a, b in pairwise(edges) if strength[a] > 0]


def _short(name: str) -> str:
    """A name as matplotlib is to show it, no formula in it."""
    return shortened(" ".join(name.split()) or "value").replace("$", r"\$")
