"""Linear models in state space.

n states, m inputs, p outputs, T rows: x (T, n), u (T, m), y (T, p), e (T, p); row t is the time t.

    x_{t+1} = A x_t + B u_t + K e_t          A (n, n)  B (n, m)  K (n, p)
    y_t     = C x_t + D u_t + e_t            C (p, n)  D (p, m)  E e_t e_t^T = R (p, p)

This is the innovations form: e_t is what the past did not say about y_t, K is the Kalman gain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

Array = np.ndarray
FADED = 1e-12  # of the first state's share in the outputs at first: what comes after it tells nothing more
FINEST = 1e-6


@dataclass(frozen=True, eq=False, init=False)
class Linear:
    """A model in innovations form. y and u in its methods are in the data's units: the means are taken off and put back.

    `B` and `D` may be None (no inputs), and so may `K` (output error) and the means (zero). ValueError for shapes that do
    not fit together.
    """

    A: Array
    B: Array
    C: Array
    D: Array
    K: Array
    R: Array
    y_mean: Array  # (p,)
    u_mean: Array  # (m,)
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]

    def __init__(
        self,
        A: Array,
        B: Array | None,
        C: Array,
        D: Array | None,
        K: Array | None,
        R: Array,
        y_mean: Array | None = None,
        u_mean: Array | None = None,
        *,
        outputs: Sequence[str] = (),
        inputs: Sequence[str] = (),
    ):
        n, p = np.shape(A)[0], np.shape(C)[0]
        m = next((np.shape(M)[1] for M in (B, D) if M is not None), 0)
        arrays: dict[str, tuple[Array | None, tuple[int, ...]]] = {
            "A": (A, (n, n)),
            "B": (B, (n, m)),
            "C": (C, (p, n)),
            "D": (D, (p, m)),
            "K": (K, (n, p)),
            "R": (R, (p, p)),
            "y_mean": (y_mean, (p,)),
            "u_mean": (u_mean, (m,)),
        }
        for name, (array, shape) in arrays.items():
            value = np.zeros(shape) if array is None else np.array(array, dtype=float)
            if value.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
            object.__setattr__(self, name, value)
        for name, names, letter, count in (("outputs", outputs, "y", p), ("inputs", inputs, "u", m)):
            names = tuple(names) or tuple(f"{letter}{i + 1}" for i in range(count))
            if len(names) != count:
                raise ValueError(f"{name}: expected {count} names, got {len(names)}")
            object.__setattr__(self, name, names)

    @property
    def order(self) -> int:
        return len(self.A)

    @property
    def poles(self) -> Array:
        """Eigenvalues of A, largest modulus first."""
        poles = np.linalg.eigvals(self.A)
        return poles[np.argsort(-np.abs(poles), kind="stable")]

    @property
    def stable(self) -> bool:
        return spectral_radius(self.A) < 1

    @property
    def noise(self) -> "Markov":
        """The model of the part of the outputs that no input explains."""
        return Markov(self.A, self.C, self.K @ self.R @ self.K.T, self.K @ self.R, self.R)

    def transformed(self, T: Array) -> "Linear":
        """The same model with the state x' = T^-1 x."""
        back = np.linalg.inv(T)
        return replace(self, A=back @ self.A @ T, B=back @ self.B, C=self.C @ T, K=back @ self.K)

    def predict(self, y: Array, u: Array | None = None, x0: Array | None = None) -> tuple[Array, Array]:
        """One-step predictions (T, p) of y_t from u_t and everything before t, and the states (T + 1, n).

        `x0` None: the first state is `initial_state`, which makes the squared errors least.
        """
        y, u = self.centred(y, u)
        return filtered(self, y, u, x0, self.y_mean)

    def innovations(self, y: Array, u: Array | None = None, x0: Array | None = None) -> Array:
        """y minus its one-step predictions (T, p)."""
        return np.atleast_2d(y) - self.predict(y, u, x0)[0]

    def ahead(self, y: Array, u: Array | None = None, steps: int = 1, x0: Array | None = None) -> Array:
        """Predictions (T, p) of y_t from y up to t - steps and u up to t; those of the first `steps` rows simulate."""
        if steps < 1:
            raise ValueError(f"steps: expected a whole number >= 1, got {steps}")
        y, u = self.centred(y, u)
        _, states = filtered(self, y, u, x0)
        predicted = np.empty_like(y)
        start = min(steps, len(y))
        predicted[:start] = simulated(self, states[0], u[:start])[0]
        x = states[1 : len(y) - steps + 1]  # what is known before row t, for each t at once
        for k in range(steps - 1):
            x = x @ self.A.T + u[1 + k : 1 + k + len(x)] @ self.B.T
        predicted[steps:] = x @ self.C.T + u[steps:] @ self.D.T
        return predicted + self.y_mean

    def simulate(self, u: Array | int, x0: Array | None = None, rng: np.random.Generator | None = None) -> Array:
        """Outputs (T, p) from the inputs u (T, m), or, without inputs, for `u` rows; `rng` adds the noise.

        `x0` None: the first state is zero, or, with `rng` and without inputs, drawn from the stationary distribution.
        """
        rows = u if isinstance(u, (int, np.integer)) else len(u)
        centred = np.zeros((rows, 0)) if isinstance(u, (int, np.integer)) else columns(u, "u") - self.u_mean
        if centred.shape[1] != self.B.shape[1]:
            raise ValueError(f"u: expected {self.B.shape[1]} inputs, got {centred.shape[1]}")
        if x0 is None:
            x0 = np.zeros(self.order)
            if rng is not None and self.stable and not self.B.shape[1]:
                x0 = root(self.noise.state_covariance) @ rng.standard_normal(self.order)
        e = None if rng is None else rng.standard_normal((rows, len(self.C))) @ root(self.R).T
        return simulated(self, x0, centred, e)[0] + self.y_mean

    def initial_state(self, y: Array, u: Array | None = None) -> Array:
        """The first state (n,) that makes the squared one-step errors least, each output's in units of its noise."""
        return initial(self, *self.centred(y, u))

    def centred(self, y: Array, u: Array | None = None) -> tuple[Array, Array]:
        """y and u, zeros (T, 0) for None, less their means. ValueError for other shapes than the model has."""
        y = columns(y, "y")
        u = np.zeros((len(y), 0)) if u is None else columns(u, "u")
        if u.shape != (len(y), self.B.shape[1]) or y.shape[1] != len(self.C):
            raise ValueError(
                f"expected y with {len(self.C)} columns and u with {self.B.shape[1]}, as many rows each;"
                f" got {y.shape} and {u.shape}"
            )
        return y - self.y_mean, u - self.u_mean


@dataclass(frozen=True, eq=False)
class Markov:
    """A stochastic model with general noise, driven by white (w_t, v_t) of covariance [[Q, S], [S^T, R]].

    x_{t+1} = A x_t + w_t,  y_t = C x_t + v_t;  Q (n, n), S (n, p), R (p, p).
    """

    A: Array
    C: Array
    Q: Array
    S: Array
    R: Array

    @property
    def state_covariance(self) -> Array:
        """Sigma = A Sigma A^T + Q (n, n). ValueError for an unstable model, which has none."""
        if (radius := spectral_radius(self.A)) >= 1:
            raise ValueError(
                f"expected a stable model, got a pole of modulus {radius:.6g}: a stationary state needs < 1"
            )
        return symmetric(solve_discrete_lyapunov(self.A, self.Q))

    @property
    def next_output(self) -> Array:
        """G = E x_{t+1} y_t^T = A Sigma C^T + S (n, p)."""
        return self.A @ self.state_covariance @ self.C.T + self.S

    def covariances(self, lags: int) -> Array:
        """L_k = E y_{t+k} y_t^T for k = 0 ... lags (lags + 1, p, p): L_0 = C Sigma C^T + R, L_k = C A^(k-1) G."""
        covariances, x = [symmetric(self.C @ self.state_covariance @ self.C.T + self.R)], self.next_output
        for _ in range(lags):
            covariances.append(self.C @ x)
            x = self.A @ x
        return np.array(covariances)

    def sample(self, rows: int, rng: np.random.Generator, x0: Array | None = None) -> Array:
        """Outputs (rows, p) from the stationary state, or from `x0`."""
        n = len(self.A)
        x = root(self.state_covariance) @ rng.standard_normal(n) if x0 is None else x0
        noise = rng.standard_normal((rows, n + len(self.C))) @ root(np.block([[self.Q, self.S], [self.S.T, self.R]])).T
        states = np.empty((rows, n))
        for t in range(rows):
            states[t] = x
            x = self.A @ x + noise[t, :n]
        return states @ self.C.T + noise[:, n:]


def filtered(model: Linear, y: Array, u: Array, x0: Array | None, offset: Array | float = 0.0) -> tuple[Array, Array]:
    """The predictor x_{t+1} = A x_t + B u_t + K (y_t - C x_t - D u_t) over centred data."""
    x = initial(model, y, u) if x0 is None else np.asarray(x0, dtype=float)
    closed = model.A - model.K @ model.C
    drive = y @ model.K.T + u @ (model.B - model.K @ model.D).T
    states = recursion(closed, drive, x)
    return states[:-1] @ model.C.T + u @ model.D.T + offset, states


def simulated(model: Linear, x0: Array, u: Array, e: Array | None = None) -> tuple[Array, Array]:
    """Outputs and states for centred inputs and, where there are any, innovations e."""
    drive = u @ model.B.T + (0 if e is None else e @ model.K.T)
    states = recursion(model.A, drive, np.asarray(x0, dtype=float))
    return states[:-1] @ model.C.T + u @ model.D.T + (0 if e is None else e), states


def initial(model: Linear, y: Array, u: Array) -> Array:
    """The least-squares first state: errors are linear in it, with C (A - K C)^t as coefficients.

    Errors of an output are divided by the deviation of its noise, R's diagonal, but by FINEST of the largest error at least.
    """
    predicted, _ = filtered(model, y, u, np.zeros(model.order))
    left = y - predicted
    size = np.maximum(np.sqrt(np.maximum(np.diag(model.R), 0)), FINEST * np.abs(left).max(0, initial=0.0))
    size = np.where(size > 0, size, np.abs(model.C).max(1, initial=0.0))
    weight = 1 / np.where(size > 0, size, 1.0)
    closed, rows, M = model.A - model.K @ model.C, [], model.C
    first = np.abs(weight[:, None] * M).max(initial=0)
    for _ in range(len(y)):
        rows.append(weight[:, None] * M)
        M = M @ closed
        if not first * FADED <= np.abs(weight[:, None] * M).max(initial=0) <= first / FADED:
            break
    used = len(rows)
    return np.linalg.lstsq(np.concatenate(rows), (left * weight)[:used].ravel(), rcond=None)[0]


def recursion(A: Array, drive: Array, x0: Array) -> Array:
    """x_0 = x0, x_{t+1} = A_t x_t + drive_t for vectors (T + 1, n) or matrices (T + 1, n, k); A (n, n) or (T, n, n)."""
    states = np.empty((len(drive) + 1, *np.shape(x0)))
    states[0] = x = x0
    with np.errstate(over="ignore", invalid="ignore"):
        for t, d in enumerate(drive):
            states[t + 1] = x = (A[t] if A.ndim == 3 else A) @ x + d
    return states


def columns(values: Array, name: str) -> Array:
    """(T,) or (T, k) as floats (T, k)."""
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ValueError(f"{name}: expected rows of numbers, got shape {values.shape}")
    return values


def spectral_radius(A: Array) -> float:
    return float(np.abs(np.linalg.eigvals(A)).max(initial=0.0))


def symmetric(M: Array) -> Array:
    return (M + M.T) / 2


def root(M: Array) -> Array:
    """L with L L^T = M for a positive semidefinite M; negative eigenvalues, of rounding, count as zero."""
    values, vectors = np.linalg.eigh(symmetric(M))
    return vectors * np.sqrt(np.clip(values, 0, None))


def power_of_two(size: Array) -> Array:
    """e with 2^(e-1) <= size < 2^e. Division by 2^e rounds nothing, and squares then neither overflow nor vanish."""
    return np.frexp(size)[1]


def spread(values: Array) -> Array:
    """The standard deviation of each column (T, k) -> (k,), of numbers as small or large as floats can be."""
    unit = power_of_two(np.abs(values).max(0, initial=0.0))
    return np.ldexp(np.ldexp(values, -unit).std(0), unit)


def fit(y: Array, predicted: Array) -> Array:
    """100 (1 - ||y - predicted|| / ||y - mean||) of each column (p,): 100 is perfect, 0 no better than the mean.

    NaN of a constant column, where there is nothing to explain; -inf of a prediction that overflows.
    """
    y, predicted = columns(y, "y"), columns(predicted, "predicted")
    moves = np.ptp(y, 0) > 1e-12 * np.abs(y).max(0)
    unit = power_of_two(np.abs(y).max(0, initial=0.0))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        y, predicted = np.ldexp(y, -unit), np.ldexp(predicted, -unit)
        error = np.linalg.norm(y - predicted, axis=0) / np.linalg.norm(y - y.mean(0), axis=0)
    return np.where(moves, 100 * (1 - np.where(np.isnan(error), np.inf, error)), np.nan)


__all__ = ["Linear", "Markov", "fit"]
