"""The state as the part of the past that predicts the future: canonical variate analysis (Akaike 1975, Larimore 1990).

past   z_t = (y_{t-1}, u_{t-1}, ..., y_{t-l}, u_{t-l})        future  f_t = (y_t, ..., y_{t+l-1})

With the future inputs regressed out of both, the singular values of the normalised Hankel matrix
L_f^-1 E[f z^T] L_z^-T = U S V^T are the canonical correlations. The state is x_t = S^(1/2) V^T L_z^-1 z_t, its first n
entries; regressing (x_{t+1}, y_t) on (x_t, u_t) gives the matrices, the residuals the noise.

Without L_f, the n numbers are those from which the future's squared errors, in all l rows alike, are least (the weights of
MOESP: Verhaegen 1994; Van Overschee and De Moor 1995). Canonical variates tell best that the future depends on the past.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, qr, solve_discrete_are, solve_triangular

from .linear import Markov, power_of_two, symmetric
from .prediction_error import errors

Array = np.ndarray
RIDGE = 1e-10  # of the mean variance of past and of future


@dataclass(frozen=True, eq=False)
class Hankel:
    """The canonical variates of the past and the future of a series, and the principal components of what they share."""

    correlations: Array  # canonical, largest first
    state: Array  # (rows, candidates): x_t for t = lags, lags + 1, ..., entries of the highest correlation first
    components: Array  # the same for the principal components of the future that the past predicts, largest first
    lags: int


def lagged(z: Array, lags: Iterable[int], first: int, last: int) -> Array:
    """The rows t = first ... last - 1 of z_{t-k} for each lag k, side by side: z (T, k) -> (last - first, k lags)."""
    return np.concatenate([z[first - k : last - k] for k in lags], 1)


def canonical_variates(past: Array, future: Array, ridge: float) -> tuple[Array, Array, Array]:
    """Canonical correlations (n,) of past (T, k) and future (T, l), and the combinations J (k, n) and M (l, n) that have them.

    past J and future M have the covariance of the identity. Covariances are raised by `ridge` of their mean diagonal, so
    that collinear columns can be told apart.
    """
    rows = len(past)
    Lz, Lf = factor(past / np.sqrt(rows), ridge), factor(future / np.sqrt(rows), ridge)
    H = future.T @ past / rows
    U, s, Vt = np.linalg.svd(solve_triangular(Lf, solve_triangular(Lz, H.T, lower=True).T, lower=True))
    of_past = solve_triangular(Lz, Vt[: len(s)].T, lower=True, trans="T")
    return s, of_past, solve_triangular(Lf, U[:, : len(s)], lower=True, trans="T")


def lags_of(y: Array, u: Array, most: int) -> int:
    """The number of lags: twice the length of the autoregression with the least AIC, between 2 and `most`."""
    (T, p), width = y.shape, y.shape[1] + u.shape[1]
    z = np.concatenate([y, u], 1)
    scores = []
    for length in range(1, max(2, most // 2 + 1)):
        Z = np.concatenate([lagged(z, range(1, length + 1), most, T), u[most:]], 1)
        e = y[most:] - Z @ np.linalg.lstsq(Z, y[most:], rcond=None)[0]
        R = e.T @ e / len(e)
        scores.append(len(e) * np.linalg.slogdet(R + least(y))[1] + 2 * p * width * length)
    return int(np.clip(2 * (1 + np.argmin(scores)), 2, most))


def hankel(y: Array, u: Array, lags: int) -> Hankel:
    """Canonical correlations and state of centred series y (T, p), u (T, m), their columns of like size."""
    T, m = len(y), u.shape[1]
    z = np.concatenate([y, u], 1)
    past = lagged(z, range(1, lags + 1), lags, T - lags + 1)
    future = lagged(y, range(0, -lags, -1), lags, T - lags + 1)
    left_past, left_future = past, future
    if m:
        inputs = lagged(u, range(0, -lags, -1), lags, T - lags + 1)
        Q, _, _ = qr(inputs, mode="economic", pivoting=True)
        left_past, left_future = past - Q @ (Q.T @ past), future - Q @ (Q.T @ future)
    s, J, _ = canonical_variates(left_past, left_future, RIDGE)
    P, sizes, _ = np.linalg.svd((left_past @ J).T @ left_future / len(past), full_matrices=False)
    return Hankel(np.clip(s, 0, 1), past @ (J * np.sqrt(s)), past @ (J @ (P * np.sqrt(sizes))), lags)


def predictor_state(y: Array, u: Array, lags: int) -> Array:
    """The state by a long autoregression (PBSID, Chiuso 2007): (rows, candidates), as in `Hankel`.

    y_t = sum_k M_k (y, u)_{t-k} + D u_t + e_t; row block i of the Hankel matrix holds M_{i+1}, M_{i+2}, ..., so H z_t is
    the future as the past alone predicts it. It needs neither white inputs nor an open loop.
    """
    (T, p), width = y.shape, y.shape[1] + u.shape[1]
    z = np.concatenate([y, u], 1)
    past, all_past = (lagged(z, range(1, lags + 1), lags, last) for last in (T - lags + 1, T))
    M = np.linalg.lstsq(np.concatenate([all_past, u[lags:]], 1), y[lags:], rcond=None)[0].T[:, : lags * width]
    H = np.zeros((lags * p, lags * width))
    for i in range(lags):
        H[i * p : (i + 1) * p, : (lags - i) * width] = M[:, i * width :]
    Lz = factor(past / np.sqrt(len(past)), RIDGE)
    _, s, Vt = np.linalg.svd(H @ Lz, full_matrices=False)
    return past @ (solve_triangular(Lz, Vt.T, lower=True, trans="T") * np.sqrt(s))


def realize(state: Array, lags: int, y: Array, u: Array, n: int) -> tuple[dict[str, Array], Array]:
    """The matrices (A, B, C, D, K, N, x0) for the first n entries of a state that starts at row `lags`, and R."""
    x, rows = state[:, :n], slice(lags, lags + len(state) - 1)
    now, then = np.concatenate([x[:-1], u[rows]], 1), np.concatenate([x[1:], y[rows]], 1)
    both = np.linalg.lstsq(now, then, rcond=None)[0].T
    noise = then - now @ both.T
    covariance = noise.T @ noise / len(noise)
    A, B, C, D = both[:n, :n], both[:n, n:], both[n:, :n], both[n:, n:]
    K, R = gain(Markov(A, C, covariance[:n, :n], covariance[:n, n:], covariance[n:, n:]))
    parts = {"A": A, "B": B, "C": C, "D": D, "K": K, "N": np.zeros((0, n, n)), "x0": np.zeros(n), "c": np.zeros(len(C))}
    return parts, R


def scores(hankel: Hankel, y: Array, u: Array, most: int) -> Array:
    """BIC of the orders 0 ... most (most + 1,): T log det R + n (2 p + m) log T, the least is the order to take.

    The state of order n is the first n canonical variates, R the covariance of the errors of its predictor. An order
    whose predictor is not stable scores infinity.
    """
    p, m, bic = y.shape[1], u.shape[1], []
    for n in range(min(most, hankel.state.shape[1]) + 1):
        e, _ = errors(realize(hankel.state, hankel.lags, y, u, n)[0], y, u)
        e = e[hankel.lags :]
        with np.errstate(over="ignore", invalid="ignore"):
            R = e.T @ e / len(e) + least(y)
        finite = np.isfinite(R).all()
        bic.append(len(e) * np.linalg.slogdet(R)[1] + n * (2 * p + m) * np.log(len(e)) if finite else np.inf)
    return np.array(bic)


def least(y: Array) -> Array:
    """The floor that is added to a covariance of errors (p, p): 1e-12 of the outputs' variances."""
    return np.diag(1e-12 * y.var(0))


def gain(noise: Markov, floor: float = 1e-10) -> tuple[Array, Array]:
    """The Kalman gain K (n, p) and the innovations' covariance (p, p): the stabilising solution of the Riccati equation

    P = A P A^T + Q - (A P C^T + S)(C P C^T + R)^-1 (A P C^T + S)^T,   K = (A P C^T + S)(C P C^T + R)^-1.

    Q and R are raised by `floor` of their mean, each output in its own unit, for noise that leaves a direction out.
    """
    n, p = noise.C.shape[1], noise.C.shape[0]
    if not n:
        return np.zeros((0, p)), noise.R
    x_unit, y_unit = _units(noise)
    A, C, Q = noise.A, np.ldexp(noise.C, x_unit - y_unit[:, None]), np.ldexp(noise.Q, -2 * x_unit)
    S, R = np.ldexp(noise.S, -x_unit - y_unit), np.ldexp(noise.R, -y_unit[:, None] - y_unit)
    of_Q, of_R = floor * np.trace(Q) / n * np.eye(n), floor * np.trace(R) / p * np.eye(p)
    try:
        P = solve_discrete_are(A.T, C.T, Q + of_Q, R + of_R, s=S)
    except (np.linalg.LinAlgError, ValueError):
        P = np.zeros((n, n))
        for _ in range(10_000):
            K = _over(A @ P @ C.T + S, C @ P @ C.T + R + of_R)
            last, P = P, symmetric((A - K @ C) @ P @ (A - K @ C).T + Q + K @ R @ K.T - S @ K.T - K @ S.T)
            if np.abs(P - last).max() <= 1e-12 * np.abs(P).max():
                break
    covariance = symmetric(C @ P @ C.T + R)
    K = _over(A @ P @ C.T + S, covariance + of_R)
    return np.ldexp(K, x_unit - y_unit), np.ldexp(covariance, y_unit[:, None] + y_unit)


def _units(noise: Markov) -> tuple[Array, Array]:
    """Powers of two, of the states () and of the outputs (p,), in which the noise is of a size near one."""
    own = np.abs(np.diag(noise.R))
    shown = np.abs(np.diag(noise.C @ noise.Q @ noise.C.T))
    y_unit = power_of_two(np.sqrt(np.where(own > 0, own, shown)))
    drive = np.sqrt(np.abs(np.diag(noise.Q)).max())
    return power_of_two(drive if drive > 0 else np.abs(np.ldexp(noise.S, -y_unit)).max()), y_unit


def _over(M: Array, covariance: Array) -> Array:
    """M covariance^-1, in the directions in which the covariance is above rounding."""
    return np.linalg.lstsq(covariance, M.T, rcond=None)[0].T


def factor(M: Array, ridge: float) -> Array:
    """The lower Cholesky factor of M^T M, its diagonal raised by `ridge` of its mean."""
    covariance = M.T @ M
    return cholesky(covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance)), lower=True)


__all__ = [
    "Hankel",
    "canonical_variates",
    "gain",
    "hankel",
    "lagged",
    "lags_of",
    "predictor_state",
    "realize",
    "scores",
]
