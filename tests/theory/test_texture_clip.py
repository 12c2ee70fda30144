"""Clips as phones, cameras and programs leave them: each is written here with what it says beside its pictures."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from solomonic.cli import main
from solomonic.theory import texture
from solomonic.theory.texture import model
from solomonic.theory.texture.clip import even_times


def pictures(frames=20, height=24, width=32, seed=0):
    """Red in the corner above on the left, green on the right of it, a beat and noise elsewhere."""
    rng = np.random.default_rng(seed)
    beat = 60 + 30 * np.sin(np.arange(frames))[:, None, None, None]
    found = beat + rng.integers(0, 40, (frames, height, width, 3))
    found[:, : height // 3, : width // 3] = (230, 20, 20)
    found[:, : height // 3, -(width // 3) :] = (20, 210, 20)
    return found.astype(np.uint8)


def film(
    path, frames, rate=25, codec="libx264", pixels="yuv420p", aspect=None, turned=None, at=None, clock=None, title=""
):
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if aspect:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        if turned:
            stream.set_display_rotation(*turned)
        if clock:
            stream.codec_context.time_base = clock
        for i, one in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(one, format="rgb24")
            if clock:
                frame.pts, frame.time_base = int(at[i]), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def folder(path, frames, name="im{}.png"):
    path.mkdir()
    for i, frame in enumerate(frames):
        texture.write_png(path / name.format(i), frame)
    return path


def corners(frame):
    """What is in the corners, row by row."""
    height, width = np.array(frame.shape[:2]) // 6
    parts = (frame[:height, :width], frame[:height, -width:], frame[-height:, :width], frame[-height:, -width:])
    return "".join("R" if r > 150 else "G" if g > 150 else "." for r, g, _ in (part.mean((0, 1)) for part in parts))


@pytest.mark.parametrize(
    "turned, seen",
    [
        ((90, False, False), "G.R."),
        ((-90, False, False), ".R.G"),
        ((180, False, False), "..GR"),
        ((0, True, False), "GR.."),
        ((0, False, True), "..RG"),
        ((90, True, False), ".G.R"),
        ((90, False, True), "R.G."),
    ],
)
def test_a_clip_is_seen_upright(turned, seen, tmp_path):
    clip = texture.read(film(tmp_path / "phone.mp4", pictures(6), turned=turned), 5)
    assert corners(clip.frames[0]) == seen and clip.remarks == ()
    assert clip.frames.shape[1:3] == ((32, 24) if turned[0] in (90, -90) else (24, 32))


def test_a_clip_that_is_askew_says_so(tmp_path):
    clip = texture.read(film(tmp_path / "askew.mp4", pictures(6), turned=(37,)), 5)
    assert corners(clip.frames[0]) == "RG.." and "no right angle" in clip.remarks[0]


def test_a_photograph_that_was_held_sideways(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    for i, frame in enumerate(pictures(4)):
        image = Image.fromarray(frame)
        exif = image.getexif()
        exif[274] = 6
        image.save(tmp_path / "photos" / f"{i}.JPG", exif=exif, quality=95)
    assert corners(texture.read(tmp_path / "photos", 5).frames[0]) == ".R.G"


@pytest.mark.parametrize("aspect, shape", [("4/3", (24, 42)), ("1/2", (48, 32)), ("1", (24, 32))])
def test_pixels_become_square(aspect, shape, tmp_path):
    clip = texture.read(film(tmp_path / "dv.mp4", pictures(6), aspect=aspect), 5)
    assert clip.frames.shape[1:3] == shape and corners(clip.frames[0]) == "RG.."


def test_the_width_is_that_of_the_upright_picture(tmp_path):
    path = film(tmp_path / "phone.mp4", pictures(6), turned=(90,), aspect="4/3")
    assert texture.read(path, 5).frames.shape == (5, 42, 24, 3)
    assert texture.read(path, 5, width=12).frames.shape == (5, 22, 12, 3)


def test_an_odd_size_loses_a_pixel_and_is_not_blurred(tmp_path):
    frames = pictures(3, 25, 33)
    found = texture.read(folder(tmp_path / "odd", frames), 5).frames
    np.testing.assert_array_equal(found, frames[:, :24, :32])


def test_frames_that_were_dropped_are_shown_longer(tmp_path):
    frames, at = pictures(12), np.delete(np.arange(14), [4, 9])
    jitter = np.random.default_rng(0).integers(-2, 3, 12) * (at > 0)
    lossless = {"codec": "ffv1", "pixels": "bgr0", "clock": Fraction(1, 1000)}
    clip = texture.read(film(tmp_path / "phone.mkv", frames, 25, at=40 * at + jitter, **lossless), 100)
    assert clip.rate == pytest.approx(25, rel=0.02) and len(clip.frames) == 14
    assert "2 frames repeated and 0 left out" in clip.remarks[0]
    for tick, frame in enumerate(clip.frames):
        assert any((frame == one).all() for one in frames[np.abs(at - tick) <= (tick in (4, 9))])


def even(times, *rates):
    remarks = []
    order, rate = even_times(list(times), list(rates), 1000, remarks)
    return order.tolist(), rate, remarks


def test_frame_times():
    """That jitter, that are coded out of order, that start again, that pause, and that are not there."""
    ticks = np.arange(40)
    jitter = np.random.default_rng(1).uniform(-0.01, 0.01, 40)
    assert even(ticks / 30 + jitter, 29.9) == (ticks.tolist(), 29.9, [])
    assert even(np.round(ticks / 60, 3), 60.0) == (ticks.tolist(), 60, [])
    shuffled = np.arange(40).reshape(10, 4)[:, [0, 2, 1, 3]].ravel() / 24
    assert even(shuffled, 24.0) == (ticks.tolist(), 24, [])
    assert even([*ticks[:20] / 25, *ticks[:20] / 25 + 0.012], 25.0) == (ticks.tolist(), 25, [])
    order, rate, remarks = even([*ticks[:20] / 25, *ticks[20:] / 25 + 60], 0.65)
    assert (order, rate) == (ticks.tolist(), pytest.approx(25)) and "stands still for 60" in remarks[0]
    assert even([None] * 40, 50.0) == (ticks.tolist(), 50, []) and even([0.0], 12.0) == ([0], 12, [])
    order, rate, remarks = even([0, 0.1, 0.2, 0.3, 0.5, 0.6], 8.33)
    assert order in ([0, 1, 2, 3, 4, 4, 5], [0, 1, 2, 3, 3, 4, 5]) and rate == pytest.approx(10)
    assert "1 frames repeated" in remarks[0]


def test_a_gif_of_a_fast_clip_lasts_as_long(tmp_path, capsys):
    path = film(tmp_path / "fast.mp4", pictures(20), 120)
    out = tmp_path / "out.gif"
    assert main(["texture", str(path), "--order", "3", "--seconds", "0.5", "--out", str(out)]) == 0
    assert "at 40 frames a second; a .gif file has 50 at most" in capsys.readouterr().out
    with av.open(str(out)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 20 and times[-1] == pytest.approx(19 / 40, abs=0.011)
    with pytest.raises(ValueError, match="at most 50 frames a second"):
        texture.write(out, ".gif", iter(pictures(2)), 120.0)


@pytest.mark.parametrize("rate", [120_000 / 1001, 1 / 30, 23.976])
def test_rates_that_a_codec_must_be_told_as_a_fraction(rate, tmp_path):
    texture.write(tmp_path / "out.avi", ".avi", iter(pictures(4)), rate)
    assert texture.read(tmp_path / "out.avi", 9).rate == pytest.approx(rate, rel=1e-4)


def test_frames_that_a_codec_cannot_take(tmp_path):
    with pytest.raises(ValueError, match="expected frames that mpeg4 can code, got 20000 x 2 at 25 a second"):
        texture.write(tmp_path / "out.avi", ".avi", iter(np.zeros((2, 2, 20_000, 3), np.uint8)), 25.0)


def test_colours_come_back(tmp_path):
    """Through YUV, whose matrix is written beside it."""
    frames = np.full((3, 16, 16, 3), (200, 40, 30), np.uint8)
    texture.write(tmp_path / "red.mp4", ".mp4", iter(frames), 25.0)
    assert np.abs(texture.read(tmp_path / "red.mp4", 3).frames.astype(int) - frames).max() <= 6
    with av.open(str(tmp_path / "red.mp4")) as container:
        assert next(container.decode(video=0)).colorspace == 6


def test_a_size_that_changes(tmp_path, capsys):
    small, large = (
        film(tmp_path / f"{name}.ts", pictures(8, *size)) for name, size in (("a", (24, 32)), ("b", (48, 64)))
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(ValueError, match="expected frames of one size, got 32 x 24, and 64 x 48 from frame 9 on"):
        texture.read(both, 100)
    assert main(["texture", str(both), "--order", "2", "--out", str(tmp_path / "out.mp4")]) == 2
    assert "--frames 8 takes those before" in capsys.readouterr().err
    assert texture.read(both, 8).frames.shape == (8, 24, 32, 3)


def test_a_folder_of_pictures(tmp_path):
    frames = pictures(12)
    path = folder(tmp_path / "frames", frames)
    (path / "notes.txt").write_text("not a picture")
    clip = texture.read(path, 100)
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.rate == 25 and texture.read(path, 5, rate=12.0).rate == 12
    np.testing.assert_array_equal(texture.read(path, 5).frames, frames[:5])
    assert texture.read(folder(tmp_path / "named", frames[:3], "a%d_{}.png"), 9).frames.shape == (3, 24, 32, 3)


def test_the_command_takes_a_folder(tmp_path, capsys):
    path, out = folder(tmp_path / "frames", pictures(12)), tmp_path / "out.mkv"
    words = ["texture", str(path), "--order", "2", "--rate", "10", "--seconds", "0.5", "--out"]
    assert main([*words, str(out)]) == 0
    assert "12 frames of 32 x 24 pixels at 10 a second" in capsys.readouterr().out
    assert len(texture.read(out, 99).frames) == 5
    assert main([*words, str(path / "out.mkv")]) == 2
    assert "expected a path outside of" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["empty", "videos", "broken", "sizes", "one", "rate"])
def test_a_folder_that_is_no_clip(bad, tmp_path, capsys):
    path = folder(tmp_path / "frames", pictures(0 if bad in ("empty", "videos") else 1 if bad == "one" else 4))
    if bad == "broken":
        (path / "im2.png").write_bytes(b"\x89PNG, but no more")
    if bad == "sizes":
        texture.write_png(path / "im2.png", pictures(1, 30, 40)[0])
    if bad in ("videos", "rate"):
        film(path / "clip.mp4", pictures(3))
    words = [str(path / "clip.mp4"), "--rate", "3"] if bad == "rate" else [str(path)]
    assert main(["texture", *words, "--order", "1", "--out", str(tmp_path / "out.mp4")]) == 2
    says = {
        "broken": "im2.png: expected a picture, got what cannot be decoded",
        "sizes": "expected frames of one size, got 32 x 24, and 40 x 30 from im2.png on",
        "one": "expected at least 3 frames, got 1",
        "rate": "--rate: expected a folder of pictures for CLIP",
    }.get(bad, "a folder of pictures")
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and str(path) in error and not (tmp_path / "out.mp4").exists()


def test_a_title_that_is_no_utf8(tmp_path):
    path = film(tmp_path / "old.avi", pictures(6), codec="mpeg4", title="Caf#")
    path.write_bytes(path.read_bytes().replace(b"Caf#", b"Caf\xe9"))
    assert texture.read(path, 9).frames.shape == (6, 24, 32, 3)


def test_a_clip_whose_end_is_missing_says_so(tmp_path):
    whole = film(tmp_path / "whole.mkv", pictures(100))
    part = tmp_path / "part.mkv"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert texture.read(whole, 1000).remarks == () == texture.read(whole, 10).remarks
    clip = texture.read(part, 1000)
    assert 10 < len(clip.frames) < 90 and "says that it takes 4 seconds" in clip.remarks[0]


def test_a_clip_is_held_once(tmp_path, monkeypatch):
    """Also where frames are repeated and left out."""
    monkeypatch.setattr(model, "BLOCK", 2**14)
    frames = pictures(100, 96, 128)
    for times in (np.arange(100), np.cumsum(np.random.default_rng(0).choice([1, 1, 1, 2], 100))):
        path = film(tmp_path / "clip.mkv", frames, 25, at=times * 40, clock=Fraction(1, 1000))
        tracemalloc.start()
        clip = texture.read(path, 1000)
        learnt = texture.learn(clip.frames, 4)
        size, peak = clip.frames.nbytes, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.15 * size + 110 * learnt.mean.size
