"""Modular arithmetic: the value of an expression of numbers modulo m with + - *, without brackets (arXiv 2207.02098).

One sample (modulus=5, length=8): 0-4 are numbers, 5 is +, 6 is -, 7 is *, 8 is =; `.` is not scored.

              1 + 2 * 3 - 4 =
    tokens    1 5 2 7 3 6 4 8
    targets   . . . . . . . 3

A row of T positions is n = T // 2 numbers with n - 1 operators between them, all drawn uniformly and independently, and
"=". Products come before sums and differences, which go from left to right. Scored is the value alone, at "=". Where a
position is left over at the end it repeats "=", unscored.

With `scratchpad` "=" is followed by the working, read from left to right: after each number the sum of the terms that
are complete, then the term that is not, with its sign, both modulo m. Another "=" and the value follow, which is the
sum of the last two. For 1 + 2 * 3 - 4 this is

    1 5 2 7 3 6 4  8  0 1  1 2  1 1  2 1  8  3

All that follows the first "=" is scored, and a position is right only if all scored positions before it in its row are
(`_scratchpad.py`): the score is that of a model that writes its own working. It has n = (T - 1) // 4 numbers.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

Source of the definition: `tasks/regular/modular_arithmetic.py` of
github.com/google-deepmind/neural_networks_chomsky_hierarchy, modulus 5, in which a blank stands for "=". The language
is regular: two numbers modulo m are all its state.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._scratchpad import ScratchpadTask
from .base import IGNORE, Batch

PLUS, MINUS, TIMES = range(3)


class ModularArithmetic(ScratchpadTask):
    """Options:

    modulus     m, at least 2
    scratchpad  whether rows hold the working
    length      training length, at least 2, with scratchpad 5
    lengths     test lengths; None: 1, 2 and 4 times `length`
    """

    name = "modular_arithmetic"
    summary = "the value of an expression modulo m without brackets (Chomsky hierarchy)"
    grows = True

    def __init__(
        self,
        *,
        modulus: int = 5,
        scratchpad: bool = False,
        length: int = 64,
        lengths: Iterable[int] | None = None,
    ):
        self.modulus = _check.whole("modulus", modulus, 2, "one number would leave nothing to predict")
        self.scratchpad = _check.flag("scratchpad", scratchpad)
        self.equals = self.modulus + 3
        self.vocab_size = self.modulus + 4
        self.chance = None if self.scratchpad else 1 / self.modulus
        self.least = 5 if self.scratchpad else 2
        self._take_lengths(length, lengths, (1, 2, 4))

    def label(self, token: int) -> str:
        return str(token) if token < self.modulus else "+-*="[token - self.modulus]

    def _possible(self, name: str, length: int) -> int:
        return _check.whole(name, length, self.least, "a row holds a number and = at least, and what is asked")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows = _check.batch_size(size)
        n = (length - 1) // 4 if self.scratchpad else length // 2
        numbers = rng.integers(self.modulus, size=(rows, n))
        operators = rng.integers(3, size=(rows, n - 1))
        sums, terms = np.zeros_like(numbers), numbers.copy()
        for i in range(1, n):
            operator, number = operators[:, i - 1], numbers[:, i]
            times = operator == TIMES
            sums[:, i] = np.where(times, sums[:, i - 1], (sums[:, i - 1] + terms[:, i - 1]) % self.modulus)
            signed = np.where(operator == MINUS, -number, number)
            terms[:, i] = np.where(times, terms[:, i - 1] * number, signed) % self.modulus

        row = np.full((rows, length + 1), self.equals)
        row[:, 0 : 2 * n : 2], row[:, 1 : 2 * n - 1 : 2] = numbers, self.modulus + operators
        end = 2 * n
        if self.scratchpad:
            row[:, 2 * n : 4 * n : 2], row[:, 2 * n + 1 : 4 * n : 2] = sums, terms
            end = 4 * n + 1
        row[:, end] = (sums[:, -1] + terms[:, -1]) % self.modulus
        targets = np.full((rows, length), IGNORE)
        targets[:, 2 * n - 1 : end] = row[:, 2 * n : end + 1]
        return _draw.batch(row[:, :-1], targets)
