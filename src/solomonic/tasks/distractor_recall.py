"""Recall across distractors: pairs, then noise of any length, then every key is asked once.

One sample (pairs=2, keys=4, values=4, length=12): keys are the tokens 0-3, values 4-7, `.` is not scored.

              pairs     distractors  asked
    tokens    3 5 0 6   7 4 4 6      0 6 3 5
    targets   . . . .   . . . .      6 . 5 .

The keys of a row are distinct. Values are drawn uniformly and independently, so that a guess among the values is
right with probability 1/values exactly. Distractors are drawn uniformly from the values: only what stands beside
a key tells a value to remember from one to forget. The value follows its key in the questions too, unscored.

Only the number of distractors grows with the length: what is to be remembered stays the same, and the curve over
lengths shows how long the memory holds. There is no outside source; the task is this library's own.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class DistractorRecall(RowTask):
    """Options:

    pairs    key-value pairs of a row
    keys     size of the key range, tokens [0, keys); at least `pairs`
    values   size of the value range, tokens [keys, keys + values)
    length   training length, at least 4 pairs
    lengths  test lengths; None: 1, 2, 4 and 8 times `length`
    easy     share of training that begins with short rows of few pairs, which grow to full size; 0: full size always.
             Binding a value to its key, and finding the key again, are learnt together or not at all: with few pairs
             either half pays sooner, with many a model may guess among the values for long (docs/log.md)
    """

    name = "distractor_recall"
    summary = "key-value pairs, then distractors of any length, then every key is asked once"

    def __init__(
        self,
        *,
        pairs: int = 16,
        keys: int = 32,
        values: int = 32,
        length: int = 96,
        lengths: Iterable[int] | None = None,
        easy: float = 0.6,
    ):
        self.pairs = _check.whole("pairs", pairs, 1, "ask for one pair or more")
        advice = "the keys of a row are distinct: take more keys, or fewer pairs"
        self.keys = _check.whole("keys", keys, self.pairs, advice)
        self.values = _check.whole("values", values, 2, "one value would leave nothing to remember")
        self.vocab_size = self.keys + self.values
        self.chance = 1 / self.values
        if not isinstance(easy, (int, float)) or isinstance(easy, bool) or not 0 <= easy <= 1:
            raise ValueError(f"easy: expected a share in [0, 1], got {easy!r}; pass 0 for rows of full size only")
        self.easy = easy
        self._take_lengths(length, lengths, (1, 2, 4, 8))

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        if not self.easy:
            return self._rows(size, self.length, rng)
        grown = min(1.0, progress / self.easy)
        halved = [self.pairs >> i for i in range(self.pairs.bit_length() - 1)] or [1]  # 16, 8, 4, 2
        most = round(halved[-1] * (self.pairs / halved[-1]) ** grown)
        pairs = int(rng.choice([n for n in halved if n <= most]))
        shortest = 4 * halved[-1]
        longest = max(4 * most, round(shortest * (self.length / shortest) ** grown))
        length = longest if rng.random() < 0.5 else int(rng.integers(4 * pairs, longest + 1))
        return self._rows(size, length, rng, pairs)

    def marks(self, batch: Batch) -> list[int]:
        return list(range(1, 2 * self.pairs, 2))

    def label(self, token: int) -> str:
        return f"k{token}" if token < self.keys else f"v{token - self.keys}"

    def _possible(self, name: str, length: int) -> int:
        return _check.whole(name, length, 4 * self.pairs, f"{self.pairs} pairs take 4 tokens each")

    def _rows(self, size: int, length: int, rng: np.random.Generator, pairs: int | None = None) -> Batch:
        rows, n = _check.batch_size(size), pairs or self.pairs
        keys = _draw.distinct(rng, rows, n, self.keys)
        tokens = rng.integers(self.keys, self.vocab_size, size=(rows, length))  # every value and distractor
        values = tokens[:, 1 : 2 * n : 2]
        tokens[:, 0 : 2 * n : 2] = keys

        asked = rng.random((rows, n)).argsort(axis=1)
        answers = np.take_along_axis(values, asked, 1)
        tokens[:, length - 2 * n :: 2] = np.take_along_axis(keys, asked, 1)
        tokens[:, length - 2 * n + 1 :: 2] = answers

        targets = np.full_like(tokens, IGNORE)
        targets[:, length - 2 * n :: 2] = answers
        return _draw.batch(tokens, targets)
