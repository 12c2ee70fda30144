"""Grain against clips whose grain is known: a field of given correlations in space, colour and time, on slow waves."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from solomonic.theory import texture

HEIGHT, WIDTH = 30, 42
COLOURS = np.array([[1, 0.9, 0.5], [0.9, 1, 0.7], [0.5, 0.7, 1]])


def field(frames, stays, drift=0, blur=1.2, seed=0):
    """(frames, height, width, 3): Gaussian, blurred over so many pixels, its colours correlated, keeping `stays` of itself
    from frame to frame and moving `drift` pixels to the right. It is smooth in time: its velocity is a process too.
    """
    rng = np.random.default_rng(seed)
    shape = (2 * HEIGHT, 2 * WIDTH)
    down, across = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    shade = np.exp(-((2 * np.pi * blur) ** 2) * (down**2 + across**2) / 2)
    shade /= np.sqrt(np.mean(shade**2))
    decay = next(x for x in np.arange(0, 9, 0.001) if (1 + x) * np.exp(-x) <= stays)
    M = np.exp(-decay) * np.array([[1 + decay, decay], [-decay, 1 - decay]])
    half = np.linalg.cholesky(np.eye(2) - M @ M.T)
    paint = np.linalg.cholesky(COLOURS)
    U, found = np.fft.fft2(rng.standard_normal((2, 3, *shape))) * shade, []
    for _ in range(frames):
        noise = np.fft.fft2(rng.standard_normal((2, 3, *shape))) * shade
        U = np.exp(-2j * np.pi * across * drift) * (np.einsum("ij,jchw->ichw", M, U)) + np.einsum(
            "ij,jchw->ichw", half, noise
        )
        found.append(np.einsum("dc,chw->hwd", paint, np.fft.ifft2(U[0]).real[:, :HEIGHT, :WIDTH]))
    return np.array(found)


def waves(frames, seed=1):
    """Two slow standing waves (frames, height, width, 1)."""
    rng = np.random.default_rng(seed)
    t, across = np.arange(frames)[:, None, None, None], np.arange(WIDTH)[None, None, :, None]
    return sum(
        25 * np.cos(turn * t + rng.uniform(0, 6)) * np.cos(0.2 * (i + 1) * across + rng.uniform(0, 6))
        for i, turn in enumerate((0.11, 0.17))
    ) * np.ones((1, HEIGHT, 1, 1))


def clip(grain, deviation=9.0):
    return np.clip(np.rint(128 + waves(len(grain)) + deviation * grain), 0, 255).astype(np.uint8)


def correlations(e):
    """With the pixel to the right, the one below, red with green and with blue, and with the next frame."""

    def c(a, b):
        return np.mean(a * b) / np.sqrt(np.mean(a**2) * np.mean(b**2))

    return np.array(
        [
            c(e[:, :, 1:], e[:, :, :-1]),
            c(e[:, 1:], e[:, :-1]),
            c(e[..., 0], e[..., 1]),
            c(e[..., 0], e[..., 2]),
            c(e[1:], e[:-1]),
        ]
    )


def made(learnt, rows, seed=0, **how):
    return np.stack(list(itertools.islice(learnt.grain.fields(np.random.default_rng(seed), **how), rows)))


@pytest.fixture(scope="module")
def learnt():
    return texture.learn(clip(field(160, stays=0.6)), 4)


def test_grain_has_the_correlations_of_its_clip(learnt):
    true, found = field(160, stays=0.6), made(learnt, 160)
    assert correlations(true)[0] > 0.6 and correlations(true)[4] > 0.5  # else this would say nothing
    np.testing.assert_allclose(correlations(found), correlations(true), atol=0.05)
    assert found.std() == pytest.approx(9, rel=0.1)
    np.testing.assert_allclose(made(learnt, 600).std(0).mean((0, 1)), learnt.grain.deviation.mean((0, 1)), rtol=0.05)


def test_grain_has_the_colours_of_its_place():
    """Grey on the left, red against blue on the right."""
    noise = field(100, stays=0.4)[..., :1] * np.ones(3)
    noise[:, :, WIDTH // 2 :] *= (1, 0.2, -1)
    found = made(texture.learn(clip(noise), 4), 100)
    for half, expected in ((found[:, :, : WIDTH // 2], 1), (found[:, :, WIDTH // 2 :], -1)):
        assert correlations(half)[3] == pytest.approx(expected, abs=0.1)


def test_white_grain_stays_white():
    noise = np.random.default_rng(0).normal(size=(120, HEIGHT, WIDTH, 3))
    found = correlations(made(texture.learn(clip(noise), 4), 120))
    assert np.abs(found[:4]).max() < 0.03 and abs(found[4]) < 0.08


@pytest.mark.parametrize("stays", [0.35, 0.6])
def test_grain_slows_down_with_the_picture(stays):
    """Learnt from every second frame and made at half speed, frames differ from the next as those of the whole clip do."""
    whole = clip(field(200, stays))
    learnt = texture.learn(whole[::2], 4)
    slow = np.stack(list(itertools.islice(texture.synthesise(learnt, np.random.default_rng(0), 0.5), 150)))
    fast = np.stack(list(itertools.islice(texture.synthesise(learnt, np.random.default_rng(0)), 100)))

    def differs(z):
        return np.sqrt(np.mean(np.diff(z.astype(float), axis=0) ** 2))

    assert differs(fast) == pytest.approx(differs(whole[::2]), rel=0.1)
    assert differs(slow) == pytest.approx(differs(whole), rel=0.15)
    assert differs(slow) < 0.85 * differs(fast)


def test_speeds_compose_and_every_second_frame_at_half_speed_is_full_speed(learnt):
    half = texture.at_speed(learnt, 0.5)
    assert texture.at_speed(half, 2.0).grain.speed == 1
    np.testing.assert_allclose(correlations(made(half, 400)[::2]), correlations(made(learnt, 200)), atol=0.03)
    assert correlations(made(half, 200))[4] > correlations(made(learnt, 200))[4] + 0.15


@pytest.mark.parametrize("reverse", [False, True])
def test_grain_drifts_and_backwards_it_drifts_back(reverse):
    learnt = texture.learn(clip(field(120, stays=0.9, drift=2)), 4)
    e = made(learnt, 200, reverse=reverse)
    there, back = (np.mean(a * b) for a, b in ((e[1:, :, 2:], e[:-1, :, :-2]), (e[1:, :, :-2], e[:-1, :, 2:])))
    assert (back > 2 * there) if reverse else (there > 2 * back)


@pytest.mark.parametrize("reverse", [False, True])
def test_grain_goes_on_from_the_clip(learnt, reverse):
    """The first new frame's grain is to the clip's last one as its own frames are to one another."""
    frames = clip(field(160, stays=0.6)).reshape(160, -1)
    at = 0 if reverse else -1
    residual = (frames[at] - learnt.mean - learnt.C @ learnt.states[at]).reshape(learnt.shape)
    firsts = [made(learnt, 1, seed, reverse=reverse)[0] for seed in range(8)]
    found = np.mean([np.corrcoef(residual.ravel(), first.ravel())[0, 1] for first in firsts])
    assert found == pytest.approx(correlations(made(learnt, 120))[4], abs=0.1)


def test_the_seed_decides_and_the_states_are_the_same_without_grain(learnt):
    def frames(seed, **how):
        return np.stack(list(itertools.islice(texture.synthesise(learnt, np.random.default_rng(seed), **how), 5)))

    np.testing.assert_array_equal(frames(3), frames(3))
    assert np.abs(frames(3).astype(int) - frames(4)).mean() > 2
    grain = frames(3).astype(float) - frames(3, grain=False)
    np.testing.assert_allclose(correlations(grain)[:4], correlations(made(learnt, 60))[:4], atol=0.1)


def test_where_nothing_is_left_there_is_no_grain():
    """A colour that is always 0, pixels that stand still, and states that explain everything."""
    frames = clip(field(60, stays=0.5))
    frames[..., 1] = 0
    frames[:, :10] = 50
    learnt = texture.learn(frames, 4)
    found = made(learnt, 30)
    assert np.isfinite(found).all() and not found[..., 1].any() and not found[:, :10].any()
    assert found[:, 12:, :, 0].std() == pytest.approx(learnt.grain.deviation[12:, :, 0].mean(), rel=0.1)
    whole = texture.learn(frames[:5].astype(float), 2)
    bare = replace(whole, grain=replace(whole.grain, spread=np.zeros_like(whole.grain.spread)))
    assert next(texture.synthesise(bare, np.random.default_rng(0))).shape == frames.shape[1:]


@pytest.mark.parametrize("shape", [(2, 2), (2, 40), (40, 2), (7, 9)])
def test_small_frames(shape):
    frames = np.random.default_rng(0).integers(0, 255, (9, *shape, 3), dtype=np.uint8)
    learnt = texture.learn(frames, 2)
    for how in ({}, {"speed": 1e-9}, {"speed": 500.0, "reverse": True}):
        assert next(texture.synthesise(learnt, np.random.default_rng(0), **how)).shape == (*shape, 3)


def test_states_of_a_short_clip_keep_their_strength_at_half_speed():
    """So much of Sigma - A^s Sigma A^sT is negative there that the states would have twice the clip's variance."""
    rng = np.random.default_rng(3)
    learnt = texture.learn(rng.integers(0, 255, (31, 6, 6, 3), dtype=np.uint8), 15)
    half = texture.at_speed(learnt, 0.5)
    assert np.trace(half.dynamics.state_covariance) == pytest.approx(np.trace(learnt.Sigma), rel=1e-6)
