"""The focus on simulation: no worse than what it begins with, on its own rows and on others."""

import numpy as np
import pytest

from solomonic.theory.realization import Linear, fit, identify
from solomonic.theory.realization.identify import simulators
from solomonic.theory.realization.prediction_error import errors
from solomonic.theory.realization.subspace import hankel, lagged

from .test_realization import system
from .test_realization_identify import drawn


def valve(seed, rows=900, quiet=200):
    """Two lags behind a valve whose gain falls, at rest at first and then moved at random: no linear model holds both."""
    rng = np.random.default_rng(seed)
    rest, moved = 0.3 + 0.01 * rng.standard_normal(rows), rng.uniform(0.1, 0.7, rows)
    u = np.where(np.arange(rows) < quiet, rest, moved)
    fast, slow, y = 0.0, 0.0, np.empty((rows, 1))
    for t in range(rows):
        y[t] = fast + 0.8 * slow + 0.005 * rng.standard_normal()
        fast, slow = 0.6 * fast + np.tanh(4 * u[t]), 0.85 * slow + 0.3 * u[t] ** 2
    return y, u[:, None]


def simulated_fit(found, y, u, rows):
    states = found.model.predict(y, u)[1]
    return fit(y[rows:], found.model.simulate(u[rows:], states[rows]))[0]


def test_rows_at_rest_do_not_cost_the_rows_that_follow():
    """The fit bends to the rows at rest, which do not come again: that loses the default 3 to 5 points."""
    gained = []
    for seed in range(4):
        y, u = valve(seed)
        default, simulating = (identify(y[:600], u[:600], 1, focus=focus) for focus in ("prediction", "simulation"))
        assert len(simulating.innovations) == 600
        gained.append(simulated_fit(simulating, y, u, 600) - simulated_fit(default, y, u, 600))
        later, before = (  # the first state is row 0's
            fit(y[200:600], found.model.simulate(u[:600], found.x0)[200:])[0] for found in (simulating, default)
        )
        assert later > before
    assert np.min(gained) > 1


def test_a_linear_process_at_rest_first_is_found_whole():
    """The rows that are left out come back: the model, its offset and first state give them too."""
    model = Linear(
        [[0.8, 0.2], [-0.2, 0.8]],
        [[1.0], [0.5]],
        [[1.0, 0.0]],
        [[0.1]],
        None,
        [[1.0]],
        np.array([50.0]),
        np.array([7.0]),
    )
    u = 7 + np.where(np.arange(400) < 150, 0.4, np.random.default_rng(0).standard_normal(400))[:, None]
    y = model.simulate(u, np.array([1.0, -1.0]))
    found = identify(y, u, 2, focus="simulation")
    np.testing.assert_allclose(np.sort_complex(found.model.poles), np.sort_complex(model.poles), atol=1e-6)
    np.testing.assert_allclose(found.model.simulate(u, found.x0), y, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_components_leave_least_of_the_future(n):
    """No n numbers of the past have smaller squared errors over all rows of the future, future inputs given."""
    y, u = valve(0)
    y, u = y - y.mean(0), u - u.mean(0)
    found, last = hankel(y, u, 6), len(y) - 5
    future, inputs = (lagged(z, range(0, -6, -1), 6, last) for z in (y, u))

    def left(state):
        known = np.concatenate([state[:, :n], inputs], 1)
        return np.sum((future - known @ np.linalg.lstsq(known, future, rcond=None)[0]) ** 2)

    past = lagged(np.concatenate([y, u], 1), range(1, 7), 6, last)
    others = [found.state, past, past @ np.random.default_rng(0).standard_normal((12, n))]
    assert left(found.components) < min(map(left, others))


def drifting(rows=200):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((rows, 1))
    clean = Linear([[0.5]], [[1.0]], [[1.0]], None, None, [[1.0]]).simulate(u)
    return clean + 0.15 * np.cumsum(rng.standard_normal((rows, 1)), 0), u


SERIES = {"drift": drifting(), "valve": valve(0, 300, 100), "the system": drawn(system("input"), 200, 0)}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", SERIES)
def test_each_fit_simulates_its_rows_no_worse_than_the_one_before(name, order):
    """Of the three that are searched: each begins where the one before ended, and a search only goes down."""
    y, u = (z - z.mean(0) for z in SERIES[name])
    y, u = y / y.std(), u / u.std()
    sizes = [
        (errors(parts | {"K": np.zeros_like(parts["K"])}, y, u)[0] ** 2).mean()
        for parts in simulators(y, u, order, 6, 0)
    ]
    assert sizes[2] <= sizes[1] * (1 + 1e-9) and sizes[3] <= sizes[2] * (1 + 1e-9)


def test_an_unstable_fit_does_not_run_away_in_simulation():
    """A double integrator whose predictor has a pole outside: the focus on simulation gives a stable model."""
    rng = np.random.default_rng(0)
    u = np.repeat(rng.choice([-1.0, 1.0], 40), 5)
    y = np.cumsum(np.cumsum(u - u.mean())) + 5 * rng.standard_normal(200)
    found = identify(y[:, None], u[:, None], 2, focus="simulation")
    assert found.model.stable and found.stable is None
    assert fit(y[:, None], found.model.simulate(u[:, None], found.x0))[0] > 0
