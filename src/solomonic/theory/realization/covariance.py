"""Stationary models and their covariances L_k = E y_{t+k} y_t^T = C A^(k-1) G.

Realization of a model from exact covariances (Akaike 1975), its innovations form, and the exact canonical correlations
and information between the whole past and the whole future.
"""

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from .linear import Linear, Markov, spectral_radius, symmetric
from .subspace import gain

Array = np.ndarray


def sample_covariances(y: Array, lags: int) -> Array:
    """The covariances L_0 ... L_lags (lags + 1, p, p) of a series (T, p) about its mean, each sum divided by T."""
    y = np.asarray(y, dtype=float)
    y = y - y.mean(0)
    return np.array([y[k:].T @ y[: len(y) - k] / len(y) for k in range(lags + 1)])


def realize_covariances(L: Array, order: int) -> Linear:
    """The innovations form of a model with the covariances L_0 ... L_{2 l} (2 l + 1, p, p), l p >= order.

    The block Hankel matrix H of L_1, L_2, ... is normalised by the factors of the covariance of the future (L_+) and
    of the past (L_-): L_+^-1 H L_-^-T = U S V^T, A = S^-1/2 U^T L_+^-1 H_shift L_-^-T V S^-1/2. ValueError where the
    covariances are no model's of this order (the Riccati equation has no stabilising solution).
    """
    L = np.asarray(L, dtype=float)
    lags, p = (len(L) - 1) // 2, L.shape[1]
    if order > lags * p or order < 1:
        raise ValueError(f"order: expected 1 to {lags * p} for {len(L)} covariances of {p} outputs, got {order}")

    def block(entry):
        return np.block([[entry(i, j) for j in range(lags)] for i in range(lags)])

    def at(k):
        return L[k] if k >= 0 else L[-k].T

    H, shift = block(lambda i, j: L[i + j + 1]), block(lambda i, j: L[i + j + 2])
    Lf = cholesky(block(lambda i, j: at(i - j)), lower=True)  # cov of (y_t, y_{t+1}, ...)
    Lp = cholesky(block(lambda i, j: at(j - i)), lower=True)  # cov of (y_{t-1}, y_{t-2}, ...)

    def normalised(M):
        return solve_triangular(Lf, solve_triangular(Lp, M.T, lower=True).T, lower=True)

    U, s, Vt = np.linalg.svd(normalised(H))
    U, s, V = U[:, :order], s[:order], Vt[:order].T
    A = (U / np.sqrt(s)).T @ normalised(shift) @ (V / np.sqrt(s))
    C = (Lf @ U)[:p] * np.sqrt(s)
    G = (np.sqrt(s)[:, None] * (Lp @ V).T)[:, :p]
    return from_lags(A, C, G, L[0])


def from_lags(A: Array, C: Array, G: Array, L0: Array) -> Linear:
    """The innovations form of the covariances L_0, C A^(k-1) G. P = A P A^T + (G - A P C^T) D^-1 (.)^T, D = L_0 - C P C^T."""
    K, R = gain(Markov(A, C, np.zeros_like(A), -G, -symmetric(L0)), floor=0.0)
    model = Linear(A, None, C, None, K, -R)
    size = np.sqrt(np.diag(L0))  # each output in its own unit
    if spectral_radius(A) < 1 and np.linalg.eigvalsh(-R / np.outer(size, size)).min() > 0:
        G, L0 = G / size, L0 / np.outer(size, size)
        realized = model.noise.next_output / size, model.noise.covariances(0)[0] / np.outer(size, size)
        if all(np.allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b).max()) for a, b in zip(realized, (G, L0))):
            return model
    raise ValueError("expected covariances of a stationary model, got some that none has: another order or more data")


def innovations_form(model: Markov) -> Linear:
    """The model of the same covariances that is driven by its innovations alone."""
    K, R = gain(model)
    return Linear(model.A, None, model.C, None, K, R)


def canonical_correlations(model: Linear) -> Array:
    """The canonical correlations (n,) of the whole past and the whole future of a stationary model's noise, largest first.

    s_i^2 are the eigenvalues of P Pbar: P the covariance of the state in the forward innovations form, Pbar in the
    backward one, in dual bases.
    """
    forward, backward = innovation_covariances(model)
    values = np.linalg.eigvals(forward @ backward).real
    return np.sqrt(np.clip(np.sort(values)[::-1], 0, 1))


def innovation_covariances(model: Linear) -> tuple[Array, Array]:
    """P and Pbar (n, n): the covariances of the state that the past, and the future, predict."""
    noise = model.noise
    P = noise.state_covariance
    L0 = noise.covariances(0)[0]
    reverse = from_lags(noise.A.T, noise.next_output.T, noise.C.T, L0)
    return P, reverse.noise.state_covariance


def information(model: Linear) -> float:
    """Mutual information of the whole past and the whole future, in nats: -1/2 sum log(1 - s_i^2)."""
    return float(-0.5 * np.log1p(-(np.minimum(canonical_correlations(model), 1 - 1e-15) ** 2)).sum())


__all__ = [
    "canonical_correlations",
    "from_lags",
    "information",
    "innovation_covariances",
    "innovations_form",
    "realize_covariances",
    "sample_covariances",
]
