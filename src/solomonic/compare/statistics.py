"""How far a score, and a difference of two scores, may be trusted: standard errors, and 95 % intervals by the bootstrap.

A score is a ratio, what was scored over how many positions were. Its rows are not alike: those of one document go
together, so a document is one draw (a *unit*), and a row is one where there are no documents. U units, K seeds:

    score    R = sum_u y_u / sum_u x_u                                     y: sums of scores, x: positions scored
    error    se^2 = U / (U - 1) * sum_u (y_u - R x_u)^2 / (sum_u x_u)^2    (Cochran, Sampling Techniques, 1977, section 6.3)
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

LEVEL, DRAWS, SEED = 0.95, 1000, 0


class Interval(NamedTuple):
    """An estimate, and half the width of its 95 % interval."""

    estimate: float
    half: float

    @property
    def low(self) -> float:
        return self.estimate - self.half

    @property
    def high(self) -> float:
        return self.estimate + self.half


def by_unit(scores: np.ndarray, documents: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, T) scores, NaN where nothing is scored -> sums and counts (U,), and the units' documents, in order."""
    units, unit = (np.arange(len(scores)),) * 2 if documents is None else np.unique(documents, return_inverse=True)
    sums = np.bincount(unit, np.nansum(scores, 1), len(units))
    return sums, np.bincount(unit, np.isfinite(scores).sum(1), len(units)).astype(np.int64), units


def ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float | None]:
    """(U,), (U,) -> the score and its standard error; None for one unit."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(sums.sum() / counts.sum())
        if len(sums) < 2:
            return value, None
        squares = np.square(sums - value * counts).sum() * len(sums) / (len(sums) - 1)
        return value, float(np.sqrt(squares) / counts.sum())


def interval(sample: np.ndarray, other: np.ndarray | None = None) -> Interval | None:
    """The mean score over seeds of `sample`, less that of `other`, and its 95 % interval.

    Both are (K, U, 2), sums and counts, of the same units; K may differ. In each of `DRAWS` draws the same units stand for
    both, and the seeds of each are drawn apart. A draw has one unit and one seed less than there are, so that the variance
    of the draws is that of the mean also for few (Rao and Wu 1988). The interval is the estimate and Student's t times the
    standard deviation of the draws, with Satterthwaite's degrees of freedom: percentiles of three seeds are their range,
    which covers the mean three times in four. One seed: of units alone. One unit: of seeds alone. None: one of each.
    """
    groups = [sample] if other is None else [sample, other]
    units = sample.shape[1]
    weights = _weights(units)
    estimate, drawn = 0.0, np.zeros(DRAWS)
    parts: list[tuple[float, int]] = []  # variances, and their degrees of freedom
    for place, group in enumerate(groups):
        sign, seeds = (1, -1)[place], len(group)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = group[..., 0].sum(1) / group[..., 1].sum(1)
            resampled = (weights @ group[..., 0].T) / (weights @ group[..., 1].T)
        estimate += sign * float(values.mean())
        drawn += sign * (resampled * _weights(seeds, 1 + place)).sum(1) / max(seeds - 1, 1)
        if seeds > 1:
            parts.append((float(values.var(ddof=1)) / seeds, seeds - 1))
    variance = float(np.nanvar(drawn))
    if units > 1:
        parts.append((max(variance - sum(part for part, _ in parts), 0.0), units - 1))
    if not parts:
        return None
    spread = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / spread if spread else 1.0
    return Interval(estimate, students_t(freedom) * variance**0.5)


def students_t(freedom: float) -> float:
    """The t with a share `LEVEL` of Student's distribution between -t and t, for one degree of freedom or more."""
    t = np.linspace(0, 13, 26_001)
    n = min(freedom, 1e6)
    density = (
        np.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / np.sqrt(n * np.pi) * (1 + t**2 / n) ** (-(n + 1) / 2)
    )
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1]) * t[1]])  # trapezoids, of both sides
    return float(np.interp(LEVEL, share, t))


@cache
def _weights(count: int, stream: int = 0) -> np.ndarray:
    """(DRAWS, count) float64: how often each is drawn. Of units the same for all scores: differences are paired."""
    rng = np.random.default_rng([SEED, stream])
    return rng.multinomial(max(count - 1, 1), np.full(count, 1 / count), DRAWS).astype(np.float64)
