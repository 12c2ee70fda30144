"""Systems whose inputs also change the dynamics.

x_{t+1} = (A + sum_i u_ti N_i) x_t + B u_t + K e_t,    y_t = C x_t + D u_t + e_t,    N (m, n, n)
"""

from dataclasses import dataclass

import numpy as np

from .linear import Linear, initial, recursion, root
from .prediction_error import errors

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Bilinear:
    """`linear` and, for each input, what it adds to A. N = 0 is `linear` itself.

    A centred input near zero keeps the linear part's stability; with large ones the model may grow without bound.
    """

    linear: Linear
    N: Array  # (m, n, n)

    def __post_init__(self):
        n, m = self.linear.order, self.linear.B.shape[1]
        N = np.array(self.N, dtype=float)
        if N.shape != (m, n, n):
            raise ValueError(f"N: expected shape {(m, n, n)}, got {N.shape}")
        object.__setattr__(self, "N", N)

    def predict(self, y: Array, u: Array, x0: Array | None = None) -> tuple[Array, Array]:
        """One-step predictions (T, p) and states (T, n). `x0` None: they begin at the linear part's first state."""
        y, u = self.linear.centred(y, u)
        x0 = initial(self.linear, y, u) if x0 is None else x0
        e, states = errors(self.parts(x0), y, u)
        return y - e + self.linear.y_mean, states

    def simulate(self, u: Array, x0: Array | None = None, rng: np.random.Generator | None = None) -> Array:
        """Outputs (T, p) for the inputs alone; `rng` adds the noise."""
        rows = len(u)
        _, u = self.linear.centred(np.zeros((rows, len(self.linear.C))), u)
        M, x = self.linear, np.zeros(self.linear.order) if x0 is None else x0
        e = np.zeros((rows, len(M.C))) if rng is None else rng.standard_normal((rows, len(M.C))) @ root(M.R).T
        states = recursion(M.A + np.tensordot(u, self.N, 1), u @ M.B.T + e @ M.K.T, x)[:-1]
        return states @ M.C.T + u @ M.D.T + e + M.y_mean

    def parts(self, x0: Array) -> dict[str, Array]:
        M = self.linear
        return {"A": M.A, "B": M.B, "C": M.C, "D": M.D, "K": M.K, "N": self.N, "x0": np.asarray(x0, dtype=float)}


__all__ = ["Bilinear"]
