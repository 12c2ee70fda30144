"""Grain: what the states leave of the frames, as a Gaussian field with the clip's correlations.

Residuals of filmed clips are no white noise: neighbouring pixels, colours and frames go together. A residual frame
e (height, width, 3), its standard deviations taken apart, is a mixture of three principal colours u that are independent
of each other and stationary in space:

    e_t(x) = spread(x) * (mixing u_t(x))        mixing mixing^T = the colours' correlations

as video coders describe film grain (Norkin and Birkbeck 2018, AV1), but with whole spectra in place of a few
autoregressive coefficients. The covariances of u at a distance d, in one frame and from one frame to the next,

    r_k(d) = sum_x v_t(x) v_{t+k}(x + d) / sum_x w(x) w(x + d),    v = w u,  w = root of the colours' mean spread^2,

are cut off smoothly at a third of the frame; their Fourier transforms S and S_1 say how strong each spatial frequency
is and by how much it is left in the next frame: a = S_1 / S, complex where the grain drifts.

In time each frequency is a Gaussian process with a velocity, since what is filmed moves smoothly, drifting by theta:

    E U(t + s) U(t)^* = S (1 + lambda s) exp(-lambda s) exp(i theta s)       (1 + lambda) exp(-lambda) = |a|, theta = arg a

With U and the velocity, divided by lambda, as its state, and x = lambda s, it is a step of any length s:

    M = exp(-x) [[1 + x, x], [-x, 1 - x]] exp(i theta s),    noise of covariance S (I - M M^*).

So grain slows down with the picture. With exp(-lambda s) alone, without a velocity, grain that is hardly correlated from
frame to frame would flicker as fast at half speed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.special import lambertw

Array = np.ndarray
PAIRS = 64  # of a frame and the next, from which correlations are taken
LEAST = 0.05  # of the correlation with the next frame, its real part: less cannot be told from none


@dataclass(frozen=True, eq=False)
class Grain:
    """What was learnt. Colours are red, green, blue; principal colours are weakest first."""

    spread: Array  # (height, width, 3), standard deviations
    mixing: Array  # (3, 3), principal colours to colours
    covariances: (
        Array  # (2, 3, 2 rows + 1, 2 columns + 1): lag 0 and 1 in time, principal colour, distances from 0, then below
    )
    ends: Array  # (2, height, width, 3), principal colours in the clip's first and last frame
    frames: int  # of the clip
    speed: float = 1.0

    def fields(self, rng: np.random.Generator, reverse: bool = False) -> Iterator[Array]:
        """Residual frames (height, width, 3), float32, without end, from the one after the clip's last; with `reverse`
        from the one before its first.
        """
        height, width, _ = self.spread.shape
        size, strength, decay, drift = self._spectra()
        step = _Step(decay * self.speed, (-drift if reverse else drift) * self.speed)
        amplitude = np.sqrt(strength * (np.prod(size) / 2), dtype=np.float32)
        amplitude[..., 0] *= np.sqrt(2)  # irfft2 takes half of what is not symmetric there
        if size[1] % 2 == 0:
            amplitude[..., -1] *= np.sqrt(2)

        def noise() -> Array:
            return amplitude * rng.standard_normal((*strength.shape, 2), np.float32).view(np.complex64)[..., 0]

        field = fft.irfft2(noise(), size)
        field[:, :height, :width] = np.moveaxis(self.ends[0 if reverse else 1], -1, 0)
        U, V = fft.rfft2(field), noise()
        while True:
            U, V = step(U, V, noise(), noise())
            yield self.spread * (np.moveaxis(fft.irfft2(U, size)[:, :height, :width], 0, -1) @ self.mixing.T)

    def _spectra(self) -> tuple[tuple[int, int], Array, Array, Array]:
        """The size of a grid on which nothing reaches around the edges; S of mean 1, lambda and theta on half of it."""
        rows, columns = (n // 2 for n in self.covariances.shape[2:])
        size = _size(self.spread.shape, rows, columns)
        grid = np.zeros((2, 3, *size), np.float32)
        grid[:, :, _distances(rows)[:, None], _distances(columns)] = self.covariances
        S, S_1 = fft.rfft2(grid)
        S = np.maximum(S.real, 0)
        twice = slice(1, (size[1] + 1) // 2)  # columns that stand for their mirror images too
        mean = (S.sum((1, 2)) + S[..., twice].sum((1, 2)))[:, None, None] / np.prod(size)
        S /= np.where(mean > 0, mean, 1)
        a = S_1 / np.where(mean > 0, mean, 1) / np.maximum(S, 1e-3)
        a = np.maximum(a.real, LEAST) + 1j * a.imag
        most = 1 - 1 / (2 * self.frames)
        return size, S, _decay(np.minimum(np.abs(a), most)), np.angle(a)


def fit(residual: Callable[[int], Array], frames: int, spread: Array, correlations: Array) -> Grain:
    """From the residuals of a frame and the next, residual(t) (2, height, width, 3), of a clip of so many frames.

    `spread` (height, width, 3) are their standard deviations, `correlations` (3, 3) those between colours.
    """
    height, width, _ = spread.shape
    variances, axes = np.linalg.eigh(correlations)
    kept = variances > 1e-3
    mixing = (axes * np.sqrt(np.where(kept, variances, 0))).astype(np.float32)
    unmixing = (axes / np.sqrt(np.where(kept, variances, 1)) * kept).astype(np.float32)
    whitening = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    weight = np.sqrt(np.mean(spread**2, 2))[..., None]
    third = max(min(height, width) // 3, 7)
    rows, columns = min(third, height - 1), min(third, width - 1)
    size = _size(spread.shape, rows, columns)
    sums = np.zeros((2, 3, size[0], size[1] // 2 + 1), np.complex64)
    for t in np.unique(np.linspace(0, frames - 2, min(PAIRS, frames - 1)).astype(int)):
        now, after = fft.rfft2(np.moveaxis((residual(t) * whitening @ unmixing) * weight, -1, 1), size)
        sums[0] += now * now.conj() + after * after.conj()
        sums[1] += 2 * after * now.conj()
    near = _distances(rows)[:, None], _distances(columns)
    count = fft.irfft2(np.abs(fft.rfft2(weight[..., 0], size)) ** 2, size)[near]
    covariances = fft.irfft2(sums, size)[:, :, *near] / np.maximum(count, max(1e-6 * count[0, 0], 1e-30))
    covariances *= np.outer(_taper(rows), _taper(columns))
    own = covariances[:1, :, :1, :1]
    covariances /= np.where(own > 0, own, 1)
    ends = np.stack([residual(0)[0], residual(frames - 2)[1]]) * whitening @ unmixing
    return Grain(spread, mixing, covariances.astype(np.float32), ends, frames)


class _Step:
    """U and V, the velocity, one step on: their new values are M (U, V) and noise of covariance I - M M^*."""

    def __init__(self, x: Array, theta: Array):
        fall, turn = np.exp(-x), np.exp(1j * theta)
        self.M = [(fall * m * turn).astype(np.complex64) for m in (1 + x, x, 1 - x)]
        own = 1 - fall**2 * ((1 - x) ** 2 + x**2)  # the variance of V's noise, then that of U's, and between them
        other, both = 1 - fall**2 * ((1 + x) ** 2 + x**2), 2 * (x * fall) ** 2
        shared = both / np.sqrt(np.maximum(own, 1e-30))
        rest = np.sqrt(np.maximum(other - shared**2, 0))
        self.noise = [z.astype(np.float32) for z in (np.sqrt(np.maximum(own, 0)), shared, rest)]

    def __call__(self, U: Array, V: Array, first: Array, second: Array) -> tuple[Array, Array]:
        (stays, pushed, slows), (own, shared, rest) = self.M, self.noise
        return stays * U + pushed * V + shared * first + rest * second, slows * V - pushed * U + own * first


def _decay(a: Array) -> Array:
    """lambda with (1 + lambda) exp(-lambda) = a, for 0 < a < 1."""
    return -lambertw(-a / np.e, -1).real - 1


def _distances(most: int) -> Array:
    return np.r_[0 : most + 1, -most:0]


def _taper(most: int) -> Array:
    return (1 + np.cos(np.pi * _distances(most) / (most + 1))) / 2


def _size(shape: tuple[int, ...], rows: int, columns: int) -> tuple[int, int]:
    return fft.next_fast_len(shape[0] + rows, True), fft.next_fast_len(shape[1] + columns, True)


__all__ = ["Grain", "fit"]
