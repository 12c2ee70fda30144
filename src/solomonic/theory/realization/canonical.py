"""Bases of the state in which a model can be read."""

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from .covariance import innovation_covariances
from .linear import Linear, root, spectral_radius, symmetric

Array = np.ndarray


def balanced(model: Linear) -> tuple[Linear, Array]:
    """The balanced form, as controllable as observable (Moore 1981), and the Hankel singular values s (n,), largest first.

    W = A W A^T + B B^T + K R K^T (unit white inputs, and the noise), M = A^T M A + C^T C: both are diag(s) after it.
    ValueError for an unstable model.
    """
    if not model.stable:
        raise ValueError(f"expected a stable model, got a pole of modulus {spectral_radius(model.A):.6g}")
    W = solve_discrete_lyapunov(model.A, model.B @ model.B.T + model.K @ model.R @ model.K.T)
    M = solve_discrete_lyapunov(model.A.T, model.C.T @ model.C)
    T, s = _balance(W, M)
    return model.transformed(T), s


def stochastically_balanced(model: Linear) -> tuple[Linear, Array]:
    """The form in which P = Pbar = diag(s), and s, the canonical correlations of past and future (Desai and Pal 1984)."""
    T, s = _balance(*innovation_covariances(model))
    return model.transformed(T), s


def controllable(model: Linear) -> Linear:
    """Luenberger's controllable form (1967); with one input, A's first row has the characteristic polynomial's
    coefficients, ones are below its diagonal and B = (1, 0, ..., 0)^T. Without inputs K takes the place of B.

    ValueError when no input reaches some of the states.
    """
    drive = model.B if model.B.shape[1] else model.K
    n, m = drive.shape
    basis: dict[tuple[int, int], Array] = {}  # A^k b_i that reach a new state, by (i, k)
    lengths, reached = [0] * m, np.zeros((n, 0))
    size = np.linalg.norm(drive, axis=0)
    alive = [i for i in range(m) if size[i] > 0]
    vectors = {i: drive[:, i] for i in alive}
    while alive and reached.shape[1] < n:
        for i in list(alive):
            v = vectors[i]
            rest = v - reached @ np.linalg.lstsq(reached, v, rcond=None)[0] if reached.shape[1] else v
            if reached.shape[1] == n or np.linalg.norm(rest) <= 1e-9 * max(float(np.linalg.norm(v)), 1e-300):
                alive.remove(i)
                continue
            basis[i, lengths[i]] = v
            lengths[i] += 1
            reached = np.column_stack([reached, v])
            vectors[i] = model.A @ v
    if reached.shape[1] < n:
        raise ValueError(
            f"expected inputs that reach all {n} states, got {reached.shape[1]}: take the balanced form, or a lower order"
        )
    order = [(i, k) for i in range(m) for k in range(lengths[i])]
    ends = np.cumsum([length for length in lengths if length])
    inverse = np.linalg.inv(np.column_stack([basis[key] for key in order]))
    rows: list[Array] = []
    start = 0
    for end in ends:
        row, block = inverse[end - 1], []
        for _ in range(end - start):
            block.append(row)
            row = row @ model.A
        rows += block[::-1]
        start = end
    return model.transformed(np.linalg.inv(np.array(rows)))


def _balance(W: Array, M: Array) -> tuple[Array, Array]:
    """T with T^-1 W T^-T = T^T M T = diag(s)."""
    Lw, Lm = root(symmetric(W)), root(symmetric(M))
    _, s, Vt = np.linalg.svd(Lm.T @ Lw)
    if s[-1] <= 1e-12 * s[0]:
        raise ValueError(
            "expected a minimal model, got states that nothing reaches or that no output shows: lower the order"
        )
    return Lw @ Vt.T / np.sqrt(s), s


__all__ = ["balanced", "controllable", "stochastically_balanced"]
