"""Frequent words (RULER, arXiv 2404.06654): words that come by a zeta law among noise, and which come most often.

One sample (words=6, asked=2, alpha=1.5, length=19): words are the tokens 0-5, 6 is noise, 7 asks, `.` is not scored.

              list                               question
    tokens    6 4 6 6 6 6 4 6 2 6 6 6 6 6 6 6    7 4 2
    targets   . . . . . . . . . . . . . . . .    4 2 .

A row is a list of n = T - asked - 1 tokens in random order, the token that asks, and the `asked` most frequent words, the
most frequent first, each scored at the position before it. The word of rank k = 2, 3, ... comes floor(n k^-alpha /
zeta(alpha)) times, as far as there are words; which words those are is drawn anew for every row. Rank 1 is the noise,
which makes up the list.

Source of the definition: RULER (arXiv 2404.06654), with alpha = 2 and
three words of T / 50, which are scored in any order.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import Batch


class FrequentWords(RowTask):
    """Options:

    words    words there are, tokens [0, words), more than `asked`; then the noise, and the token that asks
    asked    words that are asked for
    alpha    the exponent, above 1: the larger, the fewer words come again
    length   training length: long enough that the words asked for come more often than the next one
    lengths  test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "frequent_words"
    summary = "which words come most often by a zeta law, in order (RULER)"

    def __init__(
        self,
        *,
        words: int = 32,
        asked: int = 3,
        alpha: float = 2.0,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.asked = _check.whole("asked", asked, 1, "ask for one word or more")
        self.words = _check.whole("words", words, self.asked + 1, "others come too: take more words, or ask for fewer")
        if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not 1.1 <= alpha <= 10:
            raise ValueError(f"alpha: expected a number in [1.1, 10], got {alpha!r}; take 2, as RULER does")
        self.alpha = float(alpha)
        self.noise, self.ask = self.words, self.words + 1
        self.vocab_size = self.words + 2
        self.chance = 1 / self.words
        self.shares = np.arange(2, self.words + 2) ** -self.alpha / _zeta(self.alpha)  # of a list, by rank from 2 on
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def label(self, token: int) -> str:
        return {self.noise: "_", self.ask: "?"}.get(token, str(token))

    def _possible(self, name: str, length: int) -> int:
        advice = f"{self.asked} words are to come more often than the next: take a larger one"
        _check.whole(name, length, self.asked + 2, advice)
        counts = self._counts(length - self.asked - 1)[: self.asked + 1]
        if (counts[1:] >= counts[:-1]).any():
            raise ValueError(
                f"{name}: expected a row in which the words of ranks 2 to {self.asked + 2} come less and less often, got "
                f"{length}, with counts {counts.tolist()}; {advice}, or ask for fewer"
            )
        return int(length)

    def _counts(self, n: int) -> np.ndarray:
        """(words,): how often the word of each rank, from 2 on, comes in a list of n."""
        return (n * self.shares).astype(np.int64)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n = _check.batch_size(size), length - self.asked - 1
        ranked = rng.random((rows, self.words)).argsort(axis=1)  # words, the most frequent first
        words = np.repeat(ranked, self._counts(n), axis=1)
        tokens = np.full((rows, length), self.noise)
        tokens[:, : words.shape[1]] = words
        tokens[:, :n] = rng.permuted(tokens[:, :n], axis=1)
        return _draw.asked_in_order(tokens, n, self.ask, ranked[:, : self.asked])


def _zeta(alpha: float, terms: int = 1000) -> float:
    """Riemann's zeta function at alpha > 1: a sum, and the integral of what is left with Euler and Maclaurin's corrections."""
    n = np.arange(1, terms, dtype=np.float64)
    rest = terms ** (1 - alpha) / (alpha - 1) + terms**-alpha / 2 + alpha * terms ** (-alpha - 1) / 12
    return float((n**-alpha).sum() + rest)
