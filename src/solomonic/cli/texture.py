"""Learn a dynamic texture (water, fire, leaves) from a short clip and film it on.

The clip becomes a linear system of a few states; run on noise, it makes new frames without end, slower, faster, or
backwards in time by its backward model. Frames are written as they are made; Ctrl-C ends the video, which stays whole.
"""

import argparse
import itertools
from pathlib import Path

from ..spelling import unknown
from ._numbers import COUNT, real, whole

READS, WRITES = ("clip",), ("out", "picture")
EXTRA = "theory"


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("clip", metavar="CLIP", type=Path, help="a video: mp4, mov, mkv, webm, avi, gif, ...")
    add("--out", type=Path, required=True, metavar="FILE", help="mp4, m4v, mov, mkv, webm, avi or gif")
    add("--order", type=whole(), default=20, metavar="N", help="states (default 20)")
    add(
        "--seconds",
        type=real(float("inf")),
        default=10.0,
        metavar="X",
        help="of new video; inf goes on until Ctrl-C (default 10)",
    )
    add("--speed", type=real(1000), default=1.0, metavar="S", help="below 1 slower, above 1 faster (default 1)")
    add("--reverse", action="store_true", help="run the backward model: time runs the other way")
    add("--frames", type=whole(), default=500, metavar="T", help="of the clip to learn from, at most (default 500)")
    add("--width", type=whole(), metavar="W", help="scale the clip down to so many pixels")
    add("--no-grain", action="store_true", help="leave out the noise that the states do not explain")
    add("--seed", type=whole(COUNT, least=0), default=0, metavar="S", help="of the noise (default 0)")
    add("--picture", type=Path, metavar="PNG", help="frames of the clip above new ones")


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    import av  # noqa: F401 - first, so that a missing library is said before any work
    import numpy as np
    from tqdm import tqdm

    from ..files import replacing
    from ..theory import texture

    if not chosen.seconds > 0:
        raise ValueError(f"--seconds: expected a number above 0, got {chosen.seconds:g}")
    if not 0 < chosen.speed < np.inf:
        raise ValueError(f"--speed: expected a number above 0, got {chosen.speed:g}; backwards is --reverse")
    for name in ("order", "frames", "width"):
        if (value := getattr(chosen, name)) is not None and value < 1:
            raise ValueError(f"--{name}: expected a whole number >= 1, got {value}")
    if chosen.out.suffix.lower() not in texture.CODECS:
        raise unknown("suffix of --out", chosen.out.suffix, texture.CODECS)
    clip, rate = texture.read(chosen.clip, chosen.frames, chosen.width)
    learnt = texture.learn(clip, chosen.order, rate)
    kept = 1 - (learnt.grain.astype(float) ** 2).sum() / (clip.astype(np.float32).var(0).sum())
    radius = np.abs(np.linalg.eigvals(learnt.A)).max()
    height, width, _ = learnt.shape
    print(f"{chosen.clip}: {len(clip)} frames of {width} x {height} at {rate:g} a second")
    print(
        f"order {chosen.order}: {kept:.1%} of the variance, the slowest state fades in {-1 / np.log(radius):.0f} frames"
    )
    wanted = None if chosen.seconds * rate > 2**53 else max(1, round(chosen.seconds * rate))
    rng = np.random.default_rng(chosen.seed)
    made = texture.synthesise(learnt, rng, chosen.speed, chosen.reverse, not chosen.no_grain)
    shown = []

    def counted():
        for i, frame in enumerate(tqdm(itertools.islice(made, wanted), total=wanted, unit="frame", leave=False)):
            if chosen.picture and i < 250:
                shown.append(frame)
            yield frame

    with replacing(chosen.out) as partial:
        written, interrupted = texture.write(partial, chosen.out.suffix, counted(), rate)
        if not written:
            raise KeyboardInterrupt
    if chosen.picture:
        texture.write_png(chosen.picture, texture.picture(clip, np.stack(shown)))
    print(f"{'interrupted; ' * interrupted}{written} frames in {chosen.out}")
    return 130 if interrupted else 0
