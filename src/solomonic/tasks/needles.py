"""Needles in a haystack, in tokens: the eight needle tasks of RULER (arXiv 2404.06654).

One sample (variant="multivalue", values_of_a_key=2, key_size=1, value_size=2, keys=4, values=4, filler=4, length=17):
keys are the tokens 0-3, values 4-7, filler 8-11, 12 asks, `.` is not scored.

                   needle        needle    question
    tokens    8 11 2 5 7   9 10  2 4 4 11  12 2 5 7 4 4
    targets   . .  . . .   . .   . . . .   .  5 7 4 4 .

A needle is a key of `key_size` tokens and a value of `value_size` tokens behind it; where a key has several values,
each has a needle. Needles lie at random depths of a haystack. At the end a question for each key that is asked: the
token that asks, the key, its values in the order in which they appeared. Scored are the tokens of the values, each at
the position before it. Keys of a row are distinct; all tokens of values are drawn uniformly and independently.

The haystack is of one of three kinds, and makes up the length:

    noise      the filler tokens in order, over and over, as one sentence that repeats
    text-like  filler tokens drawn uniformly
    needles    other needles, of keys that are not asked, as many as there is room for; the few tokens left are text-like

    variant       haystack    keys  asked  values of a key  a key is   a value is
    single_1      noise       1     1      1                a word     a number
    single_2      text-like   1     1      1                a word     a number
    single_3      text-like   1     1      1                a word     a uuid
    multikey_1    text-like   4     1      1                a word     a number
    multikey_2    needles     1     1      1                a word     a number
    multikey_3    needles     1     1      1                a uuid     a uuid
    multivalue    text-like   1     1      4                a word     a number
    multiquery    text-like   4     4      1                a word     a number

In tokens a word is 2 (RULER's are an adjective and a noun), a number 3 and a uuid 6, unless options say otherwise.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

Source of the definition: RULER, read in the port of lm-evaluation-harness.
Different here: a needle may interrupt the noise anywhere, there it stands between sentences; and a question names one
key, followed by its values, where RULER names all keys before the first value.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .._utils.spelling import counted
from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch

HAYSTACKS = ("noise", "text-like", "needles")
WORD, NUMBER, UUID = 2, 3, 6  # tokens


@dataclass(frozen=True)
class Variant:
    haystack: str
    needle_keys: int = 1
    asked: int = 1
    values_of_a_key: int = 1
    key_size: int = WORD
    value_size: int = NUMBER


VARIANTS = {
    "single_1": Variant("noise"),
    "single_2": Variant("text-like"),
    "single_3": Variant("text-like", value_size=UUID),
    "multikey_1": Variant("text-like", needle_keys=4),
    "multikey_2": Variant("needles"),
    "multikey_3": Variant("needles", key_size=UUID, value_size=UUID),
    "multivalue": Variant("text-like", values_of_a_key=4),
    "multiquery": Variant("text-like", needle_keys=4, asked=4),
}


class Needles(RowTask):
    """Options; None stands for what the variant says:

    variant          one of VARIANTS
    haystack         "noise", "text-like" or "needles"
    needle_keys      keys that may be asked
    asked            keys that are asked, at most `needle_keys`
    values_of_a_key  needles of each of these keys
    key_size         tokens of a key
    value_size       tokens of a value
    keys             tokens that keys are made of, [0, keys)
    values           tokens that values are made of, the next ones
    filler           tokens of the haystack, the next ones; the last token asks
    length           training length: the needles and the questions have to fit
    lengths          test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "needles"
    summary = "needles in a haystack: keys of a long text, and their values (RULER)"
    grows = True

    def __init__(
        self,
        *,
        variant: str = "multikey_1",
        haystack: str | None = None,
        needle_keys: int | None = None,
        asked: int | None = None,
        values_of_a_key: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        keys: int = 32,
        values: int = 32,
        filler: int = 32,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.variant = _check.one_of("variant", variant, tuple(VARIANTS))
        given = VARIANTS[variant]

        def whole(name: str, value: int | None, advice: str) -> int:
            return _check.whole(name, getattr(given, name) if value is None else value, 1, advice)

        self.haystack = _check.one_of("haystack", given.haystack if haystack is None else haystack, HAYSTACKS)
        self.needle_keys = whole("needle_keys", needle_keys, "there is one key or more to ask for")
        self.asked = whole("asked", asked, "ask for one key or more")
        self.values_of_a_key = whole("values_of_a_key", values_of_a_key, "a key has one value or more")
        self.key_size = whole("key_size", key_size, "a key has one token or more")
        self.value_size = whole("value_size", value_size, "a value has one token or more")
        if self.asked > self.needle_keys:
            raise ValueError(
                f"asked: expected at most the {self.needle_keys} keys that there are, got {self.asked}; "
                "ask for fewer, or take more needle_keys"
            )
        self.keys = _check.whole("keys", keys, 1, "keys are made of one token or more")
        self.values = _check.whole("values", values, 2, "one token would leave nothing to remember")
        self.filler = _check.whole("filler", filler, 1, "a haystack is made of one token or more")
        if self.keys**self.key_size >= 2**63:
            raise ValueError(
                f"key_size: expected fewer than 2^63 keys of {self.keys} tokens, got a size of {self.key_size}; "
                "take shorter keys, or fewer tokens for them"
            )
        self.ask = self.keys + self.values + self.filler
        self.vocab_size = self.ask + 1
        self.chance = 1 / self.values
        self.needle_size = self.key_size + self.value_size
        self.question_size = 1 + self.key_size + self.values_of_a_key * self.value_size
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def marks(self, batch: Batch) -> list[int]:
        row = batch.tokens[0].numpy()
        end = len(row) - self.asked * self.question_size
        questions = row[end:].reshape(self.asked, self.question_size)[:, 1 : 1 + self.key_size]
        windows = np.lib.stride_tricks.sliding_window_view(row[:end], self.key_size)
        found = (windows[None] == questions[:, None]).all(axis=2).any(axis=0)
        starts = np.flatnonzero(found) + self.key_size
        return sorted({int(start) + i for start in starts for i in range(self.value_size)})

    def label(self, token: int) -> str:
        if token == self.ask:
            return "?"
        if token < self.keys:
            return f"k{token}"
        token -= self.keys
        return f"v{token}" if token < self.values else f".{token - self.values}"

    def _needles(self, length: int) -> tuple[int, int]:
        """Needles of a row of that length, and how many different keys they have."""
        real = self.needle_keys * self.values_of_a_key
        room = (length - self.asked * self.question_size) // self.needle_size
        others = max(0, room - real) if self.haystack == "needles" else 0
        return real + others, self.needle_keys + others

    def _possible(self, name: str, length: int) -> int:
        needles = self.needle_keys * self.values_of_a_key
        least = needles * self.needle_size + self.asked * self.question_size
        _check.whole(name, length, least, f"{counted(needles, 'needle')} and {counted(self.asked, 'question')} take it")
        _, different = self._needles(length)
        if different > self.keys**self.key_size:
            raise ValueError(
                f"{name}: expected a row of at most {self.keys**self.key_size} needles, as there are keys, got {length} "
                f"with {different} needles; take a smaller one, more tokens for keys, or longer keys"
            )
        return int(length)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, (needles, different) = _check.batch_size(size), self._needles(length)
        end = length - self.asked * self.question_size
        each = self.values_of_a_key

        codes = _draw.distinct(rng, rows, different, self.keys**self.key_size)
        keys = codes[:, :, None] // self.keys ** np.arange(self.key_size) % self.keys  # (B, keys, key_size)
        owner_of = np.r_[np.repeat(np.arange(self.needle_keys), each), self.needle_keys : different]
        owner = owner_of[rng.random((rows, needles)).argsort(axis=1)]  # the key of each needle, in their order
        values = self.keys + rng.integers(self.values, size=(rows, needles, self.value_size))
        content = np.concatenate([np.take_along_axis(keys, owner[:, :, None], 1), values], axis=2)
        starts = _draw.scattered(rng, rows, needles, self.needle_size, end)

        where = (starts[:, :, None] + np.arange(self.needle_size)).reshape(rows, -1)
        tokens = self._filler(rows, length, where, rng)
        np.put_along_axis(tokens, where, content.reshape(rows, -1), 1)

        targets = np.full_like(tokens, IGNORE)
        asked = _draw.distinct(rng, rows, self.asked, self.needle_keys)
        for i in range(self.asked):
            key = asked[:, i : i + 1]
            places = np.argsort(owner != key, axis=1, kind="stable")[:, :each]  # of its needles, in order
            answer = np.take_along_axis(values, places[:, :, None], 1).reshape(rows, -1)
            start = end + i * self.question_size
            first = start + 1 + self.key_size
            tokens[:, start] = self.ask
            tokens[:, start + 1 : first] = np.take_along_axis(keys, key[:, :, None], 1)[:, 0]
            tokens[:, first : start + self.question_size] = answer
            targets[:, first - 1 : start + self.question_size - 1] = answer
        return _draw.batch(tokens, targets)

    def _filler(self, rows: int, length: int, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(rows, length) tokens of the haystack; the noise goes on behind the positions that are `taken`."""
        if self.haystack != "noise":
            return self.keys + self.values + rng.integers(self.filler, size=(rows, length))
        free = np.ones((rows, length), dtype=np.int64)
        np.put_along_axis(free, taken, 0, 1)
        return self.keys + self.values + (free.cumsum(axis=1) - 1) % self.filler
