"""Selective copying (MAD, arXiv 2403.17844): remember the tokens among blanks, say them in order when asked.

One sample (vocab_size=6, tokens_to_copy=3, length=12): tokens 0-3 are to be copied, 4 is the blank, 5 asks for
the copy, `.` is not scored.

    tokens    2 4 4 0 4 4 4 2 5 4 4 4
    targets   . . . . . . . . . 2 0 2

A row of T positions is: n tokens to copy with T - 2n - 1 blanks before and between them, the copy token, n blanks.
Each blank goes before one of the n tokens, all n being equally likely, so the last token stands right before the
copy token. The tokens are drawn uniformly from the V - 2 that are not special, repeats allowed. Scored are the
last n positions, where the input is blank and the target is the token to copy (no shift by one).

Source of the definition: `generate_copying_instance` of github.com/athms/mad-lab, which uses V = 16, T = 256 and
16 tokens, and makes the task longer with blanks alone; so do the longer test lengths here.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class SelectiveCopying(RowTask):
    """Options:

    vocab_size      V: V - 2 tokens to copy, the blank V - 2, the copy token V - 1
    tokens_to_copy  n
    length          training length, at least 2 n + 2
    lengths         test lengths; None: 1, 2 and 4 times `length`
    """

    name = "selective_copying"
    summary = "copy the tokens that stand among blanks, in order (MAD)"

    def __init__(
        self,
        *,
        vocab_size: int = 16,
        tokens_to_copy: int = 16,
        length: int = 256,
        lengths: Iterable[int] | None = None,
    ):
        self.vocab_size = _check.whole("vocab_size", vocab_size, 4, "two tokens are special, two or more are copied")
        self.tokens_to_copy = _check.whole("tokens_to_copy", tokens_to_copy, 1, "copy one token or more")
        self.blank, self.copy = self.vocab_size - 2, self.vocab_size - 1
        self.chance = 1 / (self.vocab_size - 2)
        self._take_lengths(length, lengths, (1, 2, 4))

    def marks(self, batch: Batch) -> list[int]:
        return (batch.tokens[0] < self.blank).nonzero().flatten().tolist()

    def label(self, token: int) -> str:
        return {self.blank: "_", self.copy: ">"}.get(token, str(token))

    def _possible(self, name: str, length: int) -> int:
        least = 2 * self.tokens_to_copy + 2
        return _check.whole(name, length, least, f"{self.tokens_to_copy} tokens are shown and copied, around a blank")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        n, rows = self.tokens_to_copy, _check.batch_size(size)
        content = rng.integers(self.blank, size=(rows, n))
        blanks = rng.multinomial(length - 2 * n - 1, [1 / n] * n, size=rows)  # before each token

        tokens = np.full((rows, length), self.blank)
        np.put_along_axis(tokens, blanks.cumsum(axis=1) + np.arange(n), content, 1)
        tokens[:, length - n - 1] = self.copy

        targets = np.full_like(tokens, IGNORE)
        targets[:, length - n :] = content
        return _draw.batch(tokens, targets)
