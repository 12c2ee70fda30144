"""Dynamic textures: a clip as a picture that a small stochastic system paints (Doretto, Chiuso, Wu, Soatto 2003).

T frames of P numbers (height x width x colours), n states:

    x_{t+1} = A x_t + w_t,  w_t of covariance Q      y_t = mean + C x_t + grain_t      C (P, n), C^T C = I

C and the states are the first n singular vectors of the frames less their mean; A and Q are fitted to the states so that
no eigenvalue of A is further out than 1 - 1/(2 T), and the states' covariance Sigma is that of the clip.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from .. import files
from ..machine import check_fits
from ..spelling import choose
from .realization.backward import backward
from .realization.linear import Markov, root, symmetric

Array = np.ndarray
BLOCK = 2**16  # pixels at once


@dataclass(frozen=True, eq=False)
class Texture:
    """What was learnt from a clip. Frames are (height, width, 3), 0 to 255."""

    shape: tuple[int, int, int]
    mean: Array  # (P,)
    C: Array  # (P, n)
    A: Array  # (n, n)
    Sigma: Array  # (n, n)
    states: Array  # (T, n), of the clip
    grain: Array  # (P,), the spread of what the states leave unexplained
    rate: float  # frames a second

    @property
    def order(self) -> int:
        return len(self.A)

    @property
    def Q(self) -> Array:
        """Sigma - A Sigma A^T (n, n), without the negative part that rounding or a fractional speed may bring."""
        half = root(self.Sigma - self.A @ self.Sigma @ self.A.T)
        return half @ half.T

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
    if not 1 <= order <= (T - 1) // 2:
        raise ValueError(f"order: expected 1 to {max((T - 1) // 2, 0)}, what {T} frames can carry, got {order}")
    flat = frames.reshape(T, -1)
    P = flat.shape[1]
    mean, gram = np.empty(P, np.float32), np.zeros((T, T))
    for at in range(0, P, BLOCK):
        part = flat[:, at : at + BLOCK].astype(np.float32)
        mean[at : at + BLOCK] = part.mean(0)
        part -= mean[at : at + BLOCK]
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    values, V = values[::-1][:order], vectors[:, ::-1][:, :order]
    if values[0] <= 1e-6 * P * T:
        raise ValueError("expected frames that change, got the same picture in all of them")
    if values[-1] <= 1e-10 * values[0]:
        carried = int((values > 1e-10 * values[0]).sum())
        raise ValueError(f"order: expected at most {carried}, all that these frames span, got {order}")
    X = V * np.sqrt(values)
    C, grain = np.empty((P, order), np.float32), np.empty(P, np.float32)
    for at in range(0, P, BLOCK):
        part = flat[:, at : at + BLOCK].astype(np.float32) - mean[at : at + BLOCK]
        C[at : at + BLOCK] = part.T @ (V / np.sqrt(values))
        grain[at : at + BLOCK] = (part - X @ C[at : at + BLOCK].T).std(0)
    A, Sigma = _dynamics(X)
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

    A negative eigenvalue without a partner has no real power: it becomes r^s cos(pi s).
    """
    if not 0 < speed < np.inf:
        raise ValueError(f"speed: expected a number above 0, got {speed:g}")
    values, vectors = np.linalg.eig(texture.A)
    powers = np.where(values == 0, 0, np.exp(speed * np.log(np.where(values == 0, 1, values.astype(complex)))))
    A = (vectors @ (powers[:, None] * np.linalg.inv(vectors))).real
    return replace(texture, A=A)


def states(texture: Texture, rng: np.random.Generator, reverse: bool = False) -> Iterator[Array]:
    """States (n,) without end, from the one after the clip's last; with `reverse` from the one before its first.

    Backwards runs the backward model, y_t = G^T xbar_t + vbar_t: a process of its own, not frames played in reverse.
    """
    model = texture.dynamics
    n, x = texture.order, texture.A @ texture.states[-1] + root(texture.Q) @ rng.standard_normal(texture.order)
    if reverse:
        model = backward(model)
        x = np.linalg.solve(texture.Sigma, texture.states[0])
    half = root(np.block([[model.Q, model.S], [model.S.T, model.R]]))
    while True:
        noise = half @ rng.standard_normal(2 * n)
        yield model.C @ x + noise[n:]
        x = model.A @ x + noise[:n]


def synthesise(
    texture: Texture, rng: np.random.Generator, speed: float = 1.0, reverse: bool = False, grain: bool = True
) -> Iterator[Array]:
    """Frames (height, width, 3) as bytes, without end."""
    texture = texture if speed == 1 else at_speed(texture, speed)
    for x in states(texture, rng, reverse):
        frame = texture.mean + texture.C @ x.astype(np.float32)
        if grain:
            frame += texture.grain * rng.standard_normal(len(frame), np.float32)
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8).reshape(texture.shape)


CODECS = {
    ".mp4": ("mp4", "libx264", "yuv420p"),
    ".m4v": ("mp4", "libx264", "yuv420p"),
    ".mov": ("mov", "libx264", "yuv420p"),
    ".mkv": ("matroska", "libx264", "yuv420p"),
    ".webm": ("webm", "libvpx-vp9", "yuv420p"),
    ".avi": ("avi", "mpeg4", "yuv420p"),
    ".gif": ("gif", "gif", "rgb8"),
}


def read(path: str | Path, most: int, width: int | None = None) -> tuple[Array, float]:
    """At most so many frames of a video (T, height, width, 3) as bytes, even in size, and frames a second.

    `width` scales it down. ValueError when it cannot be decoded.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    frames = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: expected a video, got a file without pictures")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            for frame in container.decode(stream):
                wide, high = frame.width, frame.height
                if width and width < wide:
                    wide, high = width, round(high * width / wide)
                wide, high = max(wide - wide % 2, 2), max(high - high % 2, 2)
                check_fits(
                    20 * (len(frames) + 1) * wide * high, f"{path}: frames of {wide} x {high}, and what is learnt"
                )
                frames.append(frame.to_ndarray(format="rgb24", width=wide, height=high))
                if len(frames) == most:
                    break
    except av.FFmpegError as error:
        if not frames:
            raise ValueError(f"{path}: expected a video, got what cannot be decoded ({error.strerror})") from None
    if not frames:
        raise ValueError(f"{path}: expected a video, got no frame")
    return np.stack(frames), rate


def write(path: str | Path, suffix: str, frames: Iterable[Array], rate: float) -> tuple[int, bool]:
    """Frames as they come into the file `path`, coded as `suffix` says; how many, and whether an interrupt (Ctrl-C)
    ended them. The file is whole either way.
    """
    import av

    form, codec, pixels = choose("suffix", suffix.lower(), CODECS)
    written, interrupted, stream = 0, False, None
    with av.open(str(path), "w", format=form) as container:
        try:
            for picture in frames:
                if stream is None:
                    stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
                    stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], pixels
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                written += 1
        except KeyboardInterrupt:
            interrupted = True
        if stream is not None:
            container.mux(stream.encode())
    return written, interrupted


def picture(clip: Array, made: Array, columns: int = 6) -> Array:
    """Frames of the clip above, synthesised ones below (height, width, 3), evenly taken from each."""
    rows = [np.concatenate([z[i] for i in np.linspace(0, len(z) - 1, columns).astype(int)], 1) for z in (clip, made)]
    return np.concatenate([rows[0], np.full((4, *rows[0].shape[1:]), 255, np.uint8), rows[1]])


def write_png(path: str | Path, pixels: Array) -> None:
    """One picture (height, width, 3)."""
    import av

    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *pixels.shape[:2], "rgb24", Fraction(1, 25)
    packets = (
        encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")) + encoder.encode()
    )
    files.write(path, b"".join(bytes(packet) for packet in packets))


__all__ = ["CODECS", "Texture", "at_speed", "learn", "picture", "read", "states", "synthesise", "write", "write_png"]
