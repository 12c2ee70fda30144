"""Layers of a residual stack: each predicts the next row of what it is fed, and passes on what it failed to predict.

Laws, tested on every layer. With prediction, state = layer.run(x, state), x (rows,), state None before the first row:

- Causality: the prediction of a row depends on the rows before it alone.
- Chunk: any split of x into calls that pass the state on gives the same predictions and state.
- Unit: c x gives c times the predictions of x, bit for bit where c is a power of two.

Memories forget by a span: after `span` rows a row counts 1/e of a new one. Until then all rows count alike, so that a
memory is of use from its first rows on. What surprises by more than CLIP mean absolute errors moves a memory no further
than that: an outlier is for the score to see, not for the memory to learn.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CLIP = 4.0
MOST = 1e6  # of the linear layer's uncertainty, in squared weights
WIDER, NONE = 200, -10_000  # powers of two; NONE is that of 0
OUTLIERS = 10
State = dict[str, Any]


def measured(
    step: Callable[[np.ndarray, State | None], tuple[np.ndarray, State]], x: np.ndarray, state: State | None
) -> tuple[list[tuple[np.ndarray, np.ndarray]], State]:
    """`step` on x (rows, ...) divided by 2^e near its size, for each column: (output, e) of each part, and the state.

    The first number that is not 0 sets e. Numbers above 2^WIDER units are outliers, and are clipped to that; after OUTLIERS
    of them the rows before count as another series, and `step` begins anew.
    """
    x = np.asarray(x, float)
    inner = state
    if state:
        unit, beyond = state["unit"], state["beyond"]
    else:
        unit, beyond = np.full(x.shape[1:], NONE), np.zeros(x.shape[1:], int)
    size = np.where(x == 0, NONE, np.frexp(x)[1])
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    start = 0
    while start < len(x) or not parts:
        far = size[start:] > unit + WIDER
        count = beyond + far.cumsum(0)
        anew = far & ((unit == NONE) | (count > OUTLIERS))
        rows = np.flatnonzero(anew.any(tuple(range(1, anew.ndim))))
        if len(rows) and rows[0] == 0:
            inner = None if (anew[0] & (unit != NONE)).any() else inner
            unit, beyond = np.where(anew[0], size[start], unit), np.where(anew[0], 0, beyond)
            continue
        stop = start + int(rows[0]) if len(rows) else len(x)
        with np.errstate(over="ignore"):
            scaled = np.ldexp(x[start:stop], -unit)
        part, inner = step(np.clip(scaled, -(2.0**WIDER), 2.0**WIDER), inner)
        parts.append((part, unit))
        beyond = count[stop - start - 1] if stop > start else beyond
        start = stop
    assert inner is not None
    return parts, inner | {"unit": unit, "beyond": beyond}


class Layer(ABC):
    def run(self, x: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """x (rows,) and the state before it -> predictions (rows,), each from the rows before, and the state after."""
        parts, state = measured(self.step, x, state)
        return np.concatenate([np.ldexp(part, by) for part, by in parts]), state

    @abstractmethod
    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        """`run` for x in a unit near its size."""

    @property
    def blind(self) -> int:
        """Rows before the layer's first prediction."""
        return 0


@dataclass(frozen=True)
class Level(Layer):
    """A fading mean: one state, exponential smoothing."""

    span: int

    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        rows, level, size = (state[name] for name in ("rows", "level", "size")) if state else (0, 0.0, 0.0)
        prediction = np.empty(len(x))
        for t, value in enumerate(x.tolist()):
            prediction[t] = level
            gain = max(1 / (rows + 1), 1 / self.span)
            surprise, size = _clipped(value - level, size, gain, rows)
            level += gain * surprise
            rows += 1
        return prediction, {"rows": rows, "level": level, "size": size}


@dataclass(frozen=True)
class Width(Layer):
    """The mean absolute value of the rows up to this one, outliers clipped: a scale, and no prediction."""

    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        rows, size = (state["rows"], state["size"]) if state else (0, 0.0)
        sizes = np.empty(len(x))
        for t, value in enumerate(x.tolist()):
            sizes[t] = size = _clipped(value, size, 0.0, rows)[1]
            rows += 1
        return sizes, {"rows": rows, "size": size}


@dataclass(frozen=True)
class Seasonal(Layer):
    """A fading mean, over `span` periods, of the rows at the same phase: one state a phase.

    A period is a ring, a shift whose eigenvalues are the roots of one: without the mean it is verbatim memory.
    """

    period: int
    span: int = 5

    @property
    def blind(self) -> int:
        return self.period

    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        rows, size = (state["rows"], state["size"]) if state else (0, 0.0)
        ring = state["ring"].copy() if state else np.zeros(self.period)
        prediction = np.empty(len(x))
        for t, value in enumerate(x.tolist()):
            phase, periods = rows % self.period, rows // self.period
            prediction[t] = ring[phase]
            surprise, size = _clipped(value - ring[phase], size, 1 / (self.span * self.period), rows)
            ring[phase] += max(1 / (periods + 1), 1 / self.span) * surprise
            rows += 1
        return prediction, {"rows": rows, "ring": ring, "size": size}


@dataclass(frozen=True)
class Linear(Layer):
    """A linear system of `order` states: autoregression, by recursive least squares that forget over `span` rows.

    The innovation that it passes on is white as far as `order` lags can make it.
    """

    order: int = 6
    span: int = 1000
    ridge: float = 1.0  # of the first rows, in squared mean absolute errors

    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        rows, size = (state["rows"], state["size"]) if state else (0, 0.0)
        past = state["past"].copy() if state else np.zeros(self.order)
        weights = state["weights"].copy() if state else np.zeros(self.order)
        inverse = state["inverse"] if state else np.zeros((self.order, self.order))
        known = bool(inverse.any())
        keep = 1 - 1 / self.span
        prediction = np.empty(len(x))
        for t, value in enumerate(x.tolist()):
            guess = float(weights @ past)
            prediction[t] = guess
            surprise, size = _clipped(value - guess, size, max(1 / (rows + 1), 1 / self.span), rows)
            if not known and size > 0:
                inverse, known = np.eye(self.order) / (self.ridge * size**2), True
            along = inverse @ past
            gain = along / (keep + past @ along)
            weights = weights + gain * surprise
            inverse = (inverse - np.outer(gain, along)) / keep
            most = np.trace(inverse) * size**2 / self.order
            if most > MOST:  # nothing has moved for long: what is not seen is not forgotten without end
                inverse *= MOST / most
            past[1:] = past[:-1].copy()
            past[0] = value
            rows += 1
        return prediction, {"rows": rows, "size": size, "past": past, "weights": weights, "inverse": inverse}


def _clipped(surprise: float, size: float, gain: float, rows: int) -> tuple[float, float]:
    """The surprise, clipped to CLIP times `size`, the fading mean of its absolute value; and the updated mean."""
    most = CLIP * size
    clipped = surprise if rows < 10 or size == 0 else min(max(surprise, -most), most)
    return clipped, size + max(gain, 1 / (rows + 1)) * (abs(clipped) - size)
