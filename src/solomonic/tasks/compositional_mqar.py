"""Compositional recall: multi-query associative recall in which a key is two tokens, of a grid (Zoology, arXiv 2312.04927).

One sample (vocab_size=12, grid=2, length=27): first tokens of keys are 1-3, second ones 4-7, values 8-11, `.` is not scored.

              keys and values                questions
    tokens    1 5 9  3 4 8  1 4 11  3 5 10   1 5 0  3 4 0  0 0 0  3 5  0  1 4  0
    targets   . . .  . . .  . . .   . . .    . 9 .  . 8 .  . . .  . 10 .  . 11 .

A row draws `grid` first tokens, of [1, V/3), and as many second ones, of [V/3, 2V/3): the keys are all g^2 pairs of them,
in random order, each with a value of [2V/3, V), no value twice. So neither token alone says the value. The other positions
hold a question for each key in slots of three, drawn as in `mqar`: the key and a position between. The target is the
value, at the position of the key's second token. The positions left over hold zeros, or tokens of the whole vocabulary.

Source of the definition: `zoology/data/compositional_ar.py` of github.com/HazyResearch/zoology, with a grid of 2 and random
filler. A slot there, as here, takes three positions; what does not fill one stands at the end.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class CompositionalMqar(RowTask):
    """Options:

    vocab_size  V, with V // 3 > grid, and values enough
    grid        g: g^2 keys
    filler      "zero" or "random"
    length      training length, at least 6 g^2
    lengths     test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "compositional_mqar"
    summary = "multi-query associative recall with keys of two tokens, neither of which is enough (Zoology)"

    def __init__(
        self,
        *,
        vocab_size: int = 192,
        grid: int = 3,
        filler: str = "zero",
        length: int = 64,
        lengths: Iterable[int] | None = None,
    ):
        self.grid = _check.whole("grid", grid, 1, "a grid has one key or more")
        self.pairs = self.grid**2
        advice = f"a third each is for first tokens and zero, second tokens, and {self.pairs} values"
        self.vocab_size = _check.whole("vocab_size", vocab_size, max(6, 3 * self.grid + 3, 3 * self.pairs - 2), advice)
        self.third = self.vocab_size // 3
        self.chance = 1 / (self.vocab_size - 2 * self.third)
        self.filler = _check.one_of("filler", filler, ("zero", "random"))
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def marks(self, batch: Batch) -> list[int]:
        return list(range(2, 3 * self.pairs, 3))

    def label(self, token: int) -> str:
        if token == 0:
            return "0"
        return f"{'kqv'[min(token // self.third, 2)]}{token}"

    def _possible(self, name: str, length: int) -> int:
        return _check.whole(name, length, 6 * self.pairs, f"{self.pairs} keys and values and the questions take it")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n, head = _check.batch_size(size), self.pairs, 3 * self.pairs
        firsts = 1 + _draw.distinct(rng, rows, self.grid, self.third - 1)
        seconds = self.third + _draw.distinct(rng, rows, self.grid, self.third)
        cell = rng.random((rows, n)).argsort(axis=1)
        first = np.take_along_axis(firsts, cell // self.grid, 1)
        second = np.take_along_axis(seconds, cell % self.grid, 1)
        values = 2 * self.third + _draw.distinct(rng, rows, n, self.vocab_size - 2 * self.third)

        if self.filler == "random":
            tokens = rng.integers(self.vocab_size, size=(rows, length))
        else:
            tokens = np.zeros((rows, length), dtype=np.int64)
        tokens[:, 0:head:3], tokens[:, 1:head:3], tokens[:, 2:head:3] = first, second, values
        asked = head + 3 * _draw.early_slots(rng, rows, (length - head) // 3, n)
        np.put_along_axis(tokens, asked, first, 1)
        np.put_along_axis(tokens, asked + 1, second, 1)
        targets = np.full_like(tokens, IGNORE)
        np.put_along_axis(targets, asked + 1, values, 1)
        return _draw.batch(tokens, targets)
