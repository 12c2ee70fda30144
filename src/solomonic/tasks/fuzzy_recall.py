"""Fuzzy in-context recall (MAD, arXiv 2403.17844): keys and values are motifs of one to three tokens.

One training sample (vocab_size=8, key_motif=value_motif=2, length=20, train_targets="recall"): keys are made of the
tokens 0-2, values of 3-6, 7 pads on the left, `.` is not scored.

              pad     1 3   01 65    12 63    01 65    12 6(3)
    tokens    7 7 7   1 3   0 1 6 5  1 2 6 3  0 1 6 5  1 2 6
    targets   . . .   . .   . . . .  . . . .  . 6 5 .  . 6 3

A motif holds no token twice; its size is uniform in 1 ... the largest, then it is uniform among those of its size.
In test rows every key has the largest size. A key keeps its first value throughout the row. A row is a series of
pairs: one key, the probe, is set in at a random place unless it came by then, the others are drawn at will, and
the probe closes the row. Scored are the value's tokens, each at the position before it, wherever the key came
before in the row. Keys and values have tokens of their own, so a row can be cut into motifs in one way only.

In detail, with s the tokens of the probe's pair and m = key_motif + value_motif: pairs are added while the row has
fewer than T - s - m tokens; the probe replaces the first pair to start at or after a place uniform in [0, T - 2s);
the row is filled up on the left to T + 1 tokens, of which the model sees the first T.

While training, the target of every position is the next token, as in MAD's code (`train_targets="next"`); with
"recall" the training targets are the scored ones.

Source of the definition: `generate_fuzzy_in_context_recall_instance` of github.com/athms/mad-lab with `multi_query`,
V = 16, T = 128, motifs of up to 3 and 3. One difference: there, a place near the end of the row may leave the
probe out, so that the last question has no answer; here the place is at most the last pair's.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class FuzzyRecall(RowTask):
    """Options:

    vocab_size     V: the last token pads; of the V - 1 others the first half are for keys, the rest for values
    key_motif      largest number of tokens of a key
    value_motif    largest number of tokens of a value
    length         training length, at least 2 (key_motif + value_motif) + 1
    lengths        test lengths; None: 1, 2 and 4 times `length`
    train_targets  "next": every next token; "recall": the scored ones
    """

    name = "fuzzy_recall"
    summary = "recall values of several tokens from keys of several tokens (MAD)"

    def __init__(
        self,
        *,
        vocab_size: int = 16,
        key_motif: int = 3,
        value_motif: int = 3,
        length: int = 128,
        lengths: Iterable[int] | None = None,
        train_targets: str = "next",
    ):
        self.key_motif = _check.whole("key_motif", key_motif, 1, "a key has one token or more")
        self.value_motif = _check.whole("value_motif", value_motif, 1, "a value has one token or more")
        least = 1 + max(2 * self.key_motif, 2 * self.value_motif - 1, 3)
        advice = "a motif holds no token twice: take more tokens, or shorter motifs"
        self.vocab_size = _check.whole("vocab_size", vocab_size, least, advice)
        self.keys = (self.vocab_size - 1) // 2
        self.values = self.vocab_size - 1 - self.keys
        self.pad = self.vocab_size - 1
        if (self.keys + 1) ** self.key_motif >= 2**63:
            raise ValueError(
                f"key_motif: expected at most 2^63 motifs of {self.keys} tokens, got a largest size of {key_motif}; "
                "take shorter motifs"
            )
        self.train_targets = _check.one_of("train_targets", train_targets, ("next", "recall"))
        self._take_lengths(length, lengths, (1, 2, 4))

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        row, scored = self._shown(size, self.length, 1, rng)
        if self.train_targets == "next":
            scored[:] = True
        return self._batch(row, scored)

    def label(self, token: int) -> str:
        if token == self.pad:
            return "_"
        return f"k{token}" if token < self.keys else f"v{token - self.keys}"

    def _possible(self, name: str, length: int) -> int:
        least = 2 * (self.key_motif + self.value_motif) + 1
        return _check.whole(name, length, least, "the probe is shown and asked, in its largest size")

    def _batch(self, row: np.ndarray, scored: np.ndarray) -> Batch:
        return _draw.batch(row[:, :-1], np.where(scored, row, IGNORE)[:, 1:])

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        return self._batch(*self._shown(size, length, self.key_motif, rng))

    def _shown(self, size: int, length: int, least: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows of length + 1 tokens, keys of at least `least`, and which of the tokens are scored, both (B, T + 1)."""
        rows = _check.batch_size(size)
        row, pairs = np.arange(rows), length // (least + 1) + 1  # pairs enough for any row
        key, key_size = _motifs(rng, (rows, pairs + 1), self.keys, least, self.key_motif)
        value, value_size = _motifs(rng, (rows, pairs + 1), self.values, 1, self.value_motif)
        value += self.keys
        code = _code(key, key_size, self.keys)

        # The last column is the probe. A key's value is that of its first column, the probe's that of the last.
        probe = code[:, -1:]
        asked = key_size[:, -1] + value_size[:, -1]
        end = length - asked - self.key_motif - self.value_motif
        place = rng.integers(np.minimum(length - 2 * asked, end))

        def layout():
            owner = _draw.first_of(code)
            owner = np.where(code == probe, pairs, owner)
            tokens = key_size + np.take_along_axis(value_size, owner, 1)
            return owner, tokens, tokens[:, :-1].cumsum(axis=1) - tokens[:, :-1]

        _, _, start = layout()
        last = (start < end[:, None]).sum(axis=1) - 1
        at = np.minimum((start < place[:, None]).sum(axis=1), last)
        seen = ((code[:, :-1] == probe) & (np.arange(pairs) < at[:, None])).any(axis=1)
        put, at = row[~seen], at[~seen]
        code[put, at], key[put, at], key_size[put, at] = code[put, -1], key[put, -1], key_size[put, -1]
        owner, tokens, start = layout()

        used = np.ones((rows, pairs + 1), dtype=bool)
        used[:, :-1] = start < end[:, None]
        tokens = np.where(used, tokens, 0)
        stop = length + 1 - tokens[:, ::-1].cumsum(axis=1)[:, ::-1] + tokens  # where each pair ends; the last, at T + 1
        value_size = np.take_along_axis(value_size, owner, 1)
        value = np.take_along_axis(value, owner[..., None], 1)
        known = _draw.first_of(code) < np.arange(pairs + 1)

        tokens_out = np.full((rows, length + 2), self.pad)  # the last column takes what is not used
        scored = np.zeros((rows, length + 2), dtype=bool)
        for motif, sizes, begin in ((key, key_size, stop - tokens), (value, value_size, stop - value_size)):
            inside = np.arange(motif.shape[-1])
            where = np.where(used[..., None] & (inside < sizes[..., None]), begin[..., None] + inside, length + 1)
            tokens_out[row[:, None, None], where] = motif
            if motif is value:
                scored[row[:, None, None], where] = known[..., None]
        return tokens_out[:, :-1], scored[:, :-1]


def _motifs(
    rng: np.random.Generator, shape: tuple[int, ...], n: int, least: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Motifs (*shape, most) of different tokens of [0, n), and their sizes in [least, most]; what follows is void.

    Token j is a rank among the n - j tokens not yet taken; passing over the taken ones, in order, gives the token.
    """
    sizes = rng.integers(least, most + 1, size=shape)
    motifs = np.empty((*shape, most), dtype=np.int64)
    for j in range(most):
        token = rng.integers(n - j, size=shape)
        for taken in np.moveaxis(np.sort(motifs[..., :j], axis=-1), -1, 0):
            token += token >= taken
        motifs[..., j] = token
    return motifs, sizes


def _code(motifs: np.ndarray, sizes: np.ndarray, n: int) -> np.ndarray:
    """One number a motif, equal only for equal motifs: its tokens as digits 1 ... n, none past its size."""
    digits = np.where(np.arange(motifs.shape[-1]) < sizes[..., None], motifs + 1, 0)
    return digits @ (n + 1) ** np.arange(motifs.shape[-1])
