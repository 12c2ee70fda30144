"""The shared draws: against counts and a plain loop."""

import itertools
from collections import Counter

import numpy as np
import pytest

from solomonic.tasks._draw import distinct, early_slots, first_of, rank_of_its_kind, scattered

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


def test_scattered_blocks_do_not_overlap_and_each_depth_is_uniform():
    starts = scattered(rng(), 20000, 2, 3, 8)
    assert starts.min() == 0 and starts.max() == 8 - 3 and (np.diff(starts, axis=1) >= 3).all()
    depths = itertools.product(range(3), repeat=2)  # two positions are free: a block has 0, 1 or 2 of them before it
    expected = Counter(tuple(sorted(pair)) for pair in depths)
    seen = Counter(map(tuple, (starts - [0, 3]).tolist()))
    assert set(seen) == set(expected) and all(abs(seen[at] / 20000 - expected[at] / 9) < 0.012 for at in seen)
    assert scattered(rng(), 2, 3, 4, 12).tolist() == [[0, 4, 8]] * 2


def test_rank_of_its_kind():
    kinds = rng().integers(4, size=(20, 15))
    expected = [[row[:i].count(kind) for i, kind in enumerate(row)] for row in kinds.tolist()]
    assert rank_of_its_kind(kinds, 4).tolist() == expected


def test_early_slots_are_draws_without_replacement_by_weight():
    slots = early_slots(rng(), 20000, 4, 2, a=0.0)
    weights = 1 / np.arange(1, 5)
    p = weights / weights.sum()
    assert abs(np.bincount(slots[:, 0]) / 20000 - p).max() < 0.015
    second = [sum(p[i] * p[j] / (1 - p[i]) for i in range(4) if i != j) for j in range(4)]
    assert abs(np.bincount(slots[:, 1]) / 20000 - second).max() < 0.015
    assert (slots[:, 0] != slots[:, 1]).all()
