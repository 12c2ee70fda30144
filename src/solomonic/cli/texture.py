"""Learn a dynamic texture (water, fire, leaves) from a short clip and film it on.

The clip becomes a linear system of a few states; run on noise, it makes new frames without end, slower, faster, or
backwards in time by its backward model. Frames are written as they are made; Ctrl-C ends the video, which stays whole.
"""

import argparse
import itertools
from collections.abc import Iterator
from math import ceil, inf
from pathlib import Path

from .._utils.spelling import counted, paragraph, unknown
from ._numbers import real, whole
from ._options import add_seed, add_threads

READS, WRITES = ("clip",), ("out", "picture")
EXTRA = "theory"
SLOWEST = 1e-6  # at which states still change, in the arithmetic of a computer
COLUMNS, SHOWN = 6, 250  # of the picture, of new frames at most


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("clip", metavar="CLIP", type=Path, help="a video (mp4, mov, mkv, webm, avi, gif, ...) or a folder of pictures")
    add("--out", type=Path, required=True, metavar="FILE", help="mp4, m4v, mov, mkv, webm, avi or gif")
    add("--order", type=whole(), default=20, metavar="N", help="states (default 20)")
    add(
        "--seconds",
        type=real(float("inf")),
        default=10.0,
        metavar="X",
        help="seconds of new video; inf goes on until Ctrl-C (default 10)",
    )
    add(
        "--speed",
        type=real(1000),
        default=1.0,
        metavar="S",
        help="speed of the video: below 1 slower, above 1 faster (default 1)",
    )
    add("--reverse", action="store_true", help="run the backward model: time runs the other way")
    add(
        "--frames",
        type=whole(),
        default=500,
        metavar="T",
        help="frames of the clip to learn from, at most (default 500)",
    )
    add(
        "--width",
        type=whole(),
        metavar="W",
        help="pixels of width to which the clip is scaled down (default: as it is)",
    )
    add("--rate", type=real(1000, 0.001), metavar="R", help="frames a second, for a folder of pictures (default 25)")
    add("--no-grain", action="store_true", help="leave out the grain: what the states do not explain")
    add_seed(command)
    add_threads(command)
    add("--picture", type=Path, metavar="PNG", help="frames of the clip above new ones")


def run(args: argparse.Namespace, words: list[str]) -> int:
    import av  # noqa: F401 - first, so that a missing library is said before any work
    import numpy as np

    from .._utils.files import replacing
    from .._utils.progress import Progress
    from ..theory import texture

    if not args.seconds > 0:
        raise ValueError(f"--seconds: expected a number above 0, got {args.seconds:g}")
    if not args.speed >= SLOWEST:
        raise ValueError(f"--speed: expected a number from {SLOWEST:g} on, got {args.speed:g}; backwards is --reverse")
    if args.rate is not None and not args.clip.is_dir():
        raise ValueError(
            f"--rate: expected a folder of pictures for CLIP, got {args.clip}; a video says itself how fast it is"
        )
    for name in ("order", "frames", "width"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name}: expected a whole number >= 1, got {value}")
    suffix = args.out.suffix.lower()
    if suffix not in texture.CODECS:
        raise unknown("suffix of --out", args.out.suffix, texture.CODECS)
    clip = texture.read(args.clip, args.frames, args.width, args.rate)
    try:
        learnt = texture.learn(clip.frames, args.order, clip.rate)
    except ValueError as error:
        raise ValueError(f"{args.clip}: {error}") from None
    radius = np.abs(np.linalg.eigvals(learnt.A)).max()
    height, width, _ = learnt.shape
    of = f"{counted(len(clip.frames), 'frame')} of {width} x {height} pixels"
    print(paragraph(f"{args.clip}: {of} at {clip.rate:g} a second"))
    for remark in clip.remarks:
        print(paragraph(f"{args.clip} {remark}"))
    fades = counted(round(-1 / np.log(radius)), "frame")
    print(paragraph(f"order {args.order}: {learnt.explained:.1%} of the variance, the slowest state fades in {fades}"))
    stride = ceil(clip.rate / texture.MOST.get(suffix, inf)) or 1
    rate = clip.rate / stride
    if stride > 1:
        most = f"a {suffix} file has {texture.MOST[suffix]:g} at most"
        print(paragraph(f"{args.out}: at {rate:g} frames a second; {most}"))
    wanted = None if args.seconds * rate > 2**53 else max(1, round(args.seconds * rate))
    rng = np.random.default_rng(args.seed)
    made = texture.synthesise(learnt, rng, args.speed * stride, args.reverse, not args.no_grain)
    original = clip.frames[np.linspace(0, len(clip.frames) - 1, COLUMNS).astype(int)]
    del clip  # which may be large
    columns, shown = np.linspace(0, min(wanted or SHOWN, SHOWN) - 1, COLUMNS).astype(int), []

    def frames() -> Iterator[np.ndarray]:
        for i, frame in enumerate(itertools.islice(made, wanted)):
            shown.extend([frame] * (columns == i).sum())
            yield frame
            bar.update()

    with replacing(args.out) as partial, Progress(wanted, "frame", "texture", leave=False) as bar:
        written, interrupted = texture.write(partial, suffix, frames(), rate)
        if not written:
            raise KeyboardInterrupt
    if args.picture:
        texture.write_png(args.picture, texture.picture(original, shown))
    print(paragraph(f"{'interrupted; ' * interrupted}{counted(written, 'frame')} in {args.out}"))
    return 130 if interrupted else 0
