"""Dyck-(k, m): nested brackets of k kinds, at most m open at once; say which kind closes (arXiv 2010.07515).

One sample (kinds=3, depth=2, length=9, train_targets="closing"): 0-2 open a bracket of each kind, 3-5 close it, `.` is
not scored.

              ( [ ] { } ) { } [
    tokens    0 1 4 2 5 3 2 5 1
    targets   . 4 . 5 3 . 5 . 4

A row is the beginning of an endless word. With no bracket open, one is opened; with m open, the last is closed; else
either is equally likely. The kind that opens is uniform. What closes is the last bracket that is open: a stack of m
kinds is all that there is to remember. Scored are the positions whose next token closes a bracket; its kind is the
target. The tokens before say the kind, but (below m) not that it closes: where both are possible, a model of the
language gives the right closing bracket 1/2 and every opening one 1/(2k), so that its largest logit is right.

While training, the target of every position is the next token, as in the paper (`train_targets="next"`); with
"closing" the training targets are the scored ones.

Source of the definition: `rnns-stacks/generate_mbounded_dyck.py` of github.com/john-hewitt/dyckkm-learning, the
paper's k = 8. Two differences: there a word may also end where no bracket is open, here the next one follows without
an end; and the paper counts a closing bracket as right where its share of the probability of all closing ones is
above 0.8.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class Dyck(RowTask):
    """Options:

    kinds          k, at least 2: tokens [0, k) open, [k, 2k) close
    depth          m, the most brackets that are open at once
    length         training length, at least m
    lengths        test lengths; None: 1, 2, 4 and 8 times `length`
    train_targets  "next": every next token; "closing": the scored ones
    """

    name = "dyck"
    summary = "nested brackets of bounded depth: which kind closes"

    def __init__(
        self,
        *,
        kinds: int = 8,
        depth: int = 5,
        length: int = 128,
        lengths: Iterable[int] | None = None,
        train_targets: str = "next",
    ):
        self.kinds = _check.whole("kinds", kinds, 2, "one kind would leave nothing to predict")
        self.depth = _check.whole("depth", depth, 1, "a bracket that is closed was open")
        self.vocab_size = 2 * self.kinds
        self.chance = 1 / self.kinds
        self.train_targets = _check.one_of("train_targets", train_targets, ("next", "closing"))
        self._take_lengths(length, lengths, (1, 2, 4, 8))

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        row = self._words(size, self.length, rng)
        return _draw.batch(row[:, :-1], row[:, 1:] if self.train_targets == "next" else self._closing(row))

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        row = self._words(size, length, rng)
        return _draw.batch(row[:, :-1], self._closing(row))

    def label(self, token: int) -> str:
        return f"({token}" if token < self.kinds else f"{token - self.kinds})"

    def _possible(self, name: str, length: int) -> int:
        return _check.whole(name, length, self.depth, f"{self.depth} brackets may open before the first that closes")

    def _closing(self, row: np.ndarray) -> np.ndarray:
        return np.where(row[:, 1:] >= self.kinds, row[:, 1:], IGNORE)

    def _words(self, size: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """(B, T + 1) tokens."""
        rows = _check.batch_size(size)
        row, height = np.arange(rows), np.zeros(rows, dtype=np.int64)
        stack = np.zeros((rows, self.depth + 1), dtype=np.int64)  # the last column is void: no bracket opens there
        kinds = rng.integers(self.kinds, size=(rows, length + 1))
        coins = rng.random((rows, length + 1)) < 0.5
        tokens = np.empty((rows, length + 1), dtype=np.int64)
        for t in range(length + 1):
            closes = (height == self.depth) | ((height > 0) & coins[:, t])
            tokens[:, t] = np.where(closes, self.kinds + stack[row, height - 1], kinds[:, t])
            stack[row, height] = kinds[:, t]
            height = np.where(closes, height - 1, height + 1)
        return tokens
