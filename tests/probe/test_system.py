"""A layer as a linear system: known systems are found, with their order."""

import numpy as np
import pytest

from solomonic.probe.system import STABLE, fit, linear_system


def simulate(A, B, C, D, u, noise=0.0, seed=1):
    x, y = np.zeros(len(A)), []
    for now in u:
        y.append(C @ x + D @ now)
        x = A @ x + B @ now
    y = np.array(y)
    return y + noise * np.random.default_rng(seed).standard_normal(y.shape)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    A = np.diag([0.9, 0.8, -0.6, 0.3])
    B, C, D = rng.standard_normal((4, 3)), rng.standard_normal((5, 4)), 0.2 * rng.standard_normal((5, 3))
    u = rng.standard_normal((6000, 3))
    return u, simulate(A, B, C, D, u, 0.1)


def test_order_of_a_known_system(data):
    found = fit(*data, lags=16)
    orders = {order.order: order for order in found.orders}
    assert found.correlations[:4].min() > 0.7 and found.correlations[4:].max() < 0.1 and found.correlated() == 4
    assert orders[4].explained > 0.98 > orders[2].explained > orders[0].explained
    assert orders[8].explained < orders[4].explained + 0.01
    assert found.effective() == 4
    assert orders[4].radius == pytest.approx(0.9, abs=0.02) and not orders[4].pulled_in


def test_a_static_map_uses_no_states(data):
    u, _ = data
    found = fit(u, u @ np.arange(6).reshape(3, 2) + 1, lags=8)
    assert found.effective() == found.correlated() == 0 and found.orders[0].explained > 0.999


def test_noise_is_not_explained(data):
    u, _ = data
    found = fit(u, np.random.default_rng(9).standard_normal((len(u), 4)), lags=8)
    assert max(order.explained for order in found.orders) < 0.02 and found.correlated() == 0


def test_directions_that_do_not_move_are_left_out(data):
    u, y = data
    wide = np.hstack([u, u[:, :1], np.zeros((len(u), 4))])
    found = fit(wide, y, lags=16)
    assert found.inputs == pytest.approx(1) and found.effective() == 4


def test_a_fit_that_grows_is_pulled_in():
    rng = np.random.default_rng(3)
    u, y = rng.standard_normal((20_000, 1)), rng.standard_normal((20_000, 1))
    order = linear_system(1.02 ** np.arange(392)[:, None], u, y, lags=8, half=400)
    assert order.radius == pytest.approx(1.02, abs=1e-3) and order.radius > STABLE and order.pulled_in
    assert np.isfinite(order.explained)


def test_what_cannot_be_fitted_is_refused(data):
    u, y = data
    with pytest.raises(ValueError, match="768 tokens or more to fit a system with 32 lags, got 700"):
        fit(u[:700], y[:700])
    with pytest.raises(ValueError, match="constant"):
        fit(u, np.ones_like(y))
