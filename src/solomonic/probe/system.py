"""A layer as a linear system: how many states it takes to give a layer's outputs on a text from its inputs.

u_t, the inputs, and y_t, the outputs, are taken along their leading principal directions. States are found from
canonical correlations (Larimore's canonical variate analysis): of all combinations of the past inputs, those that say
most about the future outputs once the future inputs are known,

    x_t = the n leading such combinations,   x_{t+1} = A x_t + B u_t,   y_t = C x_t + D u_t

A and B by regression on the first half of the text, C and D on the states that A and B make of the inputs there; judged
by simulation from the inputs alone on the second half. What no system of any order explains is what a linear system
cannot do: the layer's own dynamics depend on its inputs.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import svd

from ..theory.realization.linear import recursion
from ..theory.realization.subspace import canonical_variates, lagged

AHEAD = 8  # rows of the future that the past is asked about
RIDGE = 1e-4  # of the mean square of what is regressed on
STABLE = 0.999


@dataclass
class Order:
    """A system of `order` states: the share of the outputs' variance that it explains, and its largest |eigenvalue|.

    `explained` on the second half of the text, of the directions that were kept; below 0 it is worse than the mean.
    `pulled_in`: the fit was not stable, and its eigenvalues were shrunk to STABLE.
    """

    order: int
    explained: float
    radius: float
    pulled_in: bool


@dataclass
class Fit:
    """`correlations` of past inputs and future outputs, in the order of the states, on the half that was not fitted to.

    `inputs`, `outputs`: the shares of variance along the directions that were kept.
    """

    correlations: np.ndarray
    orders: list[Order]
    inputs: float
    outputs: float

    def correlated(self, least: float = 0.1) -> int:
        """How many states say something of the future: leading correlations of `least` or more."""
        below = np.flatnonzero(self.correlations < least)
        return int(below[0]) if len(below) else len(self.correlations)

    def effective(self, share: float = 0.95) -> int:
        """The smallest order that explains `share` of what the best order does; 0: no order explains anything."""
        best = max(order.explained for order in self.orders)
        return next((o.order for o in self.orders if best > 0 and o.explained >= share * best), 0)


def fit(
    u: np.ndarray,
    y: np.ndarray,
    orders: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32),
    directions: int = 8,
    lags: int = 32,
) -> Fit:
    """Inputs u (T, m) and outputs y (T, p) of a layer along one text.

    ValueError where the text is too short for the lags, or where inputs or outputs do not move.
    """
    u, y = np.asarray(u, float), np.asarray(y, float)
    least = 8 * lags * min(directions, u.shape[1])
    if len(u) < least:
        raise ValueError(f"expected {least} tokens or more to fit a system with {lags} lags, got {len(u)}")
    half = len(u) // 2
    u, kept_u = _principal(u, directions, half)
    y, kept_y = _principal(y, directions, half)

    def stacked(first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        begin, end = first + lags, last - AHEAD
        ahead = range(0, -AHEAD, -1)
        return lagged(u, range(1, lags + 1), begin, end), lagged(u, ahead, begin, end), lagged(y, ahead, begin, end)

    past, future_u, future_y = stacked(0, half)
    of_past, of_future = _regress(future_u, past), _regress(future_u, future_y)
    past, future = past - future_u @ of_past, future_y - future_u @ of_future
    _, weights, readout = canonical_variates(past, future, RIDGE)
    past, future_u, future_y = stacked(half, len(u))
    past, future = (past - future_u @ of_past) @ weights, (future_y - future_u @ of_future) @ readout
    correlations = (past * future).sum(0) / np.sqrt(np.square(past).sum(0) * np.square(future).sum(0)).clip(1e-300)
    states = lagged(u, range(1, lags + 1), lags, half) @ weights
    most = min(weights.shape[1], (half - lags) // 4)
    systems = [linear_system(states[:, :order], u, y, lags, half) for order in orders if order <= most]
    return Fit(np.clip(correlations, 0, 1), systems, kept_u, kept_y)


def linear_system(x: np.ndarray, u: np.ndarray, y: np.ndarray, lags: int, half: int) -> Order:
    """Regress the next state and the output on state and input, then simulate the second half from the inputs."""
    n = x.shape[1]
    AB = _regress(np.hstack([x, u[lags:half]])[:-1], x[1:])
    A, B = AB[:n], AB[n:]
    radius = float(np.abs(np.linalg.eigvals(A)).max()) if n else 0.0
    if pulled_in := radius > STABLE:
        A = A * (STABLE / radius)
    states = recursion(A.T, u @ B, np.zeros(n))[:-1]
    regressors = np.hstack([states, u])
    error = y[half:] - regressors[half:] @ _regress(regressors[lags:half], y[lags:half])
    explained = 1 - float(np.square(error).sum() / np.square(y[half:] - y[half:].mean(0)).sum())
    return Order(n, explained, radius, pulled_in)


def _principal(x: np.ndarray, most: int, half: int) -> tuple[np.ndarray, float]:
    """The leading directions of the first half, each of variance 1 there relative to the first; and their share."""
    x = x - x[:half].mean(0)
    _, size, directions = svd(x[:half], full_matrices=False)
    if size[0] <= 1e-12 * max(1.0, np.abs(x).max()):
        raise ValueError("expected inputs and outputs that move, got constant ones")
    n = min(most, int((size > 1e-9 * size[0]).sum()))
    return x @ directions[:n].T / (size[0] / half**0.5), float(np.square(size[:n]).sum() / np.square(size).sum())


def _regress(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    square = x.T @ x
    if not len(square):
        return np.zeros((0, y.shape[1]))
    ridge = RIDGE * np.trace(square) / len(square)
    return np.linalg.solve(square + ridge * np.eye(len(square)), x.T @ y)
