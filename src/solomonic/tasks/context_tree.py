"""Context trees: predict the bits of a source that looks back as far as it must, and no further.

One sample (length=8; the source: after a 1 always 0, after 10 always 0, after 00 always 1; before the first bit all is 0):

    tokens    2 1 0 0 1 0 0 1
    targets   1 0 0 1 0 0 1 0

Every row has a source of its own: a tree of contexts, and for each leaf the chance of a 1 after that context. The tree is
drawn by splitting a node with chance 1/2, as far as `depth`; a chance is drawn from Beta(1/2, 1/2). Bits before the
first count as 0. Token 2 begins a row. Every bit is scored by its code length.

The bound of a test batch is the exact optimum: context-tree weighting (Willems, Shtarkov and Tjalkens 1995) is Bayes' rule for
sources drawn so, and no predictor that does not know the source loses fewer bits on average. `draw` returns, beside the bits, the
chances of the source, which give the loss of one who knows it. Sources after "Learning Universal Predictors" (arXiv 2401.14953).
"""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from ..theory.solomonoff.context_tree import code_lengths
from . import _bits, _check
from .base import Batch, Task

DEEPEST = 12


class ContextTree(Task):
    """Options:

    depth    bits that a source looks back at most, 1 to 12
    length   training length
    lengths  test lengths; None: 1, 2, 4 and 8 times the training length
    """

    name = "context_tree"
    summary = "predict bits of random variable-order Markov sources, whose optimum is exact"
    metric = "bits_per_bit"
    best = 0.0
    by_position = True
    vocab_size = 3

    def __init__(self, *, depth: int = 5, length: int = 128, lengths: Iterable[int] | None = None):
        self.depth = _check.whole("depth", depth, 1, "a source looks back one bit or more")
        if self.depth > DEEPEST:
            raise ValueError(f"depth: expected at most {DEEPEST}, got {depth}; a row holds 2^depth chances: take fewer")
        self.length = _check.whole("length", length, 1, "a row has one bit or more")
        lengths = [m * self.length for m in (1, 2, 4, 8)] if lengths is None else lengths
        self.lengths = _check.increasing("lengths", lengths)

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        return _bits.rows(self.draw(size, self.length, rng)[0])

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        bits, _ = self.draw(size, length, rng)
        return _bits.rows(bits, code_lengths(bits, self.depth))

    def draw(self, size: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Bits of new sources, (size, length) int64, and the chance of a 1 that the source gave each, float64."""
        size = _check.batch_size(size)
        length = _check.whole("length", length, 1, "a row has one bit or more")
        chance, ended = rng.beta(0.5, 0.5, (size, 1)), rng.random((size, 1)) < 0.5
        for d in range(1, self.depth + 1):  # a context is a number, its last bit the lowest
            parent = np.arange(2**d) & (2 ** (d - 1) - 1)
            chance = np.where(ended[:, parent], chance[:, parent], rng.beta(0.5, 0.5, (size, 2**d)))
            ended = ended[:, parent] | (rng.random((size, 2**d)) < 0.5)
        bits, chances = np.empty((size, length), dtype=np.int64), np.empty((size, length))
        context, row, luck = np.zeros(size, dtype=np.int64), np.arange(size), rng.random((size, length))
        for t in range(length):
            chances[:, t] = chance[row, context]
            bits[:, t] = luck[:, t] < chances[:, t]
            context = (context << 1 | bits[:, t]) & (2**self.depth - 1)
        return bits, chances

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T, V), (B, T) -> (B, T) float32: -log2 p(target), bits; NaN where IGNORE."""
        return _bits.code_length(logits, targets)

    def label(self, token: int) -> str:
        return _bits.label(token)
