"""Portmanteau tests: whether residuals are white, and whether past inputs predict them."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from .linear import columns, spread
from .subspace import lagged

Array = np.ndarray
LEVEL = 0.05
"""A test fails where p is below this."""


@dataclass(frozen=True)
class Test:
    """A statistic, chi-squared with `freedom` degrees when the residuals are what they should be."""

    statistic: float
    freedom: int
    p: float  # the chance of a statistic as large as this one
    lags: int  # rows of past that were looked at

    __test__ = False  # not one of pytest's

    @property
    def passed(self) -> bool:
        return self.p >= LEVEL

    @property
    def chance(self) -> str:
        """p as text, as an inequality where the number underflows."""
        return f"p = {self.p:.2g}" if self.p > 1e-300 else "p < 1e-300"


def correlations(e: Array, lags: int) -> Array:
    """Correlation of e_{t,i} with e_{t-k,j} for k = 0 ... lags (lags + 1, p, p), means taken off."""
    e = columns(e, "e") - columns(e, "e").mean(0)
    size = spread(e)
    e = e / np.where(size > 0, size, 1.0)
    return np.array([e[k:].T @ e[: len(e) - k] / len(e) for k in range(lags + 1)])


def largest(e: Array, lags: int) -> tuple[float, int]:
    """The correlation farthest from 0 of one output with the past of any, at lags 1 ... lags; and its lag."""
    r = correlations(e, lags)[1:].reshape(lags, -1)
    lag, pair = divmod(int(np.abs(r).argmax()), r.shape[1])
    return float(r[lag, pair]), lag + 1


def portmanteau(e: Array, lags: int, parameters: int = 0) -> Test:
    """Ljung and Box (1978), for many outputs Hosking (1980):

    Q = T^2 sum_k tr(L_k^T L_0^-1 L_k L_0^-1) / (T - k), k = 1 ... lags; p^2 lags degrees of freedom less the fitted
    parameters of the noise (2 n p). ValueError when there are no more lags than those.
    """
    T, p = columns(e, "e").shape
    freedom = p * p * lags - parameters
    if freedom < 1 or lags >= T:
        raise ValueError(f"lags: expected between {parameters // (p * p) + 1} and {T - 1}, got {lags}")
    L = correlations(e, lags)
    weight = np.linalg.pinv(L[0])
    Q = T * T * sum(np.trace(L[k].T @ weight @ L[k] @ weight) / (T - k) for k in range(1, lags + 1))
    return Test(float(Q), freedom, float(chi2.sf(Q, freedom)), lags)


def independence(e: Array, u: Array, lags: int) -> Test:
    """Whether past inputs predict the residuals: T times the multiple R^2 of e_t on u_{t-1} ... u_{t-lags}.

    It has p m lags degrees of freedom. A fit has made some of the correlations zero, so the test is conservative.
    """
    e, u = columns(e, "e"), columns(u, "u")
    U = lagged(u, range(1, lags + 1), lags, len(u))
    U, later = U - U.mean(0), e[lags:] - e[lags:].mean(0)
    U, later = (v / np.where(size > 0, size, 1.0) for v, size in ((U, spread(U)), (later, spread(later))))
    Q, s, _ = np.linalg.svd(U, full_matrices=False)
    Q = Q[:, s > 1e-10 * s.max(initial=0)]
    half = np.linalg.pinv(later.T @ later / len(later))
    shared = Q.T @ later
    statistic = float(np.trace(shared @ half @ shared.T))
    freedom = later.shape[1] * Q.shape[1]
    return Test(statistic, freedom, float(chi2.sf(statistic, freedom)), lags)


__all__ = ["LEVEL", "Test", "correlations", "independence", "largest", "portmanteau"]
