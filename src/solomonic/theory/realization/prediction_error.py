"""The prediction error method (Ljung, System Identification, 1999, ch. 7): the model whose predictions are best.

Damped Gauss-Newton (Levenberg-Marquardt) on all entries of the matrices; the directions that only change the basis of
the state cost nothing, and the damping leaves them alone (McKelvey, Helmersson, Ribarits 2004). The predictor is

    x_{t+1} = (A + sum_i u_ti N_i) x_t + B u_t + K e_t,   e_t = y_t - C x_t - D u_t - c,

with N (m, n, n) absent when linear, and c (p,) what the output's mean over these rows is off its resting point.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from .linear import recursion, spectral_radius

Array = np.ndarray
HUGE = 1e6  # of standardised errors, those of a predictor that is not stable: a step to one is refused


def errors(parts: dict[str, Array], y: Array, u: Array) -> tuple[Array, Array]:
    """The errors e (T, p) and states (T, n) of the predictor."""
    A, B, C, D, K, N, x = (parts[name] for name in ("A", "B", "C", "D", "K", "N", "x0"))
    direct, closed = y - u @ D.T - parts.get("c", 0.0), A - K @ C
    drive = u @ B.T + direct @ K.T
    if len(N):
        closed = closed + np.tensordot(u, N, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        states = recursion(closed, drive, x)[:-1]
        return direct - states @ C.T, states


def sensitivities(parts: dict[str, Array], free: Sequence[str], e: Array, states: Array, u: Array) -> Array:
    """The derivative of e by the entries of the free matrices, in their order (T, p, entries)."""
    A, C, K, N = (parts[name] for name in ("A", "C", "K", "N"))
    (T, p), n, m = e.shape, len(A), u.shape[1]
    ends = np.cumsum([parts[name].size for name in free])
    at = {name: slice(end - parts[name].size, end) for name, end in zip(free, ends)}
    direct, drive = np.zeros((T, p, ends[-1])), np.zeros((T, n, ends[-1]))  # what each entry does at once
    bilinear = (u[:, :, None] * states[:, None, :]).reshape(T, m * n)
    for name, signal in (("A", states), ("B", u), ("K", e), ("C", states), ("D", u), ("N", bilinear)):
        if name in at and parts[name].size:
            target, sign = (direct, -1) if name in "CD" else (drive, 1)
            block = target[:, :, at[name]]
            if name == "N":  # entries are ordered (input, row, column)
                block = block.reshape(T, n, m, n, n)
                for i in range(n):
                    block[:, i, :, i, :] = bilinear.reshape(T, m, n)
                target[:, :, at[name]] = block.reshape(T, n, -1)
            else:
                width = signal.shape[1]
                for i in range(target.shape[1]):
                    block[:, i, i * width : (i + 1) * width] = sign * signal
    if "c" in at:
        direct[:, :, at["c"]] = -np.eye(p)
    drive += K @ direct
    first, closed = np.zeros((n, ends[-1])), A - K @ C
    if "x0" in at:
        first[:, at["x0"]] = np.eye(n)
    if len(N):
        closed = closed + np.tensordot(u, N, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        return direct - C @ recursion(closed, drive, first)[:-1]


def refine(
    parts: dict[str, Array], y: Array, u: Array, free: Sequence[str], rounds: int = 0, steps: int = 60
) -> dict[str, Array]:
    """The matrices with the least squared errors, starting from `parts`; `free` names those that may change.

    `y` (T, p) and `u` (T, m) are centred; columns should be of like size. In each of the `rounds` that follow, errors
    are weighted by R^(-1/2) of the round before: the limit is the maximum of a Gaussian likelihood, which is the best
    where the model is right, and not the best fit where it is not.
    """
    free = [name for name in free if parts[name].size]
    sizes = np.cumsum([parts[name].size for name in free])[:-1]

    def at(theta):
        return parts | {name: v.reshape(parts[name].shape) for name, v in zip(free, np.split(theta, sizes))}

    def residual(theta, weight):
        now = at(theta)
        if spectral_radius(now["A"] - now["K"] @ now["C"]) >= 1:
            return np.full(y.size, HUGE)
        e, _ = errors(now, y, u)
        return np.clip(np.nan_to_num(e @ weight, nan=HUGE, posinf=HUGE, neginf=-HUGE), -HUGE, HUGE).ravel()

    def jacobian(theta, weight):
        now = at(theta)
        e, states = errors(now, y, u)
        weighted = np.einsum("tpk,pq->tqk", sensitivities(now, free, e, states, u), weight)
        return np.nan_to_num(weighted, nan=0.0, posinf=HUGE, neginf=-HUGE).reshape(-1, len(theta))

    theta, weight = np.concatenate([parts[name].ravel() for name in free]), np.eye(y.shape[1])
    method = "lm" if y.size >= len(theta) else "trf"
    for round in range(rounds + 1):
        if round:
            e, _ = errors(at(theta), y, u)
            R = e.T @ e / len(e)
            weight = np.linalg.cholesky(np.linalg.inv(R + 1e-9 * np.trace(R) / len(R) * np.eye(len(R))))
        limits = {"max_nfev": steps, "xtol": 1e-6, "ftol": 1e-6}
        theta = least_squares(residual, theta, jacobian, method=method, args=(weight,), **limits).x
    return at(theta)


__all__ = ["errors", "refine", "sensitivities"]
