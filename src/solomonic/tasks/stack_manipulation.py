"""Stack manipulation: a stack, then pushes and pops, then the stack that results, from its top (arXiv 2207.02098).

One sample (symbols=2, length=11): 0-1 are symbols, 2-3 push 0 and 1, 4 pops, 5 is the separator, 6 ends the stack,
`.` is not scored.

    tokens    0 1 1 4 3   5 1 1 0 6 5
    targets   . . . . .   1 1 0 6 . .

A row begins with L tokens: a stack of 1 to L - 1 symbols, uniformly many, from its bottom; then actions. A third of
the actions pop, the others push a symbol; symbols are drawn uniformly. To pop an empty stack does nothing. Then come
the separator, the stack from its top, and its end. Scored are the stack and its end, each at the position before it.
L = (T - 1) // 2 is the most for which every stack fits a row of T positions, in which its end need not stand: it may
be a target only. Positions left over at the end hold separators, unscored.

With `scratchpad` the row also holds the working: the stack, from its top, after every one of the L tokens, where a
symbol of the first stack is a push like any other. Separators stand between the stacks. For 0 1 4 2 this is

    0 1 4 2  5  0  5  1 0  5  0  5  0 0  6

The last stack is the answer. All that follows the first separator is scored, and a position is right only if all
scored positions before it in its row are (`_scratchpad.py`): the score is that of a model that writes its own
working. L is the most for which L (L + 5) / 2 <= T: 13 in a row of 128.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

Source of the definition: `tasks/dcf/stack_manipulation.py` of
github.com/google-deepmind/neural_networks_chomsky_hierarchy, with two symbols and the three actions equally likely,
as here by default; there the answer is given at L + 1 blank positions, without what was answered before as input.
"""

from collections.abc import Iterable
from math import isqrt

import numpy as np

from . import _check, _draw
from ._scratchpad import ScratchpadTask
from .base import IGNORE, Batch

POPS = 1 / 3  # share of the actions


class StackManipulation(ScratchpadTask):
    """Options:

    symbols     size k of the alphabet, at least 2; k tokens push one, three more pop, separate and end
    scratchpad  whether rows hold the working
    length      training length, at least 5, with scratchpad 7
    lengths     test lengths; None: 1, 2 and 4 times `length`
    """

    name = "stack_manipulation"
    summary = "the stack that results from pushes and pops (Chomsky hierarchy)"
    grows = True

    def __init__(
        self,
        *,
        symbols: int = 2,
        scratchpad: bool = False,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.symbols = _check.whole("symbols", symbols, 2, "one symbol would leave only the height to predict")
        self.scratchpad = _check.flag("scratchpad", scratchpad)
        self.pop, self.separator, self.end = (2 * self.symbols + i for i in range(3))
        self.vocab_size = 2 * self.symbols + 3
        self.least = 7 if self.scratchpad else 5
        self._take_lengths(length, lengths, (1, 2, 4))

    def label(self, token: int) -> str:
        if token < self.symbols:
            return str(token)
        return {self.pop: "pop", self.separator: "=", self.end: "end"}.get(token, f"+{token - self.symbols}")

    def _possible(self, name: str, length: int) -> int:
        return _check.whole(name, length, self.least, "a row holds a symbol, an action and the stack that results")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows = _check.batch_size(size)
        n = (isqrt(8 * length + 25) - 5) // 2 if self.scratchpad else (length - 1) // 2
        place = np.arange(n)
        symbols = rng.integers(self.symbols, size=(rows, n))
        acts = place >= rng.integers(1, n, size=(rows, 1))
        pops = acts & (rng.random((rows, n)) < POPS)
        stacks, heights = _run(symbols, pops, every=self.scratchpad)

        row = np.full((rows, length + 2), self.separator)  # one token more than T; the last column takes what is void
        row[:, :n] = np.where(pops, self.pop, symbols + self.symbols * acts)
        stops = n + 1 + (heights + 1).cumsum(1) - 1  # the separator behind each stack, or the end
        inside = place < heights[..., None]
        at = np.where(inside, stops[..., None] - 1 - place, length + 1)
        np.put_along_axis(row, at.reshape(rows, -1), stacks.reshape(rows, -1), 1)
        last = stops[:, -1:]
        np.put_along_axis(row, last, self.end, 1)
        position = np.arange(length)
        return _draw.batch(row[:, :length], np.where((position >= n) & (position < last), row[:, 1:-1], IGNORE))


def _run(symbols: np.ndarray, pops: np.ndarray, every: bool) -> tuple[np.ndarray, np.ndarray]:
    """Stacks from the bottom, (B, K, n), and their heights, (B, K): after every one of the n tokens (K = n), or after
    the last (K = 1). What lies above a stack's height is void."""
    rows, n = symbols.shape
    row, height, stack = np.arange(rows), np.zeros(rows, dtype=np.int64), np.zeros_like(symbols)
    stacks, heights = [], []
    for t in range(n):
        stack[row, np.minimum(height, n - 1)] = symbols[:, t]  # void where it pops
        height = np.where(pops[:, t], np.maximum(height - 1, 0), height + 1)
        if every or t == n - 1:
            stacks.append(stack.copy())
            heights.append(height)
    return np.stack(stacks, 1), np.stack(heights, 1)
