"""Identification and its models do not know the units of inputs and outputs, nor where their zeros are."""

import numpy as np
import pytest

from solomonic.theory.realization import Linear, Markov, fit, identify
from solomonic.theory.realization.backward import backward
from solomonic.theory.realization.covariance import canonical_correlations, innovations_form, realize_covariances
from solomonic.theory.realization.subspace import gain
from solomonic.theory.realization.whiteness import independence

A = np.array([[0.9, 0.2], [-0.2, 0.8]])
C = np.array([[1.0, 0.0], [1.0, 1.0]])
NOISE = Markov(A, C, 0.01 * np.eye(2), 0.001 * np.ones((2, 2)), 0.0025 * np.eye(2))
MODEL = Linear(A, [[0.5], [1.0]], C, [[0.0], [0.1]], [[0.3, 0.1], [0.0, 0.4]], np.diag([0.1, 0.2]))


def in_units(model: Linear, y, u) -> Linear:
    """The model of outputs y times, and inputs u times as large (a number, or one a column)."""
    y, u = np.broadcast_to(y, (2,)), np.broadcast_to(u, (1,))
    D = y[:, None] * model.D / u
    return Linear(A, model.B / u, y[:, None] * model.C, D, model.K / y, np.outer(y, y) * model.R)


def data(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    u = np.round(256 * rng.standard_normal((rows, 1))) / 256
    x, y = np.array([3.0, -2.0]), np.empty((rows, 2))
    for t in range(rows):
        e = np.sqrt([0.1, 0.2]) * rng.standard_normal(2)
        y[t] = C @ x + MODEL.D @ u[t] + e
        x = A @ x + MODEL.B @ u[t] + MODEL.K @ e
    return np.round(256 * y) / 256, u


Y, U = data()
UNITS = [(2.0**-498, 2.0**498), (2.0**498, 1.0), (np.array([2.0**-40, 2.0**498]), 2.0**-300)]


@pytest.mark.parametrize(("y", "u"), UNITS)
def test_identification_in_other_units_is_the_same(y, u):
    """To the search's tolerance: how sums are rounded depends on where in memory the numbers are."""
    one, other = identify(Y[:150], U[:150], 2), identify(y * Y[:150], u * U[:150], 2)
    expected = in_units(one.model, y, u)
    np.testing.assert_allclose(other.model.poles, one.model.poles, rtol=1e-3)
    for name in ("D", "R"):
        np.testing.assert_allclose(getattr(other.model, name), getattr(expected, name), rtol=1e-2)
    assert (other.white.p, other.unexplained.p) == pytest.approx((one.white.p, one.unexplained.p), rel=1e-2)


@pytest.mark.parametrize(("y", "u"), [([1e-12, 1e6], 1.0), (1e-150, 1e150), ([1e150, 1e-150], 1e-9)])
def test_predictions_and_fits_in_any_units(y, u):
    """The first state, too: an output of 1e-12 counts as much as one of 1e6."""
    y = np.broadcast_to(y, 2)
    model = in_units(MODEL, y, u)
    np.testing.assert_allclose(model.initial_state(y * Y, u * U), MODEL.initial_state(Y, U), rtol=1e-9)
    predicted, _ = model.predict(y * Y, u * U)
    np.testing.assert_allclose(predicted / y, MODEL.predict(Y, U)[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fit(y * Y, predicted), fit(Y, MODEL.predict(Y, U)[0]), rtol=1e-9)


def test_the_first_state_counts_errors_in_the_noise_of_each_output():
    """By hand: the least squares of errors over their deviations; the output with less noise says more."""
    model = Linear(0.9 * np.eye(1), None, [[1.0], [1.0]], None, None, np.diag([1e-4, 1.0]))
    y = np.array([[1.0, 3.0]])
    assert model.initial_state(y) == pytest.approx((1.0 * 1e4 + 3.0) / (1e4 + 1))


def test_the_first_state_of_a_slow_model_in_small_units():
    """Rows whose coefficients are below 1e-12 in the data's unit were taken for faded."""
    model = Linear([[0.99]], None, [[1e-13]], None, None, [[1e-26]])
    y = 1e-13 * (5 * 0.99 ** np.arange(200)[:, None] + np.random.default_rng(0).standard_normal((200, 1)))
    assert model.initial_state(y) == pytest.approx([5], abs=0.4)


@pytest.mark.parametrize("scale", [2.0**-498, 2.0**498, np.array([2.0**-498, 2.0**300])])
def test_noise_models_in_other_units(scale):
    y = np.broadcast_to(scale, 2)
    scaled = Markov(A, y[:, None] * C, NOISE.Q, NOISE.S * y, np.outer(y, y) * NOISE.R)
    K, R = gain(scaled)
    np.testing.assert_allclose(K * y, gain(NOISE)[0], rtol=1e-12)
    np.testing.assert_allclose(R / y / y[:, None], gain(NOISE)[1], rtol=1e-12)
    assert canonical_correlations(innovations_form(scaled)) == pytest.approx(
        canonical_correlations(innovations_form(NOISE)), rel=1e-8
    )
    found = realize_covariances(scaled.covariances(8), 2)
    np.testing.assert_allclose(np.sort(found.poles), np.sort(innovations_form(NOISE).poles), rtol=1e-6)
    L = backward(scaled).covariances(1) / y / y[:, None]
    np.testing.assert_allclose(L, NOISE.covariances(1).transpose(0, 2, 1), rtol=1e-8)


@pytest.mark.parametrize("scale", [2.0**-400, 2.0**400])
def test_noise_models_whose_states_are_in_other_units(scale):
    scaled = Markov(A, C / scale, scale**2 * NOISE.Q, scale * NOISE.S, NOISE.R)
    K, R = gain(scaled)
    np.testing.assert_allclose(K / scale, gain(NOISE)[0], rtol=1e-12)
    np.testing.assert_allclose(R, gain(NOISE)[1], rtol=1e-12)


def test_whiteness_in_unlike_units():
    rng = np.random.default_rng(3)
    e, u = rng.standard_normal((300, 2)), rng.standard_normal((300, 2))
    e[1:, 1] += 0.2 * u[:-1, 0]
    one = independence(e, u, 4)
    other = independence(e * [1e-150, 1e150], u * [1e-30, 1e9], 4)
    assert (other.statistic, other.freedom) == (pytest.approx(one.statistic), one.freedom)
