"""Standard errors and intervals against closed forms, a library's estimator, and how often they cover what is known."""

import numpy as np
import pytest
from scipy import stats

from solomonic.compare.statistics import by_unit, interval, ratio, students_t


def drawn(rng, shift=0.0, seeds=1, seed_spread=0.0, documents=30):
    """Bits of two architectures on the same documents: hard and easy ones of other sizes; (K, U, 2) each."""
    size, hard = rng.integers(200, 2000, documents), rng.normal(2, 0.3, documents)

    def one(mean):
        bits = mean + hard + rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, 0.05, (seeds, documents))
        return np.stack([bits * size, np.broadcast_to(size, bits.shape)], -1)

    return one(shift), one(0.0)


def test_of_equal_rows_the_error_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(2, 1, (50, 16))
    sums, counts, units = by_unit(values, None)
    value, error = ratio(sums, counts)
    assert value == pytest.approx(values.mean()) and error == pytest.approx(stats.sem(values.mean(1)))
    assert counts.tolist() == [16] * 50 and units.tolist() == list(range(50))


def test_the_error_is_the_spread_of_scores_of_other_documents():
    """Documents of unequal size, of which hard ones are longer: the mean of their means would be another number."""
    rng, found = np.random.default_rng(1), []
    for _ in range(2000):
        size = rng.integers(100, 1000, 40)
        found.append(ratio(size * rng.normal(1 + size / 1000, 0.2), size))
    values, errors = map(np.array, zip(*found))
    assert errors.mean() == pytest.approx(values.std(), rel=0.06)
    size = np.arange(100, 1000)
    assert values.mean() == pytest.approx((size * (1 + size / 1000)).sum() / size.sum(), abs=0.01)


def test_unscored_positions_do_not_count():
    scores = np.array([[np.nan, 1, 0], [np.nan, np.nan, 1]])
    sums, counts, _ = by_unit(scores, None)
    assert (sums.tolist(), counts.tolist()) == ([1, 1], [2, 1])
    assert ratio(sums, counts)[0] == pytest.approx(2 / 3) and ratio(sums[:1], counts[:1])[1] is None


def test_rows_of_a_document_are_one_draw():
    """Every row ten times over says nothing new, and must not shrink the error."""
    rng = np.random.default_rng(2)
    rows, documents = rng.normal(2, 1, (60, 8)), np.repeat([7, 3, 5, 9, 1, 4], 10)
    once, often = by_unit(rows, documents), by_unit(np.tile(rows, (10, 1)), np.tile(documents, 10))
    assert once[2].tolist() == often[2].tolist() == [1, 3, 4, 5, 7, 9]
    assert ratio(*often[:2]) == pytest.approx(ratio(*once[:2]))
    apart = ratio(*by_unit(np.tile(rows, (10, 1)), None)[:2])[1]
    assert apart < 0.5 * ratio(*by_unit(rows, None)[:2])[1], "rows that are taken for draws do"
    one, other = (np.stack(by_unit(x, documents)[:2], -1)[None] for x in (rows, rows + rng.normal(0, 0.1, rows.shape)))
    assert interval(10 * one, 10 * other).half == pytest.approx(interval(one, other).half)


@pytest.mark.parametrize("seeds, spread", [(1, 0.0), (3, 0.05)])
def test_equal_architectures_are_told_apart_one_time_in_twenty(seeds, spread):
    """400 comparisons of equals: 0 is in 0.95 of the intervals, to two and a half standard errors of such a share."""
    rng = np.random.default_rng(3)
    found = [interval(*drawn(rng, seeds=seeds, seed_spread=spread)) for _ in range(400)]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.028)


def test_a_shift_is_found_that_unpaired_intervals_hide():
    one, other = drawn(np.random.default_rng(4), shift=0.05)
    found = interval(one, other)
    assert found.low < 0.05 < found.high and found.low > 0
    alone = interval(one), interval(other)
    assert alone[0].low < alone[1].high, "each interval holds the other's mean"
    assert found == interval(one, other) and interval(other, one).estimate == -found.estimate


def test_seeds_alone_give_students_interval():
    values = np.array([0.9, 0.7, 0.8])
    found = interval(np.stack([values, np.ones(3)], -1)[:, None])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    assert interval(np.array([[[0.9, 1.0]]])) is None


def test_no_spread_is_no_width():
    sample = np.ones((3, 20, 2))
    assert interval(sample) == (1.0, 0.0) and interval(sample, sample) == (0.0, 0.0)


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 4.6, 30, 1e9])
def test_students_t(freedom):
    assert students_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)
