"""Textures from clips that the tests make: waves whose strength wanders, on a gradient, with noise."""

import itertools

import numpy as np
import pytest

from solomonic.cli import main
from solomonic.theory import texture
from solomonic.theory.realization.linear import Markov, spectral_radius


def water(frames=250, height=40, width=56, seed=0):
    """Bytes (frames, height, width, 3): six plane waves, each a damped oscillator that noise keeps going."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width]
    light = np.zeros((frames, height, width))
    for _ in range(6):
        turn, radius = rng.uniform(0.2, 0.8), 0.95
        z = np.zeros(frames + 200, complex)
        for t in range(1, len(z)):
            z[t] = radius * np.exp(1j * turn) * z[t - 1] + rng.standard_normal() + 1j * rng.standard_normal()
        angle, waves = rng.uniform(0, np.pi), rng.uniform(0.15, 0.45)
        phase = np.exp(1j * waves * (across * np.cos(angle) + down * np.sin(angle)))
        light += (z[200:, None, None] * phase).real * 4
    colours = np.array([40, 100, 140]) + light[..., None] * np.array([0.5, 0.9, 1.0]) + down[None, ..., None]
    return np.clip(colours + rng.normal(0, 3, colours.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip():
    return water(250, 24, 36)


@pytest.fixture(scope="module")
def learnt(clip):
    return texture.learn(clip, 20, 25.0)


def made(learnt, rows, **how):
    return np.stack(list(itertools.islice(texture.synthesise(learnt, np.random.default_rng(1), **how), rows)))


def flat(frames):
    return frames.reshape(len(frames), -1)[:, ::7].astype(float)


def spectrum(z, length=32):
    """Of pixels in time, by Welch's method (length / 2 + 1,)."""
    z = z - z.mean(0)
    window = np.hanning(length)[:, None]
    parts = [
        np.abs(np.fft.rfft(z[at : at + length] * window, axis=0)) ** 2 for at in range(0, len(z) - length, length // 2)
    ]
    return np.mean(parts, axis=(0, 2))


def waves(frames):
    """Power of the luminance in rings of spatial frequency."""
    grey = frames[::5].mean(3)
    power = (np.abs(np.fft.fft2(grey - frames.mean((0, 3)))) ** 2).mean(0)
    down, across = np.fft.fftfreq(power.shape[0]), np.fft.fftfreq(power.shape[1])
    ring = np.digitize(np.hypot(down[:, None], across), [0.02, 0.05, 0.1, 0.2])
    return np.bincount(ring.ravel(), power.ravel())


@pytest.mark.parametrize("reverse", [False, True])
def test_the_texture_looks_like_its_clip(clip, learnt, reverse):
    new = made(learnt, 10_000, reverse=reverse)
    a, b = flat(new), flat(clip)
    assert new.dtype == np.uint8 and new.shape[1:] == clip.shape[1:]
    assert np.abs(a.mean(0) - b.mean(0)).mean() < 0.1 * b.std(0).mean()
    assert a.std(0).mean() == pytest.approx(b.std(0).mean(), rel=0.1)
    for colour in range(3):
        assert new[..., colour].std() == pytest.approx(clip[..., colour].std(), rel=0.1)
    in_time = spectrum(a), spectrum(b)
    assert np.abs(in_time[0] - in_time[1])[1:].sum() < 0.1 * in_time[1][1:].sum()
    in_space = waves(new), waves(clip)
    assert np.abs(in_space[0] - in_space[1]).sum() < 0.1 * in_space[1].sum()


def test_it_never_blows_up(learnt):
    assert spectral_radius(learnt.A) <= 1 - 1 / (2 * len(learnt.states))
    assert np.linalg.eigvalsh(learnt.Sigma - learnt.A @ learnt.Sigma @ learnt.A.T).min() > -1e-9 * np.trace(
        learnt.Sigma
    )
    np.testing.assert_allclose(learnt.dynamics.state_covariance, learnt.Sigma, atol=1e-6 * learnt.Sigma.max())


def test_a_clip_that_grows_gives_a_bounded_texture():
    """Least squares would find a pole of 1.03."""
    t = np.arange(80)
    growing = (1.03**t * np.cos(0.3 * t))[:, None, None, None] * np.ones((1, 8, 8, 3)) * 8
    waves = np.cos(0.3 * t)[:, None, None, None] * np.arange(8)[None, None, :, None]
    learnt = texture.learn(np.clip(growing + waves + 128, 0, 255), 3)
    assert spectral_radius(learnt.A) < 1
    states = np.stack(list(itertools.islice(texture.states(learnt, np.random.default_rng(0)), 5000)))
    assert np.all(states.std(0) < 2 * learnt.states.std(0))


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.7, 3.0])
def test_speed_turns_the_poles_and_keeps_the_strength(learnt, speed):
    other = texture.at_speed(learnt, speed)
    poles = np.linalg.eigvals(learnt.A)
    poles = poles[poles.imag > 1e-9]
    expected = np.abs(poles) ** speed * np.exp(1j * speed * np.angle(poles))
    found = np.linalg.eigvals(other.A)
    for pole in expected:
        assert min(np.abs(found - pole).min(), np.abs(found - pole.conj()).min()) < 1e-6
    model = other.dynamics
    strength = np.trace(Markov(other.A, model.C, other.Q, model.S, model.R).state_covariance)
    assert strength == pytest.approx(np.trace(learnt.Sigma), rel=0.1)


def test_speed_one_changes_nothing_and_powers_compose(learnt):
    np.testing.assert_allclose(texture.at_speed(learnt, 2.0).A, learnt.A @ learnt.A, atol=1e-8)
    half = texture.at_speed(learnt, 0.5)
    if np.linalg.eigvals(learnt.A).real[np.abs(np.linalg.eigvals(learnt.A).imag) < 1e-9].min(initial=1) > 0:
        np.testing.assert_allclose(half.A @ half.A, learnt.A, atol=1e-8)


def test_backwards_is_the_backward_model():
    """Waves that travel one way travel the other way: the lag-one covariance of the states is transposed."""
    learnt = texture.learn(water(120, 16, 24), 6)
    forward, back = (
        np.stack(list(itertools.islice(texture.states(learnt, np.random.default_rng(0), reverse), 40_000)))
        for reverse in (False, True)
    )
    lag = [x[1:].T @ x[:-1] / len(x) for x in (forward, back)]
    size = np.abs(learnt.A @ learnt.Sigma).max()
    np.testing.assert_allclose(lag[0], learnt.A @ learnt.Sigma, atol=0.1 * size)
    np.testing.assert_allclose(lag[1], (learnt.A @ learnt.Sigma).T, atol=0.1 * size)


def test_it_goes_on_from_the_clip(clip, learnt):
    """The first frame is near the clip's last one, backwards near its first, as the next ones in the clip are."""
    for reverse, at, other in ((False, -1, -2), (True, 0, 1)):
        first = made(learnt, 1, reverse=reverse)[0].astype(float)
        near, next_to = (np.abs(frame - clip[at]).mean() for frame in (first, clip[other].astype(float)))
        assert near < 1.5 * next_to < np.abs(clip.astype(float) - clip[at]).mean()


def test_bad_clips():
    with pytest.raises(ValueError, match="expected frames that change"):
        texture.learn(np.full((30, 4, 4, 3), 7, np.uint8), 3)
    with pytest.raises(ValueError, match="expected 1 to 4, what 10 frames can carry, got 20"):
        texture.learn(np.zeros((10, 4, 4, 3), np.uint8), 20)
    with pytest.raises(ValueError, match="all that these frames span"):
        texture.learn(np.arange(30)[:, None, None, None] * np.ones((1, 4, 4, 3)), 3)
    with pytest.raises(ValueError, match=r"expected frames \(T, height, width, 3\)"):
        texture.learn(np.zeros((10, 4, 4)), 2)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "water.mp4"
    texture.write(path, ".mp4", iter(water(60)), 25.0)
    return path


def test_video_in_and_out(film):
    clip = texture.read(film, 1000)
    assert clip.frames.shape == (60, 40, 56, 3) and clip.rate == 25 and clip.remarks == ()
    assert np.abs(clip.frames.astype(float) - water(60)).mean() < 8  # the codec's loss
    assert texture.read(film, 10, width=29).frames.shape == (10, 20, 28, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webm"])
def test_the_command_films_on(film, tmp_path, capsys, suffix):
    out, png = tmp_path / f"new{suffix}", tmp_path / "look.png"
    words = ["texture", str(film), "--order", "8", "--seconds", "1", "--out", str(out), "--picture", str(png)]
    assert main([*words, "--speed", "0.5", "--reverse"]) == 0
    assert "25 frames in" in capsys.readouterr().out
    new = texture.read(out, 1000)
    assert new.frames.shape == (25, 40, 56, 3) and new.rate == pytest.approx(25, rel=0.01)
    assert texture.read(png, 1).frames[0].shape == (2 * 40 + 4, 6 * 56, 3)


def test_one_frame_is_no_frames(film, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    words = ["texture", str(film), "--order", "8", "--seconds", "0.01", "--out", str(tmp_path / "new.mp4")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 frame in" in said and "60 frames of 56 x 40 pixels at 25 a second" in " ".join(said.split())
    assert all(len(line) <= 50 or " " not in line for line in said.splitlines())


def test_an_interrupted_video_is_whole(film, tmp_path, monkeypatch, capsys):
    plain = texture.synthesise

    def stopped(*how):
        yield from itertools.islice(plain(*how), 30)
        raise KeyboardInterrupt

    monkeypatch.setattr(texture, "synthesise", stopped)
    out = tmp_path / "new.mp4"
    assert main(["texture", str(film), "--order", "5", "--seconds", "inf", "--out", str(out)]) == 130
    assert "interrupted; 30 frames" in capsys.readouterr().out
    assert len(texture.read(out, 1000).frames) == 30 and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "words, says",
    [
        (["--order", "40"], "order: expected 1 to 29, what 60 frames can carry, got 40"),
        (["--speed", "-1"], "--speed: expected a number from 1e-06 on, got -1; backwards is --reverse"),
        (["--seconds", "0"], "--seconds: expected a number above 0"),
        (["--order", "0"], "--order: expected a whole number >= 1"),
        (["--out", "new.mp5"], "did you mean '.mp4'"),
    ],
)
def test_a_mistake_is_one_line(film, words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["texture", str(film), "--out", "new.mp4", *words]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, content",
    [("clip.mp4", b"no video at all"), ("clip.mp4", b""), ("clip.mp4", None), ("a.txt", b"words\n" * 99)],
)
def test_a_video_that_cannot_be_decoded(name, content, tmp_path, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["texture", str(path), "--out", str(tmp_path / "new.mp4")]) == 2
    captured = capsys.readouterr()
    assert str(path) in captured.err and captured.err.count("\n") == 1 and not (tmp_path / "new.mp4").exists()


def test_a_missing_library_is_one_line(film, tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["texture", str(film), "--out", str(tmp_path / "new.mp4")]) == 2
    assert "pip install 'solomonic[theory]'" in capsys.readouterr().err
