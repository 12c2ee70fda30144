"""The two memories of a linear system: what drops to nothing after a few steps, and what fades (Fitting's lemma).

A is similar to diag(N, F): N nilpotent, N^k = 0 (finite, eidetic), F invertible (fading).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import schur, solve_sylvester

from .linear import Linear

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    model: Linear  # in the new basis, the first `eidetic` states are the nilpotent ones
    eidetic: int
    steps: int  # k, the least with N^k = 0: what the eidetic memory holds, in rows
    moved: float  # the largest entry that became zero in N: how far N was from nilpotent, in the orthogonal basis

    @property
    def N(self) -> Array:
        return self.model.A[: self.eidetic, : self.eidetic]

    @property
    def F(self) -> Array:
        return self.model.A[self.eidetic :, self.eidetic :]


def split(model: Linear, tolerance: float = 1e-3) -> Split:
    """Separate the nilpotent part; eigenvalues of modulus below `tolerance` count as zero.

    A real Schur form with those first, A Z = Z [[T_N, T_12], [0, T_F]]; X with T_N X - X T_F = -T_12 separates them.
    A delay of k rows, perturbed by d, has eigenvalues of about d^(1/k): raise the tolerance for long delays.
    """
    n = model.order
    T, Z, k = schur(model.A, sort=lambda re, im: np.hypot(re, im) < tolerance)
    for i in range(k - 1):  # the large entry of a pair's block goes above the diagonal
        if abs(T[i + 1, i]) > abs(T[i, i + 1]):
            order = [*range(i), i + 1, i, *range(i + 2, n)]
            T, Z = T[np.ix_(order, order)], Z[:, order]
    N, F = T[:k, :k], T[k:, k:]
    nilpotent = np.triu(N, 1)
    moved = float(np.abs(N - nilpotent).max(initial=0.0))
    X = solve_sylvester(N, -F, -T[:k, k:]) if 0 < k < n else np.zeros((k, n - k))
    basis = Z @ np.block([[np.eye(k), X], [np.zeros((n - k, k)), np.eye(n - k)]])
    separated = model.transformed(basis)
    A = np.block([[nilpotent, np.zeros((k, n - k))], [np.zeros((n - k, k)), F]])
    steps, power = 0, np.eye(k)
    scale = max(np.abs(nilpotent).max(initial=0.0), 1e-300)
    while steps < k and np.abs(power).max(initial=0.0) > 1e-12:
        power, steps = power @ nilpotent / scale, steps + 1
    return Split(replace(separated, A=A), k, steps, moved)


__all__ = ["Split", "split"]
