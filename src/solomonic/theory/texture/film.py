"""Frames into a file: videos as they are made, and pictures."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..._utils import files
from ..._utils.spelling import choose

Array = np.ndarray
CODECS = {
    ".mp4": ("mp4", "libx264", "yuv420p"),
    ".m4v": ("mp4", "libx264", "yuv420p"),
    ".mov": ("mov", "libx264", "yuv420p"),
    ".mkv": ("matroska", "libx264", "yuv420p"),
    ".webm": ("webm", "libvpx-vp9", "yuv420p"),
    ".avi": ("avi", "mpeg4", "yuv420p"),
    ".gif": ("gif", "gif", "rgb8"),
}
MOST = {".gif": 50.0}  # frames a second: its clock has hundredths, and viewers take one hundredth for ten


def write(path: str | Path, suffix: str, frames: Iterable[Array], rate: float) -> tuple[int, bool]:
    """Write `frames` as they come to the file `path`, in the codec of `suffix`.

    Returns their number, and whether an interrupt (Ctrl-C) ended them; the file is whole either way. ValueError for frames
    or a rate that the codec does not take.
    """
    import av

    suffix = suffix.lower()
    form, codec, pixels = choose("suffix", suffix, CODECS)
    if rate > MOST.get(suffix, np.inf):
        raise ValueError(f"expected at most {MOST[suffix]:g} frames a second, all that {suffix} has, got {rate:g}")
    written, interrupted, stream = 0, False, None
    try:
        with av.open(str(path), "w", format=form) as container:
            try:
                for picture in frames:
                    if stream is None:
                        stream = container.add_stream(codec, rate=_fraction(rate))
                        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], pixels
                        if pixels == "yuv420p":
                            stream.codec_context.colorspace, stream.codec_context.color_range = (
                                6,
                                1,
                            )  # BT.601, 16 to 235
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    written += 1
            except KeyboardInterrupt:
                interrupted = True
            if stream is not None:
                container.mux(stream.encode())
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        size = f"{stream.width} x {stream.height}" if stream is not None else "no size"
        raise ValueError(
            f"expected frames that {codec} can code, got {size} at {rate:g} a second ({error.strerror}); another suffix, "
            "or --width, may do"
        ) from None
    return written, interrupted


def _fraction(rate: float) -> Fraction:
    """The rate with a numerator and a denominator that MPEG-4 can write."""
    if rate < 1:
        return 1 / _fraction(1 / rate)
    return Fraction(rate).limit_denominator(max(1, min(1001, int(65535 / rate))))


def picture(clip: Sequence[Array], made: Sequence[Array]) -> Array:
    """Frames of the clip (height, width, 3) in a row above as many synthesised ones, the last of which is repeated where
    there are fewer.
    """
    rows = [np.concatenate(frames, 1) for frames in (clip, [*made, *[made[-1]] * (len(clip) - len(made))])]
    return np.concatenate([rows[0], np.full((4, *rows[0].shape[1:]), 255, np.uint8), rows[1]])


def write_png(path: str | Path, pixels: Array) -> None:
    """Write one picture (height, width, 3)."""
    import av

    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *pixels.shape[:2], "rgb24", Fraction(1, 25)
    packets = (
        encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")) + encoder.encode()
    )
    files.write(path, b"".join(bytes(packet) for packet in packets))


__all__ = ["CODECS", "MOST", "picture", "write", "write_png"]
