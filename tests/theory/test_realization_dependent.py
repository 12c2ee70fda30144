"""Columns that are linear combinations of others: outputs are fitted through the others, inputs are refused by name."""

import numpy as np
import pytest

from solomonic.cli import main
from solomonic.theory.realization import Linear, identify
from solomonic.theory.realization.file import load
from solomonic.theory.realization.linear import Markov
from solomonic.theory.realization.subspace import gain

from .test_realization import system
from .test_realization_identify import drawn, table

Y, U = drawn(system("input"), 200, 0)
SLOW = drawn(Linear([[0.95]], None, [[1.0]], None, [[0.8]], [[1.0]]), 200, 1)[0]
OTHER = np.random.default_rng(2).standard_normal((200, 1))

COMBINED = {
    "twice": ([Y], lambda y, u: np.c_[y, 2 * y], ["y2 = 2 y1"]),
    "the same": ([Y], lambda y, u: np.c_[y, y, y], ["y2 = y1", "y3 = y1"]),
    "of two": ([Y, SLOW], lambda y, u: np.c_[y, y @ [[1], [-3]] + 5], ["y3 = y1 - 3 y2"]),
    "with the input": ([Y], lambda y, u: np.c_[y, 4 * u - 0.5 * y], ["y2 = 4 u1 - 0.5 y1"]),
    "the input": ([Y], lambda y, u: np.c_[y, 3 - u], ["y2 = -u1"]),
}


OPTIONS = [{"criterion": "likelihood"}, {"focus": "simulation"}, {"bilinear": True}]


@pytest.mark.parametrize("name, options", [*((name, {}) for name in COMBINED), *(("of two", one) for one in OPTIONS)])
def test_outputs_that_are_combinations_are_fitted_through_the_others(name, options):
    """Predictions are combined as the outputs are; they are those of the independent outputs alone, to the search's tolerance."""
    columns, combine, equations = COMBINED[name]
    y, order = np.concatenate(columns, 1), 1 + len(columns)
    k, alone = len(columns), identify(y, U, order, **options)
    found = identify(combine(y, U), U, order, **options)
    assert list(found.dependent) == equations and alone.dependent == ()
    np.testing.assert_allclose(np.sort_complex(found.model.poles), np.sort_complex(alone.model.poles), atol=2e-3)
    assert found.white.freedom == alone.white.freedom and found.white.p == pytest.approx(alone.white.p, abs=0.02)
    for kind in ("model", "bilinear")[: 1 + ("bilinear" in options)]:
        predicted = getattr(found, kind).predict(combine(y, U), U, found.x0)[0]
        np.testing.assert_allclose(predicted, combine(predicted[:, :k], U), atol=1e-9)
        expected = getattr(alone, kind).predict(y, U, alone.x0)[0]
        after = 40  # rows in which the first state, that of the linear model, is forgotten
        np.testing.assert_allclose(predicted[after:, :k], expected[after:], atol=5e-3 * np.ptp(y))
    e = found.innovations
    np.testing.assert_allclose(e, combine(e[:, :k], 0 * U) - combine(0 * e[:, :k], 0 * U), atol=1e-9)
    np.testing.assert_allclose(found.model.R, e.T @ e / len(y), atol=1e-9 * np.ptp(y))


def test_outputs_that_the_input_alone_makes():
    found = identify(np.c_[2 * U, U + 1], U)
    assert found.model.order == 0
    np.testing.assert_allclose(found.model.D, [[2], [1]], atol=1e-9)
    np.testing.assert_allclose(found.model.predict(np.c_[2 * U, U + 1], U)[0], np.c_[2 * U, U + 1], atol=1e-9)


def test_units_do_not_hide_a_combination():
    found = identify(np.c_[1e-150 * Y, 2e150 * Y], 1e9 * U, 2)
    assert found.dependent == ("y2 = 2e+300 y1",)


def test_what_is_nearly_a_combination_is_an_output_of_its_own():
    y = np.c_[Y, 2 * Y + 1e-4 * OTHER]
    found = identify(y, U, 2)
    assert found.dependent == () and np.linalg.matrix_rank(found.model.R) == 2


@pytest.mark.parametrize(
    "u, says",
    [
        (np.c_[U, 2 * U + 1], "got valve = 2 pump in every row that is fitted, up to a constant; leave valve out"),
        (
            np.c_[U, OTHER, U - 0.5 * OTHER],
            "got fan = pump - 0.5 valve in every row that is fitted, up to a constant; leave fan out",
        ),
        (
            np.c_[OTHER, U, -1e6 * U],
            "got fan = -1e+06 valve in every row that is fitted, up to a constant; leave fan out",
        ),
    ],
)
def test_inputs_that_cannot_be_told_apart_are_refused_by_name(u, says):
    with pytest.raises(ValueError) as error:
        identify(Y, u, 2, inputs=("pump", "valve", "fan")[: u.shape[1]])
    assert says in str(error.value)


def test_the_gain_of_two_sensors_that_say_the_same_without_noise():
    """x+ = 0.9 x + w, y = (x, x): the state is seen, so x+ is expected at 0.9 y; each sensor brings half of it."""
    K, R = gain(Markov(np.array([[0.9]]), np.ones((2, 1)), np.eye(1), np.zeros((1, 2)), np.zeros((2, 2))))
    np.testing.assert_allclose(K, [[0.45, 0.45]], rtol=1e-6)
    np.testing.assert_allclose(R, np.ones((2, 2)), rtol=1e-6)


def test_a_series_without_noise_and_its_double():
    """0, 1, 0, 1, ...: about its mean each row is the last one's negative."""
    y = np.tile([[0.0], [1.0]], (50, 1))
    model = identify(np.c_[y, 2 * y], None, 2).model
    assert np.abs(model.poles + 1).min() < 1e-6
    np.testing.assert_allclose(model.predict(np.c_[y, 2 * y])[0], np.c_[y, 2 * y], atol=1e-6)


def test_the_command_notes_a_combination(tmp_path, capsys):
    y = np.round(Y, 4)
    data = table(tmp_path / "plant.csv", ["pump", "level", "litres"], [np.round(U, 4), y, 2 * y])
    words = ["identify", data, "--inputs", "pump", "--order", "2", "--no-picture", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "note: litres = 2 level in the fitted rows" in capsys.readouterr().err
    C = load(tmp_path / "out" / "model.json").C
    np.testing.assert_allclose(C[1], 2 * C[0], rtol=1e-9)
    assert main([*words[:2], "--inputs", "level,litres", *words[4:]]) == 2
    err = capsys.readouterr().err
    assert "got litres = 2 level in every row that is fitted" in err and err.count("\n") == 1
