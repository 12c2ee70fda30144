"""Multi-query associative recall (Zoology, arXiv 2312.04927; Based, 2402.18668).

One sample (vocab_size=16, two pairs, T = 12, filler="zero"): keys are the tokens 1-7, values 8-15, `.` is not scored.

              pairs      questions
    tokens    3 12 5 9   5 0 0 0  3 0 0 0
    targets   . .  . .   9 . . . 12 . . .

A row of T positions holds n pairs at its head, keys drawn from [1, V/2) and values from [V/2, V), no repeats in
a row. The other positions are (T - 2n) // 2 slots of two. Each key is asked once, at the head of a slot; slot i =
1, 2, ... is drawn without replacement with probability proportional to a i^(a-1), a = 0.01, for the first pair
first, so that early pairs tend to be asked early. The target is the value, at the key's position; it does not
appear in the input again. Nothing else is scored. 4n <= T.

The positions left over hold zeros, or (the default, as in Based) tokens drawn uniformly from the whole vocabulary.
The latter, as in Zoology's code, may show a key or a value of the row: the target is the value that the pair gave
all the same, and such look-alikes are not scored. A filler is one of the row's keys with probability n/V. At
V = 8192 this is rare (64/4: one row in 40 has one; 1024/256: 8 of 256 fillers), but in a small vocabulary it is not:
there "zero" keeps a row unambiguous.

Training draws one case (T, n) a batch, by weight: 64/4 (100), 128/8, 256/16, 256/32, 256/64 (20 each), as in
Based's figure. Testing at length T asks for n = T // 4 pairs: 64/16 ... 1024/256.

Source of the definition: `zoology/data/multiquery_ar.py` of github.com/HazyResearch/zoology.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _check, _draw
from .base import IGNORE, Batch, Task

CASES = ((64, 4, 100), (128, 8, 20), (256, 16, 20), (256, 32, 20), (256, 64, 20))


class Mqar(Task):
    """Options:

    vocab_size  V, at least 4
    cases       training cases (T, pairs, weight): T even, 4 pairs <= T, fewer pairs than V/2, weight above 0
    lengths     test lengths, even, T // 4 < V // 2; None: those of the cases, and 2 and 4 times the longest,
                as far as V has keys enough (None of them: ValueError)
    filler      "random" or "zero"
    """

    name = "mqar"
    summary = "multi-query associative recall: many pairs, every key asked once (Zoology)"

    def __init__(
        self,
        *,
        vocab_size: int = 8192,
        cases: Iterable[tuple[int, int, float]] = CASES,
        lengths: Iterable[int] | None = None,
        filler: str = "random",
    ):
        self.vocab_size = _check.whole("vocab_size", vocab_size, 4, "there is a key, a value and the zero")
        self.chance = 1 / (self.vocab_size - self.vocab_size // 2)
        self.filler = _check.one_of("filler", filler, ("random", "zero"))
        self.cases = self._possible_cases(cases)
        self.length = max(length for length, _, _ in self.cases)
        if lengths is None:
            lengths = sorted({length for length, _, _ in self.cases} | {2 * self.length, 4 * self.length})
            lengths = [length for length in lengths if length // 4 < self.vocab_size // 2]
            if not lengths:
                raise ValueError(
                    f"lengths: expected one of T // 4 < {self.vocab_size // 2} keys or fewer, got None, with cases of "
                    f"{self.length} and less; pass lengths, or a larger vocab_size"
                )
        self.lengths = tuple(self._possible("lengths", n) for n in _check.increasing("lengths", lengths))

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        weights = np.array([weight for _, _, weight in self.cases])
        length, pairs, _ = self.cases[rng.choice(len(weights), p=weights / weights.sum())]
        return self._rows(size, length, pairs, rng)

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        return self._rows(size, self._possible("length", length), length // 4, rng)

    def marks(self, batch: Batch) -> list[int]:
        return list(range(1, 2 * int((batch.targets[0] != IGNORE).sum()), 2))

    def label(self, token: int) -> str:
        half = self.vocab_size // 2
        return "0" if token == 0 else f"k{token}" if token < half else f"v{token - half}"

    def _possible_cases(self, cases: Iterable[tuple[int, int, float]]) -> tuple[tuple[int, int, float], ...]:
        most, checked = self.vocab_size // 2 - 1, []
        entries: tuple[Any, ...] = (tuple(cases) if isinstance(cases, Iterable) else (cases,)) or (None,)
        for case in entries:
            try:
                length, pairs, weight = case
                good = int(length) == length and int(pairs) == pairs and 4 <= 4 * pairs <= length and length % 2 == 0
                good = good and pairs <= most and 0 < weight < float("inf")
            except (TypeError, ValueError):
                good = False
            if not good:
                raise ValueError(
                    f"cases: expected (T, pairs, weight) with T even, 1 <= pairs <= T / 4, at most {most} pairs and a "
                    f"weight above 0; got {case!r}; pass cases such as ((64, 4, 1.0),)"
                )
            checked.append((int(length), int(pairs), float(weight)))
        return tuple(checked)

    def _possible(self, name: str, length: int) -> int:
        _check.whole(name, length, 4, "a pair and its question take 4 tokens")
        most = 4 * (self.vocab_size // 2) - 2
        if length % 2 or length > most:
            raise ValueError(
                f"{name}: expected an even number of at most {most} (T // 4 pairs, distinct keys below "
                f"{self.vocab_size // 2}), got {length}; take an even one, or a larger vocab_size"
            )
        return int(length)

    def _rows(self, size: int, length: int, pairs: int, rng: np.random.Generator) -> Batch:
        rows, half = _check.batch_size(size), self.vocab_size // 2
        keys = 1 + _draw.distinct(rng, rows, pairs, half - 1)
        values = half + _draw.distinct(rng, rows, pairs, self.vocab_size - half)

        asked = 2 * pairs + 2 * _draw.early_slots(rng, rows, (length - 2 * pairs) // 2, pairs)

        if self.filler == "random":
            tokens = rng.integers(self.vocab_size, size=(rows, length))
        else:
            tokens = np.zeros((rows, length), dtype=np.int64)
        tokens[:, 0 : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = keys, values
        np.put_along_axis(tokens, asked, keys, 1)
        targets = np.full_like(tokens, IGNORE)
        np.put_along_axis(targets, asked, values, 1)
        return _draw.batch(tokens, targets)
