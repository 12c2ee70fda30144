"""Universal prediction: predict the bits that random programs print (Learning Universal Predictors, arXiv 2401.14953).

One sample (length=8, the program `~[~.~.]`):

    tokens    2 0 1 0 1 0 1 0
    targets   0 1 0 1 0 1 0 1

Every row is what the machine of `theory/solomonoff/reference.py` prints when each instruction that it asks for is drawn at
random, cut after `length` bits; a program that has not printed as many in 16 steps a bit is drawn again. Token 2 begins
a row. Every bit is scored by its code length. So a model that loses the fewest bits on average predicts as the
universal predictor does, Solomonoff's M under this limit of steps.

M itself is not computable, but how many bits it loses is bounded on every row (Solomonoff 1978): with n instructions
drawn before the bit at t was printed, M(x_1..x_t) >= 6^-n. So the even mixture of M with context-tree weighting, which
loses c bits on x_1..x_t, loses at most 1 + min(n log2 6, c) bits. The bound of a test batch is this one, from t - 1 to t:
a regret above 0 is what a model loses beyond what that mixture guarantees. M itself may do better, as any number of
programs print the same: the regret may be negative.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from math import log2

import numpy as np
from torch import Tensor

from ..theory.solomonoff.context_tree import code_lengths
from ..theory.solomonoff.reference import INSTRUCTIONS, Machine, Stopped
from . import _bits, _check
from .base import Batch, Task

STEPS = 16  # of the machine, a bit
DEPTH = 8  # of the context trees beside M


class Universal(Task):
    """Options:

    length   training length
    lengths  test lengths; None: 1, 2 and 4 times the training length
    """

    name = "universal"
    summary = "predict what random programs print, against the bound of Solomonoff's predictor"
    metric = "bits_per_bit"
    best = 0.0
    by_position = True
    vocab_size = 3

    def __init__(self, *, length: int = 128, lengths: Iterable[int] | None = None):
        self.length = _check.whole("length", length, 1, "a row has one bit or more")
        lengths = [m * self.length for m in (1, 2, 4)] if lengths is None else lengths
        self.lengths = _check.increasing("lengths", lengths)

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        return _bits.rows(self.draw(size, self.length, rng)[0])

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        bits, drawn, _ = self.draw(size, length, rng)
        known = 1 + np.minimum(drawn * log2(6), code_lengths(bits, DEPTH).cumsum(1))
        return _bits.rows(bits, np.diff(known, axis=1, prepend=0.0))

    def draw(self, size: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Bits of random programs, (size, length) int64; how many instructions had been drawn when each was printed,
        likewise; and the programs."""
        size = _check.batch_size(size)
        length = _check.whole("length", length, 1, "a row has one bit or more")
        rows: list[list[tuple[int, int]]] = []
        programs: list[str] = []
        while len(rows) < size:
            machine = Machine(_instructions(rng).__next__)
            row: list[tuple[int, int]] = []
            try:
                for bit in islice(machine.outputs(STEPS * length), length):
                    row.append((bit, len(machine.program)))
            except Stopped:
                continue
            rows.append(row)
            programs.append(machine.program)
        table = np.array(rows, dtype=np.int64)
        return table[..., 0], table[..., 1], programs

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T, V), (B, T) -> (B, T) float32: -log2 p(target), bits; NaN where IGNORE."""
        return _bits.code_length(logits, targets)

    def label(self, token: int) -> str:
        return _bits.label(token)


def _instructions(rng: np.random.Generator) -> Iterator[str]:
    while True:
        for index in rng.integers(6, size=32).tolist():
            yield INSTRUCTIONS[index]
