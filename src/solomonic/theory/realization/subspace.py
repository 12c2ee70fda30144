"""The state as what the past says about the future: canonical variate analysis (Akaike 1975, Larimore 1990).

past   z_t = (y_{t-1}, u_{t-1}, ..., y_{t-l}, u_{t-l})        future  f_t = (y_t, ..., y_{t+l-1})

With the future inputs regressed out of both, the singular values of the normalised Hankel matrix
L_f^-1 E[f z^T] L_z^-T = U S V^T are the canonical correlations. The state is x_t = S^(1/2) V^T L_z^-1 z_t, its first n
entries; regressing (x_{t+1}, y_t) on (x_t, u_t) gives the matrices, the residuals the noise.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, qr, solve_discrete_are, solve_triangular

from .linear import Markov, power_of_two, symmetric
from .prediction_error import errors

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Hankel:
    """What the past of a series says about its future."""

    correlations: Array  # canonical, largest first
    state: Array  # (rows, candidates): x_t for t = lags, lags + 1, ..., the best told entries first
    lags: int


def lags_of(y: Array, u: Array, most: int) -> int:
    """Rows of past to look at: twice the length of the autoregression with the least AIC, between 2 and `most`."""
    (T, p), width = y.shape, y.shape[1] + u.shape[1]
    z = np.concatenate([y, u], 1)
    scores = []
    for length in range(1, max(2, most // 2 + 1)):
        Z = np.concatenate([z[most - k : T - k] for k in range(1, length + 1)] + [u[most:]], 1)
        e = y[most:] - Z @ np.linalg.lstsq(Z, y[most:], rcond=None)[0]
        R = e.T @ e / len(e)
        scores.append(len(e) * np.linalg.slogdet(R + least(y))[1] + 2 * p * width * length)
    return int(np.clip(2 * (1 + np.argmin(scores)), 2, most))


def hankel(y: Array, u: Array, lags: int) -> Hankel:
    """Canonical correlations and state of centred series y (T, p), u (T, m), their columns of like size."""
    T, m = len(y), u.shape[1]
    z = np.concatenate([y, u], 1)
    past = np.concatenate([z[lags - k : T - lags + 1 - k] for k in range(1, lags + 1)], 1)
    future = np.concatenate([y[lags + k : T - lags + 1 + k] for k in range(lags)], 1)
    rows = len(past)
    left_past, left_future = past, future
    if m:
        inputs = np.concatenate([u[lags + k : T - lags + 1 + k] for k in range(lags)], 1)
        Q, _, _ = qr(inputs, mode="economic", pivoting=True)
        left_past, left_future = past - Q @ (Q.T @ past), future - Q @ (Q.T @ future)
    Lz, Lf = _factor(left_past / np.sqrt(rows)), _factor(left_future / np.sqrt(rows))
    H = left_future.T @ left_past / rows
    _, s, Vt = np.linalg.svd(solve_triangular(Lf, solve_triangular(Lz, H.T, lower=True).T, lower=True))
    J = solve_triangular(Lz, Vt[: len(s)].T, lower=True, trans="T") * np.sqrt(s)
    return Hankel(np.clip(s, 0, 1), past @ J, lags)


def predictor_state(y: Array, u: Array, lags: int) -> Array:
    """The state by what a long autoregression says (PBSID, Chiuso 2007): (rows, candidates), as in `Hankel`.

    y_t = sum_k M_k (y, u)_{t-k} + D u_t + e_t; row block i of the Hankel matrix holds M_{i+1}, M_{i+2}, ..., so H z_t is
    what the past alone says about the future. Needs no white inputs and no open loop.
    """
    (T, p), width = y.shape, y.shape[1] + u.shape[1]
    z = np.concatenate([y, u], 1)
    past = np.concatenate([z[lags - k : T - lags + 1 - k] for k in range(1, lags + 1)], 1)
    all_past = np.concatenate([z[lags - k : T - k] for k in range(1, lags + 1)], 1)
    M = np.linalg.lstsq(np.concatenate([all_past, u[lags:]], 1), y[lags:], rcond=None)[0].T[:, : lags * width]
    H = np.zeros((lags * p, lags * width))
    for i in range(lags):
        H[i * p : (i + 1) * p, : (lags - i) * width] = M[:, i * width :]
    Lz = _factor(past / np.sqrt(len(past)))
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


def scores(found: Hankel, y: Array, u: Array, most: int) -> Array:
    """BIC of the orders 0 ... most (most + 1,): T log det R + n (2 p + m) log T, the least is the order to take.

    The state of order n is the first n canonical variates, R the covariance of the errors of its predictor. An order
    whose predictor is not stable scores infinity.
    """
    p, m, found_scores = y.shape[1], u.shape[1], []
    for n in range(min(most, found.state.shape[1]) + 1):
        e, _ = errors(realize(found.state, found.lags, y, u, n)[0], y, u)
        e = e[found.lags :]
        with np.errstate(over="ignore", invalid="ignore"):
            R = e.T @ e / len(e) + least(y)
        score = len(e) * np.linalg.slogdet(R)[1] + n * (2 * p + m) * np.log(len(e)) if np.isfinite(R).all() else np.inf
        found_scores.append(score)
    return np.array(found_scores)


def least(y: Array) -> Array:
    """What no covariance of errors (p, p) is taken to be below: 1e-12 of the outputs' variances."""
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
    """M covariance^-1, on the directions in which the covariance is above rounding."""
    return np.linalg.lstsq(covariance, M.T, rcond=None)[0].T


def _factor(M: Array) -> Array:
    """The Cholesky factor of M^T M, lower; what is collinear is held apart by a little."""
    covariance = M.T @ M
    return cholesky(covariance + 1e-10 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)), lower=True)


__all__ = ["Hankel", "gain", "hankel", "lags_of", "predictor_state", "realize", "scores"]
