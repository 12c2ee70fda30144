"""How rare a row is among all before it: ranks, joined over several statistics, and one alarm an event.

Residuals of different series have tails of all kinds: what is three deviations off in one is daily in another. A rank
knows no distribution and no unit. Of the last `span` rows, the share that had as high a value is

    p_t = (1 + how many of the n rows before had as high a value) / (1 + n),

where the anomaly likelihood of Lavin and Ahmad (arXiv 1510.03336) has a Gaussian's tail over a window as long. Several
statistics of a row are joined by a mean of their p (the power mean of exponent -1/2; Vovk and Wang, Biometrika 2020):
one alone may speak, and more are louder.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from math import isnan

import numpy as np

from .layers import State

ALIKE = 1 - 1e-9
"""Values this close are equal: rounding decides no rank."""
APART = 100
"""Rows after an alarm in which only what is more surprising alarms again."""


@dataclass(frozen=True)
class Surprise:
    """-log of the power mean of p, which is 2 log(mean of 1 / sqrt(p)), in nats, at most log(span + 1)."""

    span: int = 8640

    def run(self, values: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """(rows, statistics) >= 0 -> nats (rows,) >= 0, and the state after: the last `span` rows.

        0 is never surprising. NaN is neither judged nor remembered.
        """
        past = state["past"] if state else np.empty((0, values.shape[1]))
        odds = np.ones(values.shape)
        both = np.concatenate([past, values])
        for i, column in enumerate(both.T.tolist()):
            ordered = sorted(value for value in column[: len(past)] if not isnan(value))
            for t in range(len(past), len(column)):
                value = column[t]
                if value > 0:
                    above = len(ordered) - bisect_left(ordered, value * ALIKE)
                    odds[t - len(past), i] = (1 + len(ordered)) / (1 + above)
                if not isnan(value):
                    insort(ordered, value)
                if t >= self.span and not isnan(oldest := column[t - self.span]):
                    del ordered[bisect_left(ordered, oldest)]
        return 2 * np.log(np.sqrt(odds).mean(1)), {"past": both[-self.span :].copy()}


def first_of_events(nats: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
    """The nats (rows,) of rows that surprise more than the APART rows before each, 0 for all others; the state after."""
    before = state["nats"] if state else np.empty(0)
    highest: deque[tuple[int, float]] = deque()  # falling, of the last APART rows
    scores = np.zeros(len(nats))
    for t, value in enumerate(np.concatenate([before, nats]).tolist(), -len(before)):
        while highest and highest[0][0] < t - APART:
            highest.popleft()
        if t >= 0 and value > (highest[0][1] if highest else 0.0):
            scores[t] = value
        while highest and highest[-1][1] <= value:
            highest.pop()
        highest.append((t, value))
    return scores, {"nats": np.concatenate([before, nats])[-APART:].copy()}
