"""The picture of an identified system says what the tests of its residuals said."""

import warnings

import numpy as np
import pytest

from solomonic.theory.realization import fit, identify
from solomonic.theory.realization.draw import draw, headline
from solomonic.theory.realization.whiteness import Test, largest, portmanteau


@pytest.fixture(scope="module")
def slow():
    """Two outputs of which one is an autoregression, (160, 2)."""
    noise = np.random.default_rng(0).standard_normal((160, 2))
    for t in range(1, 160):
        noise[t, 0] += 0.9 * noise[t - 1, 0]
    return noise


@pytest.mark.parametrize("order, white", [(0, False), (1, True)])
def test_the_headline_names_the_verdict(slow, order, white):
    found = identify(slow, order=order)
    said = headline(found, "tank.csv")
    assert (found.white.p >= 0.05) == found.white.passed == white
    assert ("residuals white" in said, "residuals not white" in said) == (white, not white)
    assert said.startswith("tank.csv: order ") and found.white.chance in said and f"{found.white.lags} lags" in said


def test_the_largest_correlation_is_found_with_its_lag():
    e = np.random.default_rng(1).standard_normal((400, 2))
    e[3:, 0] -= 2 * e[:-3, 1]  # of one output with the other's past
    size, lag = largest(e, 5)
    assert lag == 3 and size == pytest.approx(np.corrcoef(e[3:, 0], e[:-3, 1])[0, 1], abs=0.02) and size < -0.8


def test_a_chance_that_underflows_is_a_bound():
    t = np.arange(3000.0)[:, None]
    assert portmanteau(t, 20).chance == "p < 1e-300"
    assert Test(20.0, 20, 0.4579, 20).chance == "p = 0.46"


def test_any_name_can_be_drawn(slow, tmp_path):
    found = identify(slow[:80], order=1, outputs=("$\\frac{ 温", "_" + "x\n" * 99))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(found, slow, found.model.predict(slow, np.zeros((160, 0)))[0], None, 80, tmp_path / "it.png", "$x^$")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_what_runs_away_or_stands_still_is_said_and_drawn(tmp_path):
    """A simulation that leaves the picture is drawn up to there; rows that stand still have no fit."""
    from matplotlib.figure import Figure

    from solomonic.theory.realization.draw import draw_rows, fit_label

    y = np.sin(np.arange(60.0))
    for away in (1.5 ** np.arange(60), np.where(np.arange(60) < 30, y, np.inf), np.full(60, np.nan)):
        axes = Figure().add_subplot()
        draw_rows(axes, y, y, away, slice(20, None))
        last = axes.lines[-1]
        first = int(np.argmax(~(np.abs(away[20:]) < 6)))
        assert len(last.get_xdata()) == first and last.get_label() == f"simulated, runs away from row {21 + first}"
    assert fit_label(np.ones(9), np.zeros(9)) == "no fit (nothing moves)"


def test_a_fit_is_no_number_where_nothing_moves_and_none_where_the_model_overflows():
    y = np.stack([np.sin(np.arange(9.0)), np.full(9, 7.0), np.sin(np.arange(9.0)), np.arange(9) % 2], 1)
    predicted = np.stack([y[:, 0], y[:, 1], np.full(9, np.inf), np.full(9, np.nan)], 1)
    assert fit(y, predicted).tolist() == pytest.approx([100, np.nan, -np.inf, -np.inf], nan_ok=True)
