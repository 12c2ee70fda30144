"""Linear regression in context: examples of y = w x, the y of the next one from those before (after arXiv 2208.01066).

One sample (dimension=2, grid=1, length=12; w = (1, -1)): 0-2 are the entries -1, 0, 1 of x, 3-7 the values -2 to 2 of
y, `.` is not scored.

              x   y   x   y   x   y   x   y
    tokens    2 1 6   0 2 3   1 2 4   2 2 5
    targets   . . .   . . .   . 4 .   . 5 .

Every row has weights w of its own. An example is the d entries of x, a token each, and y = w x. The entries of w and
x are whole numbers in [-grid, grid], uniform and independent, but that the first d x of a row are drawn again until
they are linearly independent. So y is a whole number in [-d grid^2, d grid^2], and its token is exact: the
quantisation is that of the grid, to steps of 1, with no error in y. The row is cut off after T tokens.

Scored is y, at the last entry of x, after the first d examples. There the examples before determine w, hence y: the
best accuracy is 1, by Gaussian elimination. Training has the y of every example as a target: before the first d are
there, no predictor gets all of them right.

The source has real w and x, both normal, and asks for the squared error after each number of examples; d = 20 there.
Here the best predictor is exact in whole numbers, and a model's error is not one of its resolution.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch

MOST = 8  # of dimension and grid: determinants are exact far beyond


class LinearRegression(RowTask):
    """Options:

    dimension  d, 1 to 8
    grid       the largest entry of w and x, 1 to 8
    length     training length, at least (d + 1) d + d
    lengths    test lengths; None: 1, 2, 4 and 8 times `length`
    """

    name = "linear_regression"
    summary = "the next y = w x from examples, whole numbers as tokens"

    def __init__(
        self,
        *,
        dimension: int = 4,
        grid: int = 2,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.dimension = _check.whole("dimension", dimension, 1, "x has one entry or more")
        self.grid = _check.whole("grid", grid, 1, "with 0 alone y would always be 0")
        for option, value in (("dimension", self.dimension), ("grid", self.grid)):
            if value > MOST:
                raise ValueError(
                    f"{option}: expected at most {MOST}, got {value}; y has 2 d grid^2 + 1 tokens: take less"
                )
        self.largest = self.dimension * self.grid**2  # |y|
        self.zero = 2 * self.grid + 1 + self.largest  # the token of y = 0
        self.vocab_size = self.zero + self.largest + 1
        self._take_lengths(length, lengths, (1, 2, 4, 8))

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        return self._rows(size, self._possible("length", length), rng, known=self.dimension)

    def label(self, token: int) -> str:
        return f"x{token - self.grid}" if token <= 2 * self.grid else f"y{token - self.zero}"

    def _possible(self, name: str, length: int) -> int:
        d = self.dimension
        return _check.whole(name, length, (d + 1) * d + d, f"{d} examples of {d + 1} tokens, and an x, are needed")

    def _rows(self, size: int, length: int, rng: np.random.Generator, known: int = 0) -> Batch:
        """Rows whose y are targets after the first `known` examples."""
        rows, d = _check.batch_size(size), self.dimension
        n = length // (d + 1) + 1
        w = rng.integers(-self.grid, self.grid + 1, size=(rows, d, 1))
        x = rng.integers(-self.grid, self.grid + 1, size=(rows, n, d))
        while (again := abs(np.linalg.det(x[:, :d])) < 0.5).any():  # a determinant is a whole number
            x[again, :d] = rng.integers(-self.grid, self.grid + 1, size=(int(again.sum()), d, d))

        examples = np.concatenate([self.grid + x, self.zero + x @ w], axis=2)
        targets = np.full_like(examples, IGNORE)
        targets[:, known:, d - 1] = examples[:, known:, d]
        return _draw.batch(examples.reshape(rows, -1)[:, :length], targets.reshape(rows, -1)[:, :length])
