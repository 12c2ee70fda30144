"""Dynamic textures: a clip as a picture that a small stochastic system paints (Doretto, Chiuso, Wu, Soatto 2003).

T frames of P numbers (height x width x colours), n states:

    x_{t+1} = A x_t + w_t,  w_t of covariance Q      y_t = mean + C x_t + grain_t      C (P, n), C^T C = I

C and the states are the first n singular vectors of the frames less their mean; A and Q are fitted to the states so that
no eigenvalue of A is further out than 1 - 1/(2 T), and the states' covariance Sigma is that of the clip. The grain is
correlated in space, colour and time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from ..._utils.machine import check_fits
from ..realization.backward import backward
from ..realization.linear import Markov, root, spectral_radius, symmetric
from .grain import Grain, colours, fit

Array = np.ndarray
BLOCK = 2**21  # numbers of the clip at once


@dataclass(frozen=True, eq=False)
class Texture:
    """What was learnt from a clip. Frames are (height, width, 3), 0 to 255."""

    shape: tuple[int, int, int]
    mean: Array  # (P,)
    C: Array  # (P, n)
    A: Array  # (n, n)
    Sigma: Array  # (n, n)
    states: Array  # (T, n), of the clip
    grain: Grain  # what the states leave unexplained
    rate: float  # frames a second

    @property
    def order(self) -> int:
        return len(self.A)

    @property
    def explained(self) -> float:
        """The share of the clip's variance that the states have."""
        states = np.trace(self.Sigma)
        return float(states / (states + np.sum(self.grain.deviation**2, dtype=float)))

    @property
    def Q(self) -> Array:
        """Sigma - A Sigma A^T (n, n), without the negative part that rounding or a fractional speed may bring.

        Without that part the states would be stronger than Sigma says: what is left is scaled to its trace.
        """
        half = root(self.Sigma - self.A @ self.Sigma @ self.A.T)
        Q = half @ half.T
        if spectral_radius(self.A) > 1 - 1e-12:  # so slow that it stands still
            return Q
        return Q * (np.trace(self.Sigma) / np.trace(solve_discrete_lyapunov(self.A, Q)))

    @property
    def dynamics(self) -> Markov:
        """The states as a stationary process."""
        n = self.order
        return Markov(self.A, np.eye(n), self.Q, np.zeros((n, n)), np.zeros((n, n)))


def learn(frames: Array, order: int, rate: float = 25.0) -> Texture:
    """From frames (T, height, width, 3), bytes or floats of 0 to 255.

    ValueError when there are fewer than 2 order + 1 frames, or frames that do not change.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"expected frames (T, height, width, 3), got shape {frames.shape}")
    T, shape = len(frames), frames.shape[1:]
    if T < 3:
        raise ValueError(f"expected at least 3 frames, got {T}")
    if not 1 <= order <= (T - 1) // 2:
        raise ValueError(f"order: expected 1 to {(T - 1) // 2}, what {T} frames can carry, got {order}")
    flat = frames.reshape(T, -1)
    P = flat.shape[1]
    check_fits(frames.nbytes + 4 * P * (order + 40), f"{T} frames of {shape[1]} x {shape[0]}, and {order} states")
    blocks = [slice(at, at + 3 * (BLOCK // (3 * T) + 1)) for at in range(0, P, 3 * (BLOCK // (3 * T) + 1))]
    mean, gram = np.empty(P, np.float32), np.zeros((T, T))
    for block in blocks:
        part = flat[:, block].astype(np.float32)
        mean[block] = part.mean(0)
        part -= mean[block]
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    values, V = values[::-1][:order], vectors[:, ::-1][:, :order]
    if values[0] <= 1e-6 * P * T:
        raise ValueError("expected frames that change, got the same picture in all of them")
    if values[-1] <= 1e-10 * values[0]:
        carried = int((values > 1e-10 * values[0]).sum())
        raise ValueError(f"order: expected at most {carried}, all that these frames span, got {order}")
    X = V * np.sqrt(values)
    loading, X32 = (V / np.sqrt(values)).astype(np.float32), X.astype(np.float32)
    C, (spread, loads) = np.empty((P, order), np.float32), np.empty((2, P), np.float32)
    for block in blocks:
        part = flat[:, block].astype(np.float32) - mean[block]
        C[block] = part.T @ loading
        part -= X32 @ C[block].T
        spread[block], loads[block] = (z.ravel() for z in colours(part.reshape(T, -1, 3)))
    A, Sigma = _dynamics(X)

    def residual(t: int) -> Array:
        pair = flat[t : t + 2].astype(np.float32) - mean - X32[t : t + 2] @ C.T
        return pair.reshape(2, *shape)

    grain = fit(residual, T, spread.reshape(shape), loads.reshape(shape))
    return Texture(shape, mean, C, A, Sigma, X, grain, rate)


def _dynamics(X: Array) -> tuple[Array, Array]:
    """A (n, n) and the states' covariance Sigma, that of the clip.

    With L_00 and L_11 the covariances of all states but the last and but the first, L_10 between them, the canonical
    correlations of a frame and the next are the singular values of L_11^-1/2 L_10 L_00^-1/2, so never above 1. From
    A = Sigma^1/2 L_11^-1/2 L_10 L_00^-1/2 Sigma^-1/2 follows A Sigma A^T <= Sigma: bounded, whatever the clip. (Least
    squares have L_00 for L_11, and no such bound.)
    """
    first, last = X[:-1], X[1:]
    rho = _power(last.T @ last, -0.5) @ (last.T @ first) @ _power(first.T @ first, -0.5)
    U, s, Vt = np.linalg.svd(rho)
    rho = U * np.minimum(s, 1 - 1 / (2 * len(X))) @ Vt
    Sigma = symmetric(X.T @ X / len(X))
    return _power(Sigma, 0.5) @ rho @ _power(Sigma, -0.5), Sigma


def _power(M: Array, exponent: float) -> Array:
    values, vectors = np.linalg.eigh(M)
    return vectors * np.maximum(values, 1e-12 * values[-1]) ** exponent @ vectors.T


def at_speed(texture: Texture, speed: float) -> Texture:
    """Slower (speed < 1) or faster: the eigenvalues r e^(i t) of A become r^s e^(i s t), Q_s = Sigma - A^s Sigma A^sT.

    A negative eigenvalue without a partner has no real power: it becomes r^s cos(pi s). The grain goes at that speed too.
    """
    if not 0 < speed < np.inf:
        raise ValueError(f"speed: expected a number above 0, got {speed:g}")
    values, vectors = np.linalg.eig(texture.A)
    powers = np.where(values == 0, 0, np.exp(speed * np.log(np.where(values == 0, 1, values.astype(complex)))))
    A = (vectors @ (powers[:, None] * np.linalg.inv(vectors))).real
    return replace(texture, A=A, grain=replace(texture.grain, speed=texture.grain.speed * speed))


def states(texture: Texture, rng: np.random.Generator, reverse: bool = False) -> Iterator[Array]:
    """States (n,) without end, from the one after the clip's last; with `reverse` from the one before its first.

    Backwards runs the backward model, y_t = G^T xbar_t + vbar_t: a process of its own, not frames played in reverse.
    """
    model = texture.dynamics
    n, x = texture.order, texture.A @ texture.states[-1] + root(texture.Q) @ rng.standard_normal(texture.order)
    if reverse:
        model = backward(model)
        x = np.linalg.solve(texture.dynamics.state_covariance, texture.states[0])
    half = root(np.block([[model.Q, model.S], [model.S.T, model.R]]))
    while True:
        noise = half @ rng.standard_normal(2 * n)
        yield model.C @ x + noise[n:]
        x = model.A @ x + noise[:n]


def synthesise(
    texture: Texture, rng: np.random.Generator, speed: float = 1.0, reverse: bool = False, grain: bool = True
) -> Iterator[Array]:
    """Frames (height, width, 3) as bytes, without end. The states are the same with and without grain."""
    texture = texture if speed == 1 else at_speed(texture, speed)
    of_states, of_grain = rng.spawn(2)
    fields = texture.grain.fields(of_grain, reverse) if grain and texture.grain.spread.any() else repeat(0)
    for x, field in zip(states(texture, of_states, reverse), fields):
        frame = (texture.mean + texture.C @ x.astype(np.float32)).reshape(texture.shape) + field
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)


__all__ = ["Texture", "at_speed", "learn", "states", "synthesise"]
