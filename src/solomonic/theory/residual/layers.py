"""Layers of a residual stack: each predicts the next row of what it is fed, and passes on what it failed to predict.

Laws, tested on every layer. With prediction, state = layer.run(x, state), x (rows,), state None before the first row:

- Causality: the prediction of a row depends on the rows before it alone.
- Chunk: any split of x into calls that pass the state on gives the same predictions and state.

Memories forget by a span: after `span` rows a row counts 1/e of a new one. Until then all rows count alike, so that a
memory is of use from its first rows on. What surprises by more than CLIP mean absolute errors moves a memory no further
than that: an outlier is for the score to see, not for the memory to learn.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

CLIP = 4.0
MOST = 1e6  # of the linear layer's uncertainty, in squared weights
State = dict[str, Any]


class Layer(ABC):
    @abstractmethod
    def run(self, x: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """(rows,) and the state before -> predictions (rows,), each from the rows before it, and the state after."""


@dataclass(frozen=True)
class Level(Layer):
    """A fading mean: one state, exponential smoothing."""

    span: int

    def run(self, x: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
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
class Seasonal(Layer):
    """What stood at the same phase in the periods before, as a fading mean over `span` periods: one state a phase.

    A period is a ring, a shift whose eigenvalues are the roots of one: without the mean it is verbatim memory.
    """

    period: int
    span: int = 5

    def run(self, x: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        rows, size = (state["rows"], state["size"]) if state else (0, 0.0)
        ring = state["ring"].copy() if state else np.zeros(self.period)
        prediction = np.empty(len(x))
        for t, value in enumerate(x.tolist()):
            phase, turn = rows % self.period, rows // self.period
            prediction[t] = ring[phase]
            surprise, size = _clipped(value - ring[phase], size, 1 / (self.span * self.period), rows)
            ring[phase] += max(1 / (turn + 1), 1 / self.span) * surprise
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

    def run(self, x: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
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
    """The surprise within CLIP fading mean absolute ones, and that mean with it in."""
    most = CLIP * size
    clipped = surprise if rows < 10 or size == 0 else min(max(surprise, -most), most)
    return clipped, size + max(gain, 1 / (rows + 1)) * (abs(clipped) - size)
