"""Compression (after MAD, arXiv 2403.17844): read a row of random tokens, then say which stood at any of its places.

One sample (vocab_size=4, length=9): tokens 0-2 are content, 3 ends it, 4-7 ask for the first to the fourth, `.` is not
scored.

    tokens    2 0 0 1 3 6 4 7 5
    targets   . . . . . 0 2 1 0

A row of T positions, T odd, is n = (T - 1) / 2 tokens drawn uniformly from the V - 1 of the content, with repeats; the
compression token V - 1; and the n places, each once, in random order. At a place its token is scored (no shift by one).

Source of the definition: `generate_compression_instance` of github.com/athms/mad-lab, with V = 16 and 32 positions, of
which the last is the compression token: 31 tokens of content, as here by default. This task differs from MAD's, where
the compression is in the model: only the encoder's output at the compression token goes on, a small network decodes
it with one position at a time, and that one vector must hold the whole row. A task draws batches and knows no model;
here the places are tokens, the whole state of the model is the code, and one that keeps its input verbatim may look it
up. So figures are not to be held against MAD's. For a memory of fixed size the question is the same: how much of
incompressible content goes through it. Rows are as long as the places have tokens, so the one test length is the
training's.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class Compression(RowTask):
    """Options:

    vocab_size  V: V - 1 tokens of content and the compression token; the places are n tokens more
    length      training length 2 n + 1, odd, at least 3
    lengths     test lengths, odd, none longer than `length`; None: `length`
    """

    name = "compression"
    summary = "say which random token stood at a place, for every place (after MAD)"

    def __init__(self, *, vocab_size: int = 16, length: int = 63, lengths: Iterable[int] | None = None):
        self.content = _check.whole("vocab_size", vocab_size, 3, "leave room for two tokens of content") - 1
        self.chance = 1 / self.content
        self.length = self._odd("length", length)
        self.vocab_size = self.content + 1 + self.length // 2
        self._take_lengths(self.length, lengths, (1,))

    def label(self, token: int) -> str:
        if token == self.content:
            return ">"
        return str(token) if token < self.content else f"@{token - self.content - 1}"

    def _odd(self, name: str, length: int) -> int:
        _check.whole(name, length, 3, "a row holds a token, the compression token and a place")
        if length % 2 == 0:
            raise ValueError(f"{name}: expected an odd number, got {length}; take {length - 1} or {length + 1}")
        return int(length)

    def _possible(self, name: str, length: int) -> int:
        if self._odd(name, length) > self.length:
            raise ValueError(
                f"{name}: expected at most {self.length}, got {length}; places further on have no token: "
                "take a longer training length"
            )
        return int(length)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n = _check.batch_size(size), length // 2
        content = rng.integers(self.content, size=(rows, n))
        places = _draw.distinct(rng, rows, n, n)
        end = np.full((rows, 1), self.content)
        tokens = np.concatenate([content, end, self.content + 1 + places], axis=1)
        targets = np.full_like(tokens, IGNORE)
        targets[:, n + 1 :] = np.take_along_axis(content, places, 1)
        return _draw.batch(tokens, targets)
