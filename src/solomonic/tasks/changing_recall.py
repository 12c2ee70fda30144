"""Recall from a memory that changes: keys are written again, deleted, and stand among near duplicates (arXiv 2606.28876).

One sample (pairs=2, writes=2, deletion=0.5, key_size=1, keys=4, values=4, length=22): keys are the tokens 0-3, values
4-7, 8 and 9 say "the first" and "the second", 10 asks, 11 deletes, 12 is "none", `.` is not scored.

                write      write  again  write      delete    questions
    tokens    6 2 5   7 7  1 4    2 7    1 6   5 4  11 1   6  10 2 7  10 1 12
    targets   . . .   . .  . .    . .    . .   . .  . .    .  . 7 .   . 12 .

An event is a write, which is a key and a value, or a deletion, which is the token that deletes and a key. Events lie
at random places of the row, all keys mixed; the rest, up to the questions, is made of distractors drawn uniformly
from the values. Each of `pairs` keys is written 1 to `writes` times, with values drawn uniformly and independently.
At the end every one of these keys is asked once, in random order: the token that asks, the key, the answer, which is
scored at the position before it.

    ask="last"     the value written last
    ask="version"  the n-th value written, n drawn uniformly among those there are: a token for n stands behind the key

With probability `deletion` the last event of a key is its deletion: the answer is then "none", whatever was asked.
With the same probability a key that is written twice or more is deleted between two writes too, which says nothing of
the answer, nor of the numbers of its values. Each key has `near_duplicates` more keys, which differ from it in one of
their `key_size` tokens, have as many events of their own, and are not asked.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

The number of events depends on the options alone, so that lengths ask how long a memory holds, as in
`distractor_recall`. The paper names what a memory that is edited is tested by: overwriting, versions, deletion, and
keys that resemble one another. It has no code of this form: rows and their sizes are this library's own.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class ChangingRecall(RowTask):
    """Options:

    ask              "last" or "version"
    pairs            keys that are asked
    writes           how many times a key is written at most
    deletion         share of the keys that are deleted in the end, in [0, 1)
    near_duplicates  keys that share all but one token with each key that is asked
    key_size         tokens of a key
    keys             tokens that keys are made of, [0, keys)
    values           tokens of values, the next ones; then `writes` numbers, and three that ask, delete and say "none"
    length           training length: the events and the questions have to fit
    lengths          test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "changing_recall"
    summary = "recall of keys that are written again, deleted, and resemble one another"
    grows = True

    def __init__(
        self,
        *,
        ask: str = "last",
        pairs: int = 4,
        writes: int = 4,
        deletion: float = 0.0,
        near_duplicates: int = 0,
        key_size: int = 2,
        keys: int = 32,
        values: int = 32,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.asks = _check.one_of("ask", ask, ("last", "version"))
        self.pairs = _check.whole("pairs", pairs, 1, "ask for one key or more")
        self.writes = _check.whole("writes", writes, 1, "a key is written once or more")
        self.deletion = _check.share("deletion", deletion, "pass 0 for no deletions", zero=True)
        self.near_duplicates = _check.whole("near_duplicates", near_duplicates, 0, "pass 0 for none")
        self.key_size = _check.whole("key_size", key_size, 1, "a key has one token or more")
        self.keys = _check.whole("keys", keys, 1, "keys are made of one token or more")
        self.values = _check.whole("values", values, 2, "one value would leave nothing to remember")
        self._check_keys()
        self.first = self.keys + self.values  # says "the first"
        self.ask = self.first + self.writes
        self.delete, self.none = self.ask + 1, self.ask + 2
        self.vocab_size = self.ask + 3
        self.chance = 1 / (self.values + (self.deletion > 0))
        self.all_keys = self.pairs * (1 + self.near_duplicates)
        self.events = self.writes + (2 if self.deletion else 0)  # of a key, at most
        self.question_size = 2 + self.key_size + (self.asks == "version")
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def marks(self, batch: Batch) -> list[int]:
        """The values of all writes to the keys that are asked."""
        row = batch.tokens[0].numpy()
        end = len(row) - self.pairs * self.question_size
        questions = row[end:].reshape(self.pairs, self.question_size)[:, 1 : 1 + self.key_size]
        windows = np.lib.stride_tricks.sliding_window_view(row[: end - 1], self.key_size)
        written = (windows[None] == questions[:, None]).all(axis=2).any(axis=0)
        written[1:] &= row[: len(written) - 1] != self.delete
        return (np.flatnonzero(written) + self.key_size).tolist()

    def label(self, token: int) -> str:
        special = {self.ask: "?", self.delete: "x", self.none: "none"}
        if token in special:
            return special[token]
        if token < self.keys:
            return f"k{token}"
        token -= self.keys
        return f"v{token}" if token < self.values else f"#{token - self.values + 1}"

    def _check_keys(self) -> None:
        there_are, neighbours = self.keys**self.key_size, self.key_size * (self.keys - 1)
        if there_are >= 2**63:
            raise ValueError(
                f"key_size: expected fewer than 2^63 keys of {self.keys} tokens, got a size of {self.key_size}; "
                "take shorter keys, or fewer tokens for them"
            )
        if self.pairs > there_are:
            raise ValueError(
                f"pairs: expected at most {there_are}, as there are keys, got {self.pairs}; take fewer, or more keys"
            )
        if self.near_duplicates and 2 * self.pairs * (1 + self.near_duplicates) > neighbours:
            # then a near duplicate that is drawn is a new key with a probability of a half or more
            raise ValueError(
                f"near_duplicates: expected at most {neighbours // 2} keys in all, half of what a key has near it, got "
                f"{self.pairs} pairs of {1 + self.near_duplicates}; take fewer, more keys, or a larger key_size"
            )

    def _possible(self, name: str, length: int) -> int:
        least = self.all_keys * self.events * (self.key_size + 1) + self.pairs * self.question_size
        return _check.whole(name, length, least, f"the events of {self.all_keys} keys and the questions take it")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, end = _check.batch_size(size), length - self.pairs * self.question_size
        keys = self._distinct_keys(rows, rng)  # (B, all_keys, key_size); those that are asked come first

        # What happens to each key, (B, all_keys): its writes, and whether it is deleted among them, and at the end.
        shape = (rows, self.all_keys)
        writes = rng.integers(1, self.writes + 1, size=shape)
        between = (rng.random(shape) < self.deletion) & (writes > 1)
        between_at = 1 + (rng.random(shape) * np.maximum(writes - 1, 1)).astype(np.int64)  # writes before it
        at_end = rng.random(shape) < self.deletion
        happen = writes + between + at_end

        # The row's events in their order, (B, all_keys * events); a key that has fewer leaves a gap.
        slots = rng.random((rows, self.all_keys * self.events)).argsort(axis=1)
        key, number = slots // self.events, slots % self.events

        def of_key(what: np.ndarray) -> np.ndarray:
            return np.take_along_axis(what, key, 1)

        happens = number < of_key(happen)
        nth = _draw.rank_of_its_kind(np.where(happens, key, self.all_keys), self.all_keys + 1)  # event of its key
        deleted_between = of_key(between) & (nth == of_key(between_at))
        deletes = deleted_between | (of_key(at_end) & (nth == of_key(happen) - 1))
        version = nth - (of_key(between) & (nth > of_key(between_at)))

        values = self.keys + rng.integers(self.values, size=slots.shape)
        names = np.take_along_axis(keys, key[:, :, None], 1)
        written = np.concatenate([names, values[:, :, None]], axis=2)
        deletion = np.concatenate([np.full_like(values, self.delete)[:, :, None], names], axis=2)
        content = np.where(deletes[:, :, None], deletion, written)

        tokens = self.keys + rng.integers(self.values, size=(rows, length))
        starts = _draw.scattered(rng, rows, slots.shape[1], self.key_size + 1, end)
        where = starts[:, :, None] + np.arange(self.key_size + 1)
        content = np.where(happens[:, :, None], content, np.take_along_axis(tokens[:, :, None], where, 1))
        np.put_along_axis(tokens, where.reshape(rows, -1), content.reshape(rows, -1), 1)

        # The values of each key by their number, (B, all_keys, writes), and which of them is asked.
        said = np.zeros((*shape, self.writes), dtype=np.int64)
        row, slot = np.nonzero(happens & ~deletes)
        said[row, key[row, slot], version[row, slot]] = values[row, slot]
        wanted = writes - 1
        if self.asks == "version":
            wanted = (rng.random(shape) * writes).astype(np.int64)
        answers = np.take_along_axis(said, wanted[:, :, None], 2)[:, :, 0]
        answers = np.where(at_end, self.none, answers)

        asked = rng.random((rows, self.pairs)).argsort(axis=1)
        questions = np.empty((rows, self.pairs, self.question_size), dtype=np.int64)
        questions[:, :, 0] = self.ask
        questions[:, :, 1 : 1 + self.key_size] = np.take_along_axis(keys, asked[:, :, None], 1)
        if self.asks == "version":
            questions[:, :, -2] = self.first + np.take_along_axis(wanted, asked, 1)
        questions[:, :, -1] = np.take_along_axis(answers, asked, 1)
        tokens[:, end:] = questions.reshape(rows, -1)
        targets = np.full_like(tokens, IGNORE)
        targets[:, end + self.question_size - 2 :: self.question_size] = questions[:, :, -1]
        return _draw.batch(tokens, targets)

    def _distinct_keys(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """(rows, all_keys, key_size): distinct keys, then the near duplicates of each, distinct from all."""
        powers = self.keys ** np.arange(self.key_size)
        codes = _draw.distinct(rng, rows, self.pairs, self.keys**self.key_size)
        keys = codes[:, :, None] // powers % self.keys
        if self.near_duplicates:
            of = np.concatenate([keys, np.repeat(keys, self.near_duplicates, axis=1)], axis=1)
            keys, again = of.copy(), np.ones(of.shape[:2], dtype=bool)
            again[:, : self.pairs] = False
            while again.any():
                row, column = np.nonzero(again)
                token = rng.integers(self.key_size, size=len(row))
                other = rng.integers(1, self.keys, size=len(row))
                keys[row, column] = of[row, column]
                keys[row, column, token] = (of[row, column, token] + other) % self.keys
                again = _draw.first_of((keys * powers).sum(axis=2)) != np.arange(keys.shape[1])
        return keys
