from fractions import Fraction

import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def solve(equations):
    """The one w of all x w = y, by elimination in fractions; None where there are several, fails where none fits."""
    d = len(equations[0][0]) if equations else 0
    left, pivots = [[Fraction(value) for value in (*x, y)] for x, y in equations], []
    for column in range(d):
        pivot = next((row for row in left if row[column] and row not in pivots), None)
        if pivot is None:
            return None
        pivots.append(pivot)
        for i, row in enumerate(left):
            if row is not pivot:
                factor = row[column] / pivot[column]
                row[:] = [a - factor * b for a, b in zip(row, pivot)]
    assert all(any(row[:-1]) or not row[-1] for row in left), "no w fits"
    return [pivot[-1] / pivot[column] for column, pivot in enumerate(pivots)]


def check(tokens, targets, *, dimension=4, grid=2, every=False):
    """Every scored y is the one that the examples before determine."""
    d, zero = dimension, 2 * grid + 1 + dimension * grid**2
    examples, w = [], None
    for start in range(0, len(tokens), d + 1):
        x = [token - grid for token in tokens[start : start + d]]
        assert all(-grid <= value <= grid for value in x)
        asked = targets[start : start + d + 1]
        assert all(target == IGNORE for t, target in enumerate(asked) if t != d - 1)
        if len(x) < d:
            break
        if len(examples) >= d:
            w = w or solve(examples)
            assert all(entry.denominator == 1 and -grid <= entry <= grid for entry in w)
            assert asked[d - 1] == zero + sum(a * b for a, b in zip(w, x))
        else:
            assert (asked[d - 1] != IGNORE) == every
        if start + d == len(tokens):
            break
        y = tokens[start + d] - zero
        assert asked[d - 1] in (IGNORE, y + zero)
        examples.append((x, y))
    assert solve(examples) == w, "every example has the same w"


def test_docstring():
    check(*drawn("linear_regression"), dimension=2, grid=1)


@pytest.mark.parametrize(
    "dimension, grid, length", [(1, 1, 3), (1, 8, 9), (2, 1, 8), (4, 2, 24), (4, 2, 131), (8, 3, 200)]
)
def test_rows(dimension, grid, length):
    task = tasks.task("linear_regression", dimension=dimension, grid=grid, length=length)
    for tokens, targets in rows(task.test_batch(30, length, rng())):
        check(tokens, targets, dimension=dimension, grid=grid)
        assert len(tokens) == length
    for tokens, targets in rows(task.train_batch(30, rng(1))):
        check(tokens, targets, dimension=dimension, grid=grid, every=True)


def test_entries_are_uniform_and_the_largest_y_has_a_token():
    task = tasks.task("linear_regression", dimension=2, grid=1)
    tokens = task.test_batch(2000, 60, rng()).tokens.reshape(2000, 20, 3)
    later = tokens[:, 2:, :2].flatten()
    assert abs(np.bincount(later) / len(later) - 1 / 3).max() < 0.01
    assert tokens[..., 2].unique().tolist() == [3, 4, 5, 6, 7]
    weights = []
    for row in tokens.tolist():
        weights += [int(entry) for entry in solve([([a - 1, b - 1], y - 5) for a, b, y in row[:2]])]
    assert abs(np.bincount(np.array(weights) + 1) / len(weights) - 1 / 3).max() < 0.03


@pytest.mark.parametrize(
    "options",
    [dict(dimension=0), dict(dimension=9), dict(grid=0), dict(grid=9), dict(length=23), dict(lengths=(23, 46))],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("linear_regression", **options)


def test_defaults():
    task = tasks.task("linear_regression")
    assert (task.vocab_size, task.lengths, task.chance) == (38, (128, 256, 512, 1024), None)
    assert [task.label(token) for token in (0, 4, 5, 21, 37)] == ["x-2", "x2", "y-16", "y0", "y16"]
