"""Common words (RULER, arXiv 2404.06654): a list in which a few words come often, and which they are.

One sample (words=8, common=2, ratio=2, length=12): words are the tokens 0-7, 8 asks, `.` is not scored.

              list                 question
    tokens    5 1 7 1 5 0 5 2 3    8 5 1
    targets   . . . . . . . . .    5 1 .

A row is a list of n = T - common - 1 words in random order, the token that asks, and the common words, the most frequent
first. Each is scored at the position before it. The i-th of the c common words comes u (ratio + c - i) times, the last
one u ratio times, and every other word of the list u times, but one that may come less often. u is the least whole
number with which the `words` that there are fill the list: 1 in a short one. So counts differ by u at least, and their
ratios are the same at every length.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

Source of the definition: RULER (arXiv 2404.06654), where ten words
come equally often (6 times to 1 of the others, or 30 to 3), and are scored in any order; counts differ here, so that the
order is defined.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import Batch


class CommonWords(RowTask):
    """Options:

    words    words there are, tokens [0, words); the last token asks
    common   c, words that come often
    ratio    how many times as often as the others the last of them comes, at least 2
    length   training length: the common words and the question have to fit
    lengths  test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "common_words"
    summary = "which words of a list come most often, in order (RULER)"
    grows = True

    def __init__(
        self,
        *,
        words: int = 32,
        common: int = 4,
        ratio: int = 4,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.common = _check.whole("common", common, 1, "ask for one word or more")
        self.ratio = _check.whole("ratio", ratio, 2, "a common word comes more often than another")
        self.often = self.common * self.ratio + self.common * (self.common - 1) // 2  # common ones of a list, by u
        advice = "the others fill what the common words leave: take more words, or fewer common ones"
        self.words = _check.whole("words", words, self.common + self.often - 1, advice)
        self.ask = self.words
        self.vocab_size = self.words + 1
        self.chance = 1 / self.words
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def label(self, token: int) -> str:
        return "?" if token == self.ask else str(token)

    def _possible(self, name: str, length: int) -> int:
        least = self.often + self.common + 1
        return _check.whole(name, length, least, "the common words are shown, and asked for")

    def _counts(self, n: int) -> np.ndarray:
        """(words,): how often the word of each rank comes in a list of n."""
        times = -(-n // (self.often + self.words - self.common))  # u
        common = times * (self.ratio + np.arange(self.common)[::-1])
        others = np.arange(self.words - self.common)
        left = n - common.sum()
        return np.concatenate([common, np.clip(left - times * others, 0, times)])

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n = _check.batch_size(size), length - self.common - 1
        ranked = rng.random((rows, self.words)).argsort(axis=1)  # words, the most frequent first
        tokens = np.empty((rows, length), dtype=np.int64)
        tokens[:, :n] = rng.permuted(np.repeat(ranked, self._counts(n), axis=1), axis=1)
        return _draw.asked_in_order(tokens, n, self.ask, ranked[:, : self.common])
