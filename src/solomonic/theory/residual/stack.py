"""The residual stack: level, seasons, linear system, each fed what the one below failed to predict; and what is new.

After STRIC (arXiv 2106.11148, 2202.12457), whose last layer is a convolutional network and whose score is a likelihood
ratio of recent residuals against past ones. Here the last layer is eidetic: of every stage's residual it takes mean and
variance over the last `recent` rows, and keeps, verbatim, those that were like nothing kept before. How new a row is is
the log-likelihood ratio of the recent rows, in nats, against the most similar of what is kept:

    novelty_t = min over kept i of  sum over stages of  n KL(N(m_t, v_t) || N(m_i, v_i))

under Gaussians, n = `recent`. What happens is then remembered, and is not new any more; a spike, a shift, a change of
spread, a season that fails to come are all new to some stage. How new is unusual differs from series to series, so that
it is judged by its rank, too, with those of the residuals before and after the linear layer (`surprise.py`):

    surprise_t = log (rarity_t (1 + novelty_t) / sqrt(rows remembered)), 0 where that is negative.

Ranks alone alarm as often where nothing happens as anywhere else; novelty alone is daily in one series and never comes
in another. The root is half way between so many alarms a row, and so many a series. Nothing is in units of the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from .layers import Layer, Level, Linear, Seasonal, State, Width, measured
from .surprise import Surprise, first_of_events

FLOOR = 0.1
"""Deviations are never taken for less than this share of the residual's own, over all of the past."""
ROUNDING = 2.0**-30
"""Residuals of no more than this share of the mean deviation from the first row count as 0."""
WITHIN = 2.0
"""Nats below its peak that a stretch reaches down to."""


@dataclass(frozen=True)
class Gated(Layer):
    """A layer whose prediction is multiplied by its fading regression coefficient through the origin, clipped to [0, 1].

    So a layer that does not fit the series, such as a season where there is none, adds no noise.
    """

    layer: Layer
    span: int = 1000

    @property
    def blind(self) -> int:
        return self.layer.blind

    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        prediction, inner = self.layer.step(x, state and state["inner"])
        along, size = (state["along"], state["size"]) if state else (0.0, 0.0)
        keep = 1 - 1 / self.span
        for t, (value, guess) in enumerate(zip(x.tolist(), prediction.tolist())):
            prediction[t] = guess * (min(max(along / size, 0.0), 1.0) if size > 0 else 1.0)
            along, size = keep * along + value * guess, keep * size + guess * guess
        return prediction, {"inner": inner, "along": along, "size": size}


@dataclass(frozen=True)
class Seasons(Layer):
    """Seasons on top of one another, each fed the residual of the one before: their predictions add up."""

    periods: tuple[int, ...]

    @property
    def blind(self) -> int:
        return self.periods[0]

    def step(self, x: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        after, total = {}, np.zeros(len(x))
        for period in self.periods:
            layer = Gated(Seasonal(period), 7 * self.periods[0])
            prediction, after[str(period)] = layer.step(x - total, state and state[str(period)])
            total += prediction
        return total, after


@dataclass(frozen=True)
class Novelty:
    """The eidetic layer: it keeps summaries of the last `recent` rows of each stage that were unlike all that it kept.

    `admit`: the novelty, in nats, from which a summary is kept. At `capacity` of them the least recently matched is dropped.
    """

    recent: int = 12
    admit: float = 10.0
    capacity: int = 256

    def run(self, residuals: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """(rows, stages) -> nats (rows,) >= 0, and the state after. 0 until `recent` rows have come."""
        parts, state = measured(self._step, residuals, state)
        return np.concatenate([part for part, _ in parts]), state

    def _step(self, residuals: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
        n, stages = self.recent, residuals.shape[1]
        if state is None:
            empty = np.empty((0, stages))
            state = {"rows": 0, "square": np.zeros(stages), "last": empty, "mean": empty, "spread": empty}
            state["matched"] = np.empty(0, int)
        rows, square, last = state["rows"], state["square"].copy(), state["last"]
        means, spreads, matched = state["mean"], state["spread"], state["matched"].copy()
        scores = np.zeros(len(residuals))
        series = np.concatenate([last, residuals])
        for t, now in enumerate(residuals):
            rows += 1
            square += (now * now - square) / rows
            if rows < n:
                continue
            window = series[len(last) + t + 1 - n : len(last) + t + 1]
            mean, variance = window.mean(0), window.var(0)
            floor = np.where(square > 0, FLOOR**2 * square, 1.0)  # a stage of zeros is like any other of zeros
            if len(means):
                v, w = variance + floor, spreads + floor
                ratio = v / w
                distance = 0.5 * n * (ratio + (mean - means) ** 2 / w - 1 - np.log(ratio)).sum(1)
                nearest = int(distance.argmin())
                scores[t] = max(distance[nearest], 0.0)
            if not len(means) or scores[t] > self.admit:
                if len(means) == self.capacity:
                    stay = np.arange(len(means)) != matched.argmin()
                    means, spreads, matched = means[stay], spreads[stay], matched[stay]
                means, spreads = np.vstack([means, mean]), np.vstack([spreads, variance])
                matched = np.append(matched, rows)
            else:
                matched[nearest] = rows
        after = {"rows": rows, "square": square, "last": series[max(len(series) - n + 1, 0) :].copy()}
        return scores, after | {"mean": means, "spread": spreads, "matched": matched}


@dataclass(frozen=True)
class Decomposition:
    """The prediction of each layer and the residual after it, (rows, layers), and the surprise in nats (rows,).

    `scores` (rows,), for alarms, are the surprise where an event reaches its highest so far, and 0 elsewhere.
    """

    names: tuple[str, ...]
    predictions: np.ndarray
    residuals: np.ndarray
    surprise: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Stack:
    """Layers from the bottom up, `names` beside them, and the novelty over all their residuals.

    `run` obeys the laws of `layers`: causal, and the same however the series is cut into calls.
    """

    names: tuple[str, ...]
    layers: tuple[Layer, ...]
    novelty: Novelty = field(default_factory=Novelty)
    surprise: Surprise = field(default_factory=Surprise)

    def run(self, x: np.ndarray, state: State | None = None) -> tuple[Decomposition, State | None]:
        """x (rows,) and the state of the rows before it. ValueError for NaN or infinity, by row of this call."""
        x = np.asarray(x, float)
        if x.ndim != 1:
            raise ValueError(f"series: expected one number a row, got shape {x.shape}")
        if not np.isfinite(x).all():
            bad = np.flatnonzero(~np.isfinite(x))
            raise ValueError(f"series: expected finite numbers, got {x[bad[0]]} at row {bad[0]} and {len(bad)} in all")
        predictions, residuals = np.empty((2, len(x), len(self.layers)))
        if not len(x):
            return Decomposition(self.names, predictions, residuals, np.zeros(0), np.zeros(0)), state
        after: State = {"rows": len(x) + (state["rows"] if state else 0)}
        after["first"] = state["first"] if state else float(x[0])  # what it predicts is itself: a level is no surprise
        with np.errstate(over="ignore"):
            left = x - after["first"]
        if not np.isfinite(left).all():
            raise ValueError(
                f"series: expected a range that a float can hold, got {x.min():g} to {x.max():g}; divide it"
            )
        wide, after["wide"] = Width().run(left, state and state["wide"])
        for i, (name, layer) in enumerate(zip(self.names, self.layers, strict=True)):
            predictions[:, i], after[name] = layer.run(left, state and state[name])
            left = residuals[:, i] = left - predictions[:, i]
        predictions[:, 0] += after["first"]
        new, after["novelty"] = self.novelty.run(residuals, state and state["novelty"])
        judged = np.where(np.abs(residuals) > ROUNDING * wide[:, None], np.abs(residuals), 0.0)
        row = np.arange(after["rows"] - len(x), after["rows"])
        for i, layer in enumerate(self.layers):
            judged[row < layer.blind, i] = np.nan
        judged = np.column_stack([judged[:, -2:], new])
        rarity, after["surprise"] = self.surprise.run(judged, state and state["surprise"])
        nats = np.maximum(rarity + np.log1p(new) - 0.5 * np.log(np.minimum(row + 1, self.surprise.span)), 0)
        scores, after["event"] = first_of_events(nats, state and state["event"])
        return Decomposition(self.names, predictions, residuals, nats, scores), after


def stack(periods: tuple[int, ...] = (), recent: int = 12) -> Stack:
    """The stack for a series with seasons of these `periods`, rising numbers of rows; without, a level and a linear system."""
    if any(type(period) is not int or period < 2 for period in periods) or list(periods) != sorted(set(periods)):
        raise ValueError(f"periods: expected whole numbers of rows >= 2, rising, got {periods}")
    if type(recent) is not int or recent < 2:
        raise ValueError(f"recent: expected a whole number of rows >= 2, got {recent}")
    slow = 7 * periods[0] if periods else 2000
    layers: dict[str, Layer] = {"level": Level(slow)}
    if periods:
        layers["season"] = Seasons(periods)
    layers["linear"] = Linear()
    return Stack(tuple(layers), tuple(layers.values()), Novelty(recent))


@dataclass(frozen=True)
class Stretch:
    """Rows `first` to `last`, both in it, whose surprise reaches its highest, `score`, at row `peak`."""

    first: int
    last: int
    peak: int
    score: float


def stretches(surprise: np.ndarray, most: int, apart: int, gap: int = 24) -> list[Stretch]:
    """The stretches around the `most` highest peaks, highest first, each more than `apart` rows from a higher one.

    A stretch has the rows around its peak that are within WITHIN nats of it and at least a third of it; at most `gap` rows
    in between are not.
    """
    return list(islice(_peaks(np.asarray(surprise, float), apart, gap), most))


def _peaks(scores: np.ndarray, apart: int, gap: int) -> Iterator[Stretch]:
    free = scores > 0
    for peak in np.argsort(-scores, kind="stable").tolist():
        if scores[peak] <= 0:
            return
        if free[peak]:
            first = max(0, peak - apart)
            free[first : peak + apart + 1] = False
            high = first + np.flatnonzero(
                scores[first : peak + apart + 1] >= max(scores[peak] - WITHIN, scores[peak] / 3)
            )
            breaks = np.flatnonzero(np.diff(high) > gap + 1)
            run = next(part for part in np.split(high, breaks + 1) if peak in part)
            yield Stretch(int(run[0]), int(run[-1]), peak, float(scores[peak]))
