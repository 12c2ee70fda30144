"""Grain: the residuals of the states, as a Gaussian field with the clip's correlations.

Residuals of filmed clips are no white noise: neighbouring pixels, colours and frames go together. At every pixel x of a
residual frame, red follows green and blue both, as they did in the clip; what each has of its own is a field u_i that is
stationary in space, times a spread:

    green = n_1,   red = l_1 n_1 + n_2,   blue = l_2 n_1 + l_3 n_2 + n_3,   n_i(x) = spread_i(x) u_i(x)

as video coders describe film grain (Norkin and Birkbeck 2018, AV1), but with whole spectra in place of a few
autoregressive coefficients. The covariances of u_i at a distance d, in one frame and from one frame to the next,

    r_k(d) = sum_x n_i,t(x) n_i,t+k(x + d) / sum_x spread_i(x) spread_i(x + d),

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
    """A fitted model of grain. The three fields are those of green, of red beside it, and of blue beside both."""

    spread: Array  # (height, width, 3), of the fields, standard deviations
    loads: Array  # (height, width, 3): of green's in red, of green's in blue, of red's in blue
    covariances: Array  # (2, 3, 2 rows + 1, 2 columns + 1): frames apart, field, distances from 0 on, then those below
    ends: Array  # (2, height, width, 3), the fields in the clip's first and last frame
    frames: int  # of the clip
    speed: float = 1.0

    @property
    def deviation(self) -> Array:
        """Standard deviations of red, green and blue (height, width, 3)."""
        own, loads = np.square(self.spread), np.square(self.loads)
        red = loads[..., 0] * own[..., 0] + own[..., 1]
        blue = loads[..., 1] * own[..., 0] + loads[..., 2] * own[..., 1] + own[..., 2]
        return np.sqrt(np.stack([red, own[..., 0], blue], -1))

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
            yield self._mixed(self.spread * np.moveaxis(fft.irfft2(U, size)[:, :height, :width], 0, -1))

    def _mixed(self, n: Array) -> Array:
        green, red, blue = np.moveaxis(n, -1, 0)
        of_green, also_green, of_red = np.moveaxis(self.loads, -1, 0)
        return np.stack([of_green * green + red, green, also_green * green + of_red * red + blue], -1)

    def _spectra(self) -> tuple[tuple[int, int], Array, Array, Array]:
        """The size of a grid on which nothing reaches around the edges; S of mean 1, lambda and theta on half of it."""
        rows, columns = (n // 2 for n in self.covariances.shape[2:])
        size = _size(self.spread.shape, rows, columns)
        grid = np.zeros((2, 3, *size), np.float32)
        grid[:, :, _distances(rows)[:, None], _distances(columns)] = self.covariances
        S, S_1 = fft.rfft2(grid)
        S = np.maximum(S.real, 0)
        twice = slice(1, (size[1] + 1) // 2)  # columns that stand for their mirror images too
        mean = (S.sum((1, 2)) + S[..., twice].sum((1, 2)))[:, None, None] / np.float32(np.prod(size))
        mean[mean <= 0] = 1
        S /= mean
        S_1 /= mean * np.maximum(S, 1e-3)
        a = np.maximum(S_1.real, LEAST) + 1j * S_1.imag
        most = 1 - 1 / (2 * self.frames)
        return size, S, _decay(np.minimum(np.abs(a), most)).astype(np.float32), np.angle(a)


def colours(e: Array) -> tuple[Array, Array]:
    """The spread and the loads of residuals (T, pixels, 3), both (pixels, 3)."""
    red, green, blue = np.moveaxis(e, -1, 0)

    def by(a: Array, b: Array) -> Array:
        power = np.mean(b * b, 0)
        return np.divide(np.mean(a * b, 0), power, out=np.zeros_like(power), where=power > 0)

    of_green, also_green = by(red, green), by(blue, green)
    red = red - of_green * green
    of_red = by(blue, red)
    blue = blue - also_green * green - of_red * red
    return np.stack([n.std(0) for n in (green, red, blue)], -1), np.stack([of_green, also_green, of_red], -1)


def fit(residual: Callable[[int], Array], frames: int, spread: Array, loads: Array) -> Grain:
    """Fit grain to residual(t) (2, height, width, 3), the residuals of frames t and t + 1 of a clip of `frames` frames.

    `spread` and `loads` (height, width, 3) are those of all its residuals (`colours`).
    """
    height, width, _ = spread.shape

    def own(t: int) -> Array:
        red, green, blue = np.moveaxis(residual(t), -1, 0)
        red = red - loads[..., 0] * green
        return np.stack([green, red, blue - loads[..., 1] * green - loads[..., 2] * red], 1)

    third = max(min(height, width) // 3, 7)
    rows, columns = min(third, height - 1), min(third, width - 1)
    size = _size(spread.shape, rows, columns)
    sums = np.zeros((2, 3, size[0], size[1] // 2 + 1), np.complex64)
    for t in np.unique(np.linspace(0, frames - 2, min(PAIRS, frames - 1)).astype(int)):
        now, after = fft.rfft2(own(t), size)
        sums[0] += now * now.conj() + after * after.conj()
        sums[1] += 2 * after * now.conj()
    near = _distances(rows)[:, None], _distances(columns)
    count = fft.irfft2(np.abs(fft.rfft2(np.moveaxis(spread, -1, 0), size)) ** 2, size)[:, *near]
    covariances = fft.irfft2(sums, size)[:, :, *near] / np.maximum(count, 1e-6 * count[:, :1, :1] + 1e-30)
    covariances *= np.outer(_taper(rows), _taper(columns))
    variance = covariances[:1, :, :1, :1]
    covariances /= np.where(variance > 0, variance, 1)
    ends = np.moveaxis(np.stack([own(0)[0], own(frames - 2)[1]]), 1, -1)
    np.divide(ends, spread, out=ends, where=spread > 0)
    return Grain(spread, loads, covariances.astype(np.float32), ends, frames)


class _Step:
    """One step of U and V, its velocity: the new values are M (U, V) and noise of covariance I - M M^*."""

    def __init__(self, x: Array, theta: Array):
        decay, rotation = np.exp(-x), np.exp(1j * theta)
        self.M = [(decay * m * rotation).astype(np.complex64) for m in (1 + x, x, 1 - x)]
        own = 1 - decay**2 * ((1 - x) ** 2 + x**2)  # the variance of V's noise, then that of U's, and between them
        other, both = 1 - decay**2 * ((1 + x) ** 2 + x**2), 2 * (x * decay) ** 2
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


__all__ = ["Grain", "colours", "fit"]
