"""Phone book: names and their numbers, then one name, whose number is to be said (arXiv 2402.01032, 2406.07522).

One sample (letters=4, name_length=2, digits=3, length=15): 0-3 are letters, 4-13 the digits 0-9, 14 is the blank, `.`
is not scored.

              entries                asked
    tokens    2 0 11 5 8  2 3 4 9 9  2 0 11 5 8
    targets   . . . . .   . . . . .  . 11 5 8 .

A row of T positions is a phone book of n entries, a name of several letters and a number of several digits each, and
then one of its names, uniformly drawn, and its number. The names of a row are distinct, and so drawn that every ordered
choice is equally likely; they may share letters. Digits are uniform and independent: two names may have one
number. Scored are the digits asked for, each at the position before it, with those before it as input.

n = (T + 1) // (name_length + digits) - 1 is the most for a row of T positions, in which the last digit need not
stand: it may be a target only. Positions left over at the end hold blanks, unscored. So the book grows with the
length, and with it what has to be remembered: n log2(10^digits) bits.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

The papers ask language models in words, some of them after two examples of a question and its answer; here names and
numbers are random tokens.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class Phonebook(RowTask):
    """Options:

    letters      tokens that names are made of, at least 2; ten digits and a blank are eleven tokens more
    name_length  letters of a name; letters^name_length < 2^63
    digits       digits of a number
    length       training length, at least 2 (name_length + digits) - 1
    lengths      test lengths, of no more entries than there are names; None: 1, 2, 4 and 8 times `length`
    """

    name = "phonebook"
    summary = "names and numbers of several digits, of which one is asked for"
    grows = True
    chance = 1 / 10

    def __init__(
        self,
        *,
        letters: int = 26,
        name_length: int = 3,
        digits: int = 7,
        length: int = 256,
        lengths: Iterable[int] | None = None,
    ):
        self.letters = _check.whole("letters", letters, 2, "names of one letter are all the same")
        self.name_length = _check.whole("name_length", name_length, 1, "a name has one letter or more")
        self.digits = _check.whole("digits", digits, 1, "a number has one digit or more")
        self.names = self.letters**self.name_length
        if self.names >= 2**63:
            raise ValueError(f"name_length: expected fewer than 2^63 names, got {self.names}; take shorter names")
        self.entry = self.name_length + self.digits
        self.least = 2 * self.entry - 1
        self.blank = self.letters + 10
        self.vocab_size = self.letters + 11
        self._take_lengths(length, lengths, (1, 2, 4, 8))

    def label(self, token: int) -> str:
        if token == self.blank:
            return "_"
        return f"n{token}" if token < self.letters else str(token - self.letters)

    def _possible(self, name: str, length: int) -> int:
        _check.whole(name, length, self.least, f"an entry and its question take {self.entry} tokens each")
        most = self.entry * (self.names + 2) - 2
        if length > most:
            raise ValueError(
                f"{name}: expected at most {most}, as there are {self.names} names, got {length}; "
                "take fewer, or longer names"
            )
        return int(length)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n = _check.batch_size(size), (length + 1) // self.entry - 1
        names = _draw.distinct(rng, rows, n, self.names)
        book = np.empty((rows, n + 1, self.entry), dtype=np.int64)
        places = self.letters ** np.arange(self.name_length)
        book[:, :n, : self.name_length] = names[..., None] // places % self.letters
        book[:, :n, self.name_length :] = self.letters + rng.integers(10, size=(rows, n, self.digits))
        book[:, n] = book[np.arange(rows), rng.integers(n, size=rows)]

        row = np.full((rows, length + 1), self.blank)
        end = (n + 1) * self.entry
        row[:, :end] = book.reshape(rows, -1)
        targets = np.full((rows, length), IGNORE)
        targets[:, end - self.digits - 1 : end - 1] = row[:, end - self.digits : end]
        return _draw.batch(row[:, :-1], targets)
