"""A clip as a player shows it: frames upright, with square pixels, evenly spaced in time.

Phones film sideways and write the rotation beside the picture, drop a frame when it is dark, and older cameras have pixels
that are wider than high. Rotation, times and aspect are applied to the frames; nothing downstream knows of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..._utils.machine import check_fits

Array = np.ndarray
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".tga", ".exr", ".jp2", ".avif")
FOLDER_RATE = 25.0  # of a folder, whose files do not say
REORDERED = 16  # places by which AVI files with frames coded out of order mistake their times, at most


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (T, height, width, 3) as bytes, even in size, and how many there are a second."""

    frames: Array
    rate: float
    remarks: tuple[str, ...] = ()  # on what could not be taken as it is


def read(path: str | Path, most: int, width: int | None = None, rate: float | None = None) -> Clip:
    """At most `most` frames of a video, or of a folder of pictures in the order of their names, numbers by value.

    `width` scales them down; `rate` is that of a folder (25). Rotation, mirroring and the shape of pixels are applied;
    uneven frame times are made even by leaving out and repeating frames. ValueError when it cannot be decoded, or when
    its frames are not of one size.
    """
    path = Path(path)
    remarks: list[str] = []
    times: list[float | None] = []
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    rates: list[float] = []
    if path.is_dir():
        source = _of_folder(path)
        rates.append(rate or FOLDER_RATE)
    elif rate is not None:
        raise ValueError(f"rate: expected a folder of frames, whose files do not say how fast they are; {path} is none")
    else:
        source = _of_video(path, rates, remarks)
    content = bytearray()
    shape: tuple[int, ...] = ()
    for name, frame, aspect in islice(source, most):
        pixels = _upright(frame, aspect, width, remarks)
        shape = shape or pixels.shape
        if pixels.shape != shape:
            raise ValueError(
                f"{path}: expected frames of one size, got {shape[1]} x {shape[0]}, and {pixels.shape[1]} x "
                f"{pixels.shape[0]} from {name} on; --frames {len(times)} takes those before"
            )
        check_fits(len(content) + pixels.size, f"{path}: {len(times) + 1} frames of {shape[1]} x {shape[0]}")
        content += pixels.data
        times.append(frame.time)
    if not times:
        raise ValueError(f"{path}: expected a video, got no frame")
    order, rate = even_times(times, rates, most, remarks)
    return Clip(_taken(content, order, shape), rate, tuple(dict.fromkeys(remarks)))


def _taken(content: bytearray, order: Array, shape: tuple[int, ...]) -> Array:
    """The frames `order` (T,), non-decreasing, of `content`, moved in place: there may be no memory for a second clip."""
    size = int(np.prod(shape))
    kept, rank = np.unique(order, return_inverse=True)
    with memoryview(content) as frames:
        for i, at in enumerate(kept):
            if i != at:
                frames[i * size : (i + 1) * size] = frames[at * size : (at + 1) * size]
    del content[len(kept) * size :]
    for _ in range(len(order) - len(kept)):
        content += bytes(size)
    pixels: Array = np.frombuffer(content, np.uint8).reshape(-1, *shape)
    for i in range(len(order) - 1, -1, -1):
        if rank[i] != i:
            pixels[i] = pixels[rank[i]]
    return pixels


def _of_video(path: Path, rates: list, remarks: list, kind: str = "a video") -> Iterator:
    """The name of each frame, the frame, and the width of a pixel by its height; the rates of the file go to `rates`."""
    import av

    number, frame = 0, None
    try:
        with av.open(str(path.absolute()), options={"pattern_type": "none"}, metadata_errors="replace") as container:
            if not container.streams.video or container.format.name == "tty":  # FFmpeg films a text scrolling by
                raise ValueError(f"{path}: expected {kind}, got a file without pictures")
            stream = container.streams.best("video")
            stream.thread_type = "AUTO"
            rates += [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
            for number, frame in enumerate(container.decode(stream), 1):
                yield f"frame {number}", frame, stream.sample_aspect_ratio
            duration = stream.duration and float(stream.duration * stream.time_base)
            if not duration and len(container.streams) == 1 and container.duration:
                duration = container.duration / av.time_base
            if duration and frame is not None and frame.time is not None:
                shown = (frame.time - (stream.start_time or 0) * float(stream.time_base)) * number / max(number - 1, 1)
                if number > 1 and duration - shown > 0.5 + 0.05 * duration:
                    remarks.append(f"says that it takes {duration:.3g} seconds; its frames end after {shown:.3g}")
    except av.FFmpegError as error:
        if not number:
            raise ValueError(f"{path}: expected {kind}, got what cannot be decoded ({error.strerror})") from None
        remarks.append(f"cannot be decoded after frame {number} ({error.strerror}); those before are taken")


def _of_folder(path: Path) -> Iterator:
    """The first frame of every picture."""
    pictures = [p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    if not pictures:
        raise ValueError(f"{path}: expected a video, or a folder of pictures ({', '.join(PICTURES)}), got none in it")
    for picture in sorted(pictures, key=_natural):
        for _, frame, aspect in islice(_of_video(picture, [], [], "a picture"), 1):
            frame.pts = None
            yield picture.name, frame, aspect


def _natural(path: Path) -> list:
    """The key of an order in which frame2 is before frame10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if i % 2 else (0, part) for i, part in enumerate(parts)]


def _upright(frame, aspect, width: int | None, remarks: list) -> Array:
    """The pixels (height, width, 3) of a frame as it is to be seen."""
    wide, high = frame.width, frame.height
    aspect = float(aspect or 1)
    wide, high = (round(wide * aspect), high) if aspect >= 1 else (wide, round(high / aspect))
    transposed, down, across = _orientation(frame, remarks)
    seen = high if transposed else wide
    if width and width < seen:
        wide, high = (max(round(n * width / seen), 1) for n in (wide, high))
    wide, high = max(wide, 2), max(high, 2)
    check_fits(3 * wide * high, f"a frame of {wide} x {high}")
    pixels = frame.to_ndarray(format="rgb24", width=wide, height=high)
    pixels = pixels.swapaxes(0, 1) if transposed else pixels
    pixels = pixels[:: -1 if down else 1, :: -1 if across else 1]
    return np.ascontiguousarray(pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2])


def _orientation(frame, remarks: list) -> tuple[bool, bool, bool]:
    """Whether rows become columns, whether the rows then run upwards, and whether the columns run leftwards.

    From the display matrix [[a, b, u], [c, d, v], [x, y, w]] of FFmpeg: (x, y) is seen at (a x + c y, b x + d y).
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know a kind of side data, and then shows none; it still knows the angle
        angle = np.deg2rad(frame.rotation)
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        if data is None:
            return False, False, False
        matrix = np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]].reshape(2, 2) / 2.0**16
    (a, b), (c, d) = np.rint(matrix / max(np.abs(matrix).max(), 1e-9))
    if {(abs(a), abs(d)), (abs(b), abs(c))} != {(0, 0), (1, 1)}:
        remarks.append(f"is turned by {frame.rotation} degrees, no right angle; taken as it was filmed")
        return False, False, False
    return bool(b), b + d < 0, a + c < 0


def even_times(times: list[float | None], rates: list[float], most: int, remarks: list[str]) -> tuple[Array, float]:
    """The frame that is seen at each tick of an even clock, and its ticks a second.

    Candidates are the rates that the file names, that of the mean step, and that of steps counted in medians. The rate is
    the one at whose ticks frames are nearest and fewest frames are left out.
    """
    if any(time is None for time in times) or len(times) < 2:
        return np.arange(len(times)), rates[0] if rates else FOLDER_RATE
    clock = np.array(times, float)
    if np.abs(np.argsort(clock, kind="stable") - np.arange(len(clock))).max() <= REORDERED:
        clock = np.sort(clock)
    steps = np.diff(clock)
    usual = np.median(steps[steps > 0]) if (steps > 0).any() else 1 / (rates[0] if rates else FOLDER_RATE)
    pauses = steps > max(10 * usual, 1)
    if pauses.any():
        remarks.append(f"stands still for {steps[pauses].sum():.3g} seconds in all, which are left out")
    at = np.r_[0, np.cumsum(np.where((steps > 0) & ~pauses, steps, usual))]  # a clock that goes back is no clock
    best: tuple[float, Array, float] | None = None
    counted = np.maximum(np.rint(np.diff(at) / usual), 1).sum()
    for rate in [rate for rate in rates if rate * usual < 2] + [len(steps) / at[-1], counted / at[-1]]:
        ticks = np.arange(min(round(at[-1] * rate) + 1, most)) / rate
        order = np.searchsorted((at[1:] + at[:-1]) / 2, ticks, "right")
        off = np.abs(at[order] - ticks).mean() * rate + 1 - len(set(order)) / (order[-1] + 1)
        if best is None or off < best[0] - 0.02:  # of a tick: clocks in the file are rounded
            best = off, order, rate
    assert best is not None
    _, order, rate = best
    shown = len(set(order))
    repeated, left_out = len(order) - shown, order[-1] + 1 - shown
    if repeated or left_out:
        remarks.append(
            f"has uneven frame times: {repeated} frames repeated and {left_out} left out for {rate:g} a second"
        )
    return order, float(rate)


__all__ = ["Clip", "read"]
