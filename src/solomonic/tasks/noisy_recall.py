"""Noisy in-context recall (MAD, arXiv 2403.17844): key-value pairs in a stream that noise interrupts.

One sample (vocab_size=8, noise_tokens=4, noise=0.3, length=12): keys are the tokens 0-1, values 2-3, noise 4-7,
`.` is not scored.

    tokens    1 3 6 4 0 3 1 3 5 5 0 3
    targets   . . . . . . 3 . . . 3 .

A row is T/2 slots of two tokens. A slot is noise with probability `noise` (two tokens of the noise range), else a
key drawn uniformly and its value. A key's value is drawn uniformly once a row, so that two keys may share one.
One slot drawn at random, and the last, are never noise; the last asks a key drawn among those that came before.
Scored is the value, at its key's position, of every key that came before in the row, and nothing else.

While training, the target of every position is the next token, as in MAD's code (`train_targets="next"`); with
"recall" the training targets are the scored ones.

Source of the definition: `generate_in_context_recall_instance` of github.com/athms/mad-lab with `multi_query`,
V = 32 of which 16 are noise, T = 128, noise 0.2. Two differences: there the last value is cut off the input (127
positions for T = 128), here it stays, unscored; and there the slot that is never noise may be the last slot
itself, so that (with probability near 0.2^63) a row holds no pair to ask for.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class NoisyRecall(RowTask):
    """Options:

    vocab_size     V; of the V - noise_tokens others the first half are keys, the rest values
    noise_tokens   size of the noise range, the last tokens of the vocabulary
    noise          probability that a slot is noise, in [0, 1)
    length         training length, even, at least 4
    lengths        test lengths, even; None: 1, 2 and 4 times `length`
    train_targets  "next": every next token; "recall": the scored ones
    """

    name = "noisy_recall"
    summary = "recall the values of keys that came before, in a stream with noise (MAD)"

    def __init__(
        self,
        *,
        vocab_size: int = 32,
        noise_tokens: int = 16,
        noise: float = 0.2,
        length: int = 128,
        lengths: Iterable[int] | None = None,
        train_targets: str = "next",
    ):
        self.noise = _check.share("noise", noise, "it is the probability that a slot is noise", zero=True)
        least = 1 if self.noise else 0
        self.noise_tokens = _check.whole("noise_tokens", noise_tokens, least, "noise takes one token or more")
        least = self.noise_tokens + 3
        self.vocab_size = _check.whole("vocab_size", vocab_size, least, "leave room for a key and two values")
        self.keys = (self.vocab_size - self.noise_tokens) // 2
        self.values = self.vocab_size - self.noise_tokens - self.keys
        self.chance = 1 / self.values
        self.train_targets = _check.one_of("train_targets", train_targets, ("next", "recall"))
        self._take_lengths(length, lengths, (1, 2, 4))

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        batch = self._rows(size, self.length, rng)
        if self.train_targets == "next":
            tokens = batch.tokens.numpy()
            batch = _draw.batch(tokens, _draw.next_tokens(tokens))
        return batch

    def marks(self, batch: Batch) -> list[int]:
        """The value of each key where it first comes."""
        keys = batch.tokens[:1, 0::2].numpy()
        first = (_draw.first_of(keys) == np.arange(keys.shape[1])) & (keys < self.keys)
        return (2 * first[0].nonzero()[0] + 1).tolist()

    def label(self, token: int) -> str:
        if token < self.keys:
            return f"k{token}"
        if token < self.keys + self.values:
            return f"v{token - self.keys}"
        return f"n{token - self.keys - self.values}"

    def _possible(self, name: str, length: int) -> int:
        _check.whole(name, length, 4, "a row holds two pairs or more")
        if length % 2:
            raise ValueError(f"{name}: expected an even number, got {length}; take {length - 1} or {length + 1}")
        return int(length)

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, slots = _check.batch_size(size), length // 2
        row, slot = np.arange(rows), np.arange(slots)
        keys = rng.integers(self.keys, size=(rows, slots))
        noisy = rng.random((rows, slots)) < self.noise
        noisy[row, rng.integers(slots - 1, size=rows)] = False
        noisy[:, -1] = False

        seen = np.zeros((rows, self.keys + 1), dtype=bool)  # the last column takes the noise
        seen[row[:, None], np.where(noisy, self.keys, keys)[:, :-1]] = True
        keys[:, -1] = np.where(seen[:, :-1], rng.random((rows, self.keys)), -1).argmax(axis=1)
        values = np.take_along_axis(rng.integers(self.keys, self.keys + self.values, size=(rows, self.keys)), keys, 1)
        known = _draw.first_of(np.where(noisy, self.keys + slot, keys)) < slot

        tokens = np.empty((rows, length), dtype=np.int64)
        tokens[:, 0::2], tokens[:, 1::2] = keys, values
        hidden = noisy.repeat(2, axis=1)
        if hidden.any():
            tokens[hidden] = rng.integers(self.keys + self.values, self.vocab_size, size=hidden.sum())
        targets = np.full_like(tokens, IGNORE)
        targets[:, 0::2] = np.where(known, values, IGNORE)
        return _draw.batch(tokens, targets)
