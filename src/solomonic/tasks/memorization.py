"""Memorization (MAD, arXiv 2403.17844): a map from keys to values that no row tells, to be learnt in the weights.

One sample (vocab_size=7, length=8): keys are the tokens 0-2, values 3-5, 6 stands where a value is to be said, `.` is
not scored. The map, drawn from the seed of the task, is 0 -> 4, 1 -> 5, 2 -> 3.

    tokens    2 6 0 6 2 6 1 6
    targets   . 3 . 4 . 3 . 5

A row is T/2 slots of two tokens: a key drawn uniformly, and the token V - 1, where the key's value is scored (no shift
by one). The map is one to one, fixed by `seed`, the same for training and test, and all that is to be known: a test
row is new, its pairs are not. Training draws its rows from `examples` of them, fixed by `seed` too.

Source of the definition: `generate_memorization_instance` of github.com/athms/mad-lab without noise, with V = 256,
T = 32 and 256 examples. Three differences: there, of V - 1 = 255 tokens, 127 keys have values and the last of the 128
values none, as here, but the map comes of another generator; there training goes through its examples in turn, here a
batch draws them at random with repetition; and there test rows have the training's length only.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class Memorization(RowTask):
    """Options:

    vocab_size  V: of the V - 1 first tokens the first half are keys, the rest values
    examples    different rows of training
    seed        of the map and of the training rows
    length      training length, even, at least 2
    lengths     test lengths, even; None: `length` and 4 times `length`
    """

    name = "memorization"
    summary = "say the values of keys that are the same in every row, from the weights (MAD)"

    def __init__(
        self,
        *,
        vocab_size: int = 256,
        examples: int = 256,
        seed: int = 0,
        length: int = 32,
        lengths: Iterable[int] | None = None,
    ):
        self.vocab_size = _check.whole("vocab_size", vocab_size, 4, "leave room for a key and two values")
        self.keys = (self.vocab_size - 1) // 2
        self.insert = self.vocab_size - 1
        self.chance = 1 / (self.insert - self.keys)
        self._take_lengths(length, lengths, (1, 4))
        seed = _check.whole("seed", seed, 0, "it names the map")
        rng = np.random.default_rng([seed, *b"memorization"])  # no stream that batches are drawn from
        self.values = self.keys + _draw.distinct(rng, 1, self.keys, self.insert - self.keys)[0]  # of each key
        examples = _check.whole("examples", examples, 1, "training needs a row")
        self.examples = rng.integers(self.keys, size=(examples, self.length // 2))

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        return self._asked(self.examples[rng.integers(len(self.examples), size=_check.batch_size(size))])

    def label(self, token: int) -> str:
        if token == self.insert:
            return "?"
        return f"k{token}" if token < self.keys else f"v{token - self.keys}"

    def _possible(self, name: str, length: int) -> int:
        _check.whole(name, length, 2, "a row holds a key or more, and room for its value")
        if length % 2:
            raise ValueError(f"{name}: expected an even number, got {length}; take {length - 1} or {length + 1}")
        return int(length)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        return self._asked(rng.integers(self.keys, size=(_check.batch_size(size), length // 2)))

    def _asked(self, keys: np.ndarray) -> Batch:
        tokens = np.full((len(keys), 2 * keys.shape[1]), self.insert)
        targets = np.full_like(tokens, IGNORE)
        tokens[:, 0::2], targets[:, 1::2] = keys, self.values[keys]
        return _draw.batch(tokens, targets)
