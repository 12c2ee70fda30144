"""How every program of a search ended, and the bounds that follow for the next bit.

Programs end in different ways and at different lengths. A program of n instructions weighs 6^-n; the weights of all
that ended, those that ran out of steps among them, sum to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import log2

import numpy as np

HIT, ZERO, ONE, DEPARTS, SILENT, LONG, SLOW, WIDE = range(8)
"""Rows of the counts: printed the data; then a 0; then a 1; printed something else; will never print again (it is in
the same place with the same tape as before); asks for an instruction that it is not given; ran out of steps; out of
cells. The last four happen before the data is printed, or, AFTER rows further down, after it."""
AFTER = 4
ROWS = 12
BITS = log2(6)  # of an instruction


Limits = Sequence[int] | np.ndarray
"""Steps of a program of n instructions, for n = 0, 1, ...; they do not grow with n, and the last is 0."""


@dataclass(frozen=True)
class Hit:
    """A program that prints the data, in the order in which its instructions were drawn, and its steps until then."""

    program: str
    steps: int

    @property
    def length(self) -> float:
        """|p|, bits."""
        return len(self.program) * BITS

    @property
    def kt(self) -> float:
        """|p| + log2 t, bits (Levin 1973)."""
        return self.length + log2(self.steps)


@dataclass(frozen=True)
class Outcomes:
    """A search for programs that print `data`.

    counts    (ROWS, N + 1) int64: programs by the way they ended and the number of their instructions
    limits    (N + 2,) int64: the limit of steps of a program of n instructions
    programs  nodes of the tree of programs that were run; steps: the machine's, all together
    shortest  hits of fewest instructions, then steps; least: of the smallest |p| + log2 t
    complete  False for a search that was stopped: programs that it did not reach are undecided
    """

    data: tuple[int, ...]
    counts: np.ndarray
    limits: np.ndarray
    programs: int
    steps: int
    shortest: list[Hit] = field(default_factory=list)
    least: Hit | None = None
    complete: bool = True

    def mass(self, *rows: int) -> Fraction:
        """The weight of all programs that ended in one of these ways."""
        ended = self.counts[list(rows)].sum(0)
        return sum((Fraction(int(count), 6**n) for n, count in enumerate(ended)), Fraction())

    @property
    def printed(self) -> Fraction:
        """The weight of the programs that printed the data: a lower bound of M(x)."""
        return self.mass(HIT)

    @property
    def undecided(self) -> Fraction:
        """The weight of programs that may still print the data: M(x) is at most `printed + undecided`."""
        return 1 - self.mass(HIT, DEPARTS, SILENT)

    @property
    def undecided_after(self) -> Fraction:
        """The weight of programs that printed the data, and may still print either bit or none."""
        return self.mass(HIT) - self.mass(ZERO, ONE, SILENT + AFTER)

    def bounds(self, bit: int) -> tuple[Fraction, Fraction]:
        """Lower and upper bound of M(x bit) / M(x), whatever the undecided programs do; (0, 1) where nothing is known.

        At the lower bound they all print x and then something else, at the upper one x and then the bit.
        """
        printed, undecided = self.printed, self.undecided
        if printed + undecided == 0:
            return Fraction(0), Fraction(1)
        known = self.mass(ONE if bit else ZERO)
        return known / (printed + undecided), (known + self.undecided_after + undecided) / (printed + undecided)

    def estimate(self, bit: int) -> float | None:
        """The share of this bit among the programs that printed x and then a bit; None where there are none."""
        both = self.mass(ZERO, ONE)
        return float(self.mass(ONE if bit else ZERO) / both) if both else None
