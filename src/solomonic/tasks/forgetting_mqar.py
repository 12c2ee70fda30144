"""Forgetting: multi-query associative recall in which some keys are given a new value (Zoology, arXiv 2312.04927).

One sample (vocab_size=16, pairs=2, updates=1, length=14): keys are the tokens 1-7, values 8-15, `.` is not scored.

              pairs      update  questions
    tokens    3 12 5 9   3 14    5 0 0 0 3  0 0 0
    targets   . .  . .   . .     9 . . . 14 . . .

A row holds n pairs at its head, keys drawn from [1, V/2) and values from [V/2, V), no repeats; then `updates` of the keys
again, drawn without replacement, each with a value that is another than its first. The other positions, in slots of two,
hold the questions as in `mqar`: each key once, early pairs tend to be asked early. The target is the key's last value, at
the key's position. The positions left over hold zeros, or tokens of the whole vocabulary, which may look like one update
more: "random" is for vocabularies that are large against the row.

Source of the definition: `zoology/data/forgetting_mqar.py` of github.com/HazyResearch/zoology, with n = 8, 4 updates and
random filler. One difference: there a new value may be the old one, by a slip of indices.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class ForgettingMqar(RowTask):
    """Options:

    vocab_size  V: zero, the keys [1, V/2), the values [V/2, V)
    pairs       n, at most as many as there are keys
    updates     keys that are given a new value, at most n
    filler      "zero" or "random"
    length      training length, even, at least 4 n + 2 updates
    lengths     test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "forgetting_mqar"
    summary = "multi-query associative recall of the last value: keys are written again (Zoology)"

    def __init__(
        self,
        *,
        vocab_size: int = 256,
        pairs: int = 8,
        updates: int = 4,
        filler: str = "zero",
        length: int = 64,
        lengths: Iterable[int] | None = None,
    ):
        self.vocab_size = _check.whole("vocab_size", vocab_size, 5, "there is a zero, a key, and a value to change")
        self.half = self.vocab_size // 2
        self.chance = 1 / (self.vocab_size - self.half)
        self.pairs = _check.whole("pairs", pairs, 1, "ask for one pair or more")
        if self.pairs > self.half - 1:
            raise ValueError(
                f"pairs: expected at most {self.half - 1}, as there are keys, got {pairs}; take fewer, or a larger vocab_size"
            )
        self.updates = _check.whole("updates", updates, 0, "pass 0 for none")
        if self.updates > self.pairs:
            raise ValueError(
                f"updates: expected at most {self.pairs}, the pairs, got {updates}; take fewer, or more pairs"
            )
        self.filler = _check.one_of("filler", filler, ("zero", "random"))
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def marks(self, batch: Batch) -> list[int]:
        row = batch.tokens[0].tolist()
        written = range(0, 2 * (self.pairs + self.updates), 2)
        return sorted({row[t]: t + 1 for t in written}.values())

    def label(self, token: int) -> str:
        return "0" if token == 0 else f"k{token}" if token < self.half else f"v{token - self.half}"

    def _possible(self, name: str, length: int) -> int:
        least = 4 * self.pairs + 2 * self.updates
        _check.whole(name, length, least, f"{self.pairs} pairs, {self.updates} updates and the questions take it")
        if length % 2:
            raise ValueError(f"{name}: expected an even number, got {length}; take {length + 1}")
        return int(length)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n, head = _check.batch_size(size), self.pairs, 2 * (self.pairs + self.updates)
        keys = 1 + _draw.distinct(rng, rows, n, self.half - 1)
        values = _draw.distinct(rng, rows, n, self.vocab_size - self.half)
        updated = _draw.distinct(rng, rows, self.updates, n)
        shift = rng.integers(1, self.vocab_size - self.half, size=updated.shape)
        new = (np.take_along_axis(values, updated, 1) + shift) % (self.vocab_size - self.half)
        last = values.copy()
        np.put_along_axis(last, updated, new, 1)

        if self.filler == "random":
            tokens = rng.integers(self.vocab_size, size=(rows, length))
        else:
            tokens = np.zeros((rows, length), dtype=np.int64)
        tokens[:, 0:head:2] = np.concatenate([keys, np.take_along_axis(keys, updated, 1)], axis=1)
        tokens[:, 1:head:2] = self.half + np.concatenate([values, new], axis=1)
        asked = head + 2 * _draw.early_slots(rng, rows, (length - head) // 2, n)
        np.put_along_axis(tokens, asked, keys, 1)
        targets = np.full_like(tokens, IGNORE)
        np.put_along_axis(targets, asked, self.half + last, 1)
        return _draw.batch(tokens, targets)
