"""The shared draws: against counts and a plain loop."""

import itertools
from collections import Counter

import numpy as np
import pytest

from solomonic.tasks._draw import distinct, first_of

from .samples import rng


def test_first_of():
    codes = rng().integers(5, size=(20, 12))
    expected = [[row.index(code) for code in row] for row in codes.tolist()]
    assert first_of(codes).tolist() == expected


@pytest.mark.parametrize("count, n", [(2, 3), (2, 8), (3, 12)])  # a permutation's head; repeats drawn again, twice
def test_distinct_draws_every_ordered_choice_equally_often(count, n):
    rows = 60 * len(list(itertools.permutations(range(n), count)))
    seen = Counter(map(tuple, distinct(rng(), rows, count, n).tolist()))
    assert set(seen) == set(itertools.permutations(range(n), count))
    expected = rows / len(seen)
    chi2 = sum((k - expected) ** 2 / expected for k in seen.values())
    assert abs(chi2 - (len(seen) - 1)) < 5 * np.sqrt(2 * len(seen))
