"""Palindrome: a string, a separator, and the string in reverse (Reverse String of arXiv 2207.02098); it takes a stack.

One sample (symbols=4, length=8): 0-3 are symbols, 4 is the separator, `.` is not scored.

    tokens    2 0 3 1 4 1 3 0
    targets   . . . . 1 3 0 2

A row holds n symbols, drawn uniformly and independently, the separator, and the n symbols in reverse. Scored is the
reversal, each symbol at the position before it. n = T // 2 is the most for a row of T positions, in which the last
symbol need not stand: it may be a target only. Positions left over at the end hold separators, unscored.

With `scratchpad` the row also holds the working: the stack, from the top, after every push. For 2 0 3 1 this is

    2 0 3 1  4  2  4  0 2  4  3 0 2  4  1 3 0 2

Every line is the next symbol of the string, and then a copy of the line before: nothing is read backwards. The last
line is the answer. All that follows the first separator is scored, later separators too, and a position is right only
if all scored positions before it in its row are (`_scratchpad.py`): the score is that of a model that writes its own
working. The working of n symbols takes n (n + 5) / 2 - 1 positions: 13 symbols in a row of 128, where 64 fit without
it.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

Source of the definition: `tasks/dcf/reverse_string.py` of
github.com/google-deepmind/neural_networks_chomsky_hierarchy, with two symbols; there the answer is given at as many
blank positions, without what was answered before as input.
"""

from collections.abc import Iterable
from math import isqrt

import numpy as np

from . import _check, _draw
from ._scratchpad import ScratchpadTask
from .base import IGNORE, Batch


class Palindrome(ScratchpadTask):
    """Options:

    symbols     size of the alphabet, at least 2; the separator is one token more
    scratchpad  whether rows hold the working
    length      training length, at least 2
    lengths     test lengths; None: 1, 2 and 4 times `length`
    """

    least = 2  # a symbol and the separator
    name = "palindrome"
    summary = "a string in reverse, which takes a stack (Chomsky hierarchy)"
    grows = True

    def __init__(
        self,
        *,
        symbols: int = 8,
        scratchpad: bool = False,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.symbols = _check.whole("symbols", symbols, 2, "one symbol would leave nothing to predict")
        self.scratchpad = _check.flag("scratchpad", scratchpad)
        self.vocab_size = self.symbols + 1
        self.chance = None if self.scratchpad else 1 / self.symbols
        self._take_lengths(length, lengths, (1, 2, 4))

    def label(self, token: int) -> str:
        return "=" if token == self.symbols else str(token)

    def _possible(self, name: str, length: int) -> int:
        return _check.whole(name, length, self.least, "a row holds a symbol and the separator")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows = _check.batch_size(size)
        n = (isqrt(8 * length + 33) - 5) // 2 if self.scratchpad else length // 2
        places = list(range(n))  # in the string, of every token of the row; -1 is the separator
        for pushed in range(1, n + 1) if self.scratchpad else (n,):
            places += [-1, *range(pushed)[::-1]]
        end = len(places) - 1  # of what is scored
        places += [-1] * (length - end)

        symbols = np.full((rows, n + 1), self.symbols)  # the last column is the separator
        symbols[:, :n] = rng.integers(self.symbols, size=(rows, n))
        row = symbols[:, places]
        targets = np.full((rows, length), IGNORE)
        targets[:, n:end] = row[:, n + 1 : end + 1]
        return _draw.batch(row[:, :-1], targets)
