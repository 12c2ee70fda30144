"""Residual stacks do not know the unit of a series, nor where its zero is; and how rare a row is, by ranks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solomonic.theory.residual import stack
from solomonic.theory.residual.layers import Level, Linear, Seasonal
from solomonic.theory.residual.series import Series
from solomonic.theory.residual.stack import Gated, Novelty, Seasons
from solomonic.theory.residual.surprise import APART, Surprise, first_of_events

DAY = 24
LAYERS = [Level(50), Seasonal(DAY), Linear(4, 200), Gated(Seasonal(7)), Seasons((12, DAY))]


def series(rows=500, seed=0):
    """A day of DAY rows, noise, a jump at row 400, in multiples of 2^-10 so that a whole number added is exact."""
    noise = np.random.default_rng(seed)
    x = 3 * np.cos(2 * np.pi * np.arange(rows) / DAY) ** 3 + 0.4 * noise.standard_normal(rows)
    x[400:] += 4
    return np.round(x * 1024) / 1024


X = series()
FOUND = stack((DAY,)).run(X)[0]


@pytest.mark.parametrize("power", [-500, -333, -1, 10, 500])
def test_a_power_of_two_changes_no_bit(power):
    found = stack((DAY,)).run(np.ldexp(X, power))[0]
    np.testing.assert_array_equal(found.surprise, FOUND.surprise)
    np.testing.assert_array_equal(found.scores, FOUND.scores)
    np.testing.assert_array_equal(found.residuals, np.ldexp(FOUND.residuals, power))
    np.testing.assert_array_equal(found.predictions, np.ldexp(FOUND.predictions, power))


@pytest.mark.parametrize("offset", [1.0, -3.0, 1e6, -(2.0**40)])
def test_an_offset_that_is_added_without_rounding_changes_no_bit(offset):
    found = stack((DAY,)).run(X + offset)[0]
    np.testing.assert_array_equal(found.surprise, FOUND.surprise)
    np.testing.assert_array_equal(found.residuals, FOUND.residuals)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.floats(-150, 150), st.sampled_from([-1, 1]), st.floats(-1e3, 1e3))
def test_no_unit_and_no_offset_changes_what_is_rare(power, sign, offset):
    found = stack((DAY,)).run(sign * 10**power * (X + offset))[0]
    np.testing.assert_allclose(found.surprise, FOUND.surprise, rtol=1e-6, atol=1e-6)
    assert (found.scores > 0).tolist() == (FOUND.scores > 0).tolist()


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-9, 1e-6, 1e150, 1e155, 1e300])
@pytest.mark.parametrize("periods", [(), (50,)])
def test_a_sine_with_a_jump_scores_alike_in_every_unit(scale, periods):
    x = np.sin(2 * np.pi * np.arange(400) / 50)
    x[300:] += 2
    one, other = (stack(periods).run(y)[0] for y in (x, scale * x))
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-9)
    assert one.scores.argmax() == 300


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_unit_law_of_layers(layer):
    x = X[:200] - X[0]
    whole, state = layer.run(x)
    for power in (-900, -40, 7, 800):
        found, other = layer.run(np.ldexp(x, power))
        np.testing.assert_array_equal(found, np.ldexp(whole, power))
        assert other["unit"] == state["unit"] + power


@pytest.mark.parametrize("leap", [2.0**10, 2.0**250, 2.0**700])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_outgrows_the_unit_it_began_with(layer, leap):
    """Zeros, a first number that is nearly another, and then the series."""
    x = np.concatenate([[0, 0, 0, 1 / leap, 0], X])
    whole, state = layer.run(x)
    parts, other = [], None
    for piece in np.split(x, [0, 2, 4, 9, 300]):
        part, other = layer.run(piece, other)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-9, atol=1e-12)
    assert state["unit"] == other["unit"]
    assert state["unit"] == np.frexp(1 / leap)[1] or leap > 2**200
    assert np.isfinite(whole).all() and np.abs(x - whole)[400:].mean() < np.abs(X).max()


def test_novelty_knows_no_unit_of_any_stage():
    residuals = FOUND.residuals
    nats, _ = Novelty().run(residuals)
    other, _ = Novelty().run(np.ldexp(residuals, [-480, 0, 480]))
    np.testing.assert_array_equal(nats, other)
    with_zeros, _ = Novelty().run(np.column_stack([residuals, np.zeros(len(residuals))]))
    np.testing.assert_allclose(with_zeros, nats)


def test_a_series_that_is_only_its_season_surprises_nobody():
    """A day that comes back exactly; and a row of it that does not."""
    x = np.tile((np.arange(DAY) > 9) * 7.0, 60)
    assert stack((DAY,)).run(x)[0].scores[4 * DAY :].max() < 2
    x[1000] += 1
    assert 1000 <= 4 * DAY + stack((DAY,)).run(x)[0].scores[4 * DAY :].argmax() < 1012


@pytest.mark.parametrize("value", [-9999.0, 1e20, 1e100, 1e300])
def test_one_wrong_value_does_not_hide_what_follows(value):
    x = X.copy()
    x[150] = value
    scores = stack((DAY,)).run(x)[0].scores
    assert scores[150] == scores[:200].max()
    assert 400 <= 300 + scores[300:].argmax() < 412


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(60),
        np.full(60, -1e308),
        np.r_[np.zeros(50), 1.0, np.zeros(20)],
        np.r_[0.0, 5e-324, np.arange(60) % 7],
        np.r_[1e-300, 1e300, np.arange(60) % 7, 1e-300],
        np.tile([1e300, -1e300], 40),
        np.arange(80) * 1e-310,
        2.0 ** np.arange(-900, 900, 20),
        np.arange(60) % 2 == 0,
    ],
    ids=range(9),
)
def test_whatever_is_finite_gives_finite_scores(x):
    with np.errstate(all="raise", under="ignore"):
        found, state = stack((7,)).run(x)
        again, _ = stack((7,)).run(x[:5], state)
    for values in (found.scores, found.surprise, found.residuals, found.predictions, again.scores):
        assert np.isfinite(values).all()


def test_a_range_that_no_float_holds_is_refused():
    with pytest.raises(ValueError, match="divide it"):
        stack().run([1e308, -1e308] * 50)


@pytest.mark.parametrize("scale", [1e-310, 1.0, 3e307])
@pytest.mark.parametrize("name", ["load", "Leistung $k_W [MW] of a long name, much longer than an axis can take"])
def test_a_picture_of_any_unit_and_name(scale, name):
    draw = pytest.importorskip("solomonic.theory.residual.picture").draw
    x = np.clip(X, -4, 4) / 4 * scale
    found = stack((DAY,)).run(x)[0]
    series = Series(name, x, None, None, [], 1)
    with np.errstate(all="raise", under="ignore"):
        png = draw(series, found.names, found.predictions.sum(1), found.residuals, found.surprise, [])
    assert png.startswith(b"\x89PNG")


# how rare


def test_surprise_by_hand():
    """Of the rows before, how many are as high; and the mean of two such shares."""
    values = np.array([[1.0, 5.0], [2.0, 5.0], [2.0, 0.0], [0.5, 6.0], [3.0, np.nan]])
    nats, _ = Surprise().run(values)
    odds = [(1, 1), (2, 2 / 2), (3 / 2, 1), (4 / 4, 4), (5, 1)]
    np.testing.assert_allclose(nats, [2 * math.log((math.sqrt(a) + math.sqrt(b)) / 2) for a, b in odds])


def test_rounding_decides_no_rank():
    values = np.array([1.0, 1 + 1e-12, 1 - 1e-12, 1 + 1e-6])[:, None]
    np.testing.assert_allclose(np.exp(Surprise().run(values)[0]), [1, 1, 1, 4])


def test_surprise_remembers_a_span_and_is_the_same_in_parts():
    values = np.random.default_rng(1).exponential(size=(300, 2))
    values[40:60, 1] = np.nan
    values[values < 0.05] = 0
    memory = Surprise(span=50)
    whole, state = memory.run(values)
    for t in (120, 299):
        past = values[t - 50 : t]
        odds = (1 + (~np.isnan(past)).sum(0)) / (1 + (past >= values[t]).sum(0))
        assert whole[t] == pytest.approx(2 * math.log(np.sqrt(np.where(values[t] > 0, odds, 1)).mean()))
    parts, other = [], None
    for piece in np.split(values, [0, 1, 45, 52, 52, 200]):
        part, other = memory.run(piece, other)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(other["past"], state["past"])
    assert len(state["past"]) == 50


def test_an_event_alarms_where_it_rises_and_no_more():
    nats = np.zeros(3 * APART)
    nats[[10, 11, 12, 40, 11 + APART, 12 + APART, 13 + APART]] = 3, 5, 4, 4.5, 5, 2, 3
    found, _ = first_of_events(nats)
    assert np.flatnonzero(found).tolist() == [10, 11]
    nats[11 + APART] = 0
    found, _ = first_of_events(nats)
    assert np.flatnonzero(found).tolist() == [10, 11]  # 4.5 at 40 is still near
    nats[40] = 0
    assert np.flatnonzero(first_of_events(nats)[0]).tolist() == [10, 11, 13 + APART]
    one, state = first_of_events(nats[:60])
    np.testing.assert_array_equal(np.r_[one, first_of_events(nats[60:], state)[0]], first_of_events(nats)[0])
