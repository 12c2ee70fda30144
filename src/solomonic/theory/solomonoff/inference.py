"""Solomonoff inference under a budget: Levin's phases, and a mixture for data that no program explains.

In phase k every program p has 2^(k - |p|) steps, |p| = n log2 6 bits (Levin 1973): a phase costs 2^k steps at most, and
it finds every program of |p| + log2 t <= k. Nothing but the results is kept between phases.
"""

import lzma
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, log2

import numpy as np

from .compiled import SLICE, Search
from .context_tree import ContextTree
from .outcomes import ONE, ZERO, Hit, Outcomes

LAST_PHASE = 62
Progress = Callable[[int, int, int], None]
"""Called after every slice of work with the phase (0: the only one), and programs and steps of all phases so far."""


@dataclass(frozen=True)
class Phase:
    k: int
    programs: int
    steps: int
    seconds: float
    complete: bool


@dataclass(frozen=True)
class Answer:
    """The result of a search for programs that print `data`.

    outcomes     those of the phase that decided most
    phases       the work of each
    stopped      why the search ended: "budget", "interrupted", or "" where it was complete
    tree, tree_bits, xz_bits   context-tree weighting's chance of a 1 next and its code length, and xz's
    """

    data: tuple[int, ...]
    outcomes: Outcomes
    phases: list[Phase]
    stopped: str
    tree: float
    tree_bits: float
    xz_bits: int

    @property
    def programs(self) -> int:
        return sum(phase.programs for phase in self.phases)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def literal(self) -> Hit:
        """The program that prints the data bit by bit: there always is one."""
        return literal(self.data)

    @property
    def complexity(self) -> tuple[float, float]:
        """Lower and upper bound of -log2 M(x), bits. Without a hit the literal program alone gives the upper one."""
        printed = max(self.outcomes.printed, Fraction(1, 6 ** len(self.literal.program)))
        return -log2_of(self.outcomes.printed + self.outcomes.undecided), -log2_of(printed)

    @property
    def kt(self) -> tuple[float, float]:
        """Lower and upper bound of Levin's Kt(x) = min |p| + log2 t, bits; they are equal once its phase is done.

        They are bounds over programs that stay within CELLS of the tape.
        """
        most = min(hit.kt for hit in (self.outcomes.least, self.literal) if hit)
        done = max((phase.k for phase in self.phases if phase.complete), default=0)
        return min(float(done), most), most

    def mixture(self) -> tuple[float, dict[str, float]]:
        """The chance of a 1 by a mixture of programs (1/2), context trees (1/4) and fair coins (1/4, the literal program).

        And the share of each in it after x. So data that no program explains is predicted, too.
        """
        n = len(self.data)
        # log2 of each one's weight times its probability of x, x0 and x1
        coins = (-2.0 - n, -3.0 - n, -3.0 - n)
        trees = -2.0 - self.tree_bits
        parts = {
            "programs": tuple(
                log2_of(mass) - 1 for mass in (self.outcomes.printed, self.outcomes.mass(ZERO), self.outcomes.mass(ONE))
            ),
            "context trees": (trees, trees + log2(1 - self.tree), trees + log2(self.tree)),
            "coins": coins,
        }
        best = max(x for x, _, _ in parts.values())
        share = {name: 2 ** (x - best) for name, (x, _, _) in parts.items()}
        zero, one = (sum(2 ** (part[i] - best) for part in parts.values()) for i in (1, 2))
        return one / (zero + one), {name: value / sum(share.values()) for name, value in share.items()}


def infer(
    data: Sequence[int],
    *,
    seconds: float | None = None,
    steps: int | None = None,
    last: int | None = None,
    length: int | None = None,
    each: int = 1000,
    depth: int = 8,
    keep: int = 5,
    progress: Progress = lambda phase, programs, steps: None,
) -> Answer:
    """Search until the budget is spent, or until Ctrl-C, which ends the search and keeps its results.

    data            bits, at least one
    seconds, steps  the budget, of the clock and of the machine; None: no end
    last            the last phase, of 62; or instead of phases
    length, each    every program of so many instructions at most, each with so many steps
    depth           of the context trees

    ValueError for data that is not bits, and for a budget that is not above zero or is missing.
    """
    data = tuple(data)
    if not data or any(bit not in (0, 1) for bit in data):
        raise ValueError(f"data: expected bits, one or more, got {data[:8]!r}; pass 0 and 1 alone")
    budget = {"seconds": seconds, "steps": steps, "last": last, "length": length, "each": each, "depth": depth}
    for name, value in budget.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}: expected more than 0, got {value!r}; give the search something to spend")
    if seconds is steps is last is length is None:
        raise ValueError("expected a budget, got none; pass seconds, steps, last or length")
    tree, packed = ContextTree(depth), xz_bits(data)
    for bit in data:
        tree.update(bit)
    begin, spent = time.perf_counter(), [0, 0]
    outcomes: list[Outcomes] = []
    phases: list[Phase] = []
    stopped = ""
    plan = _phases(min(last or LAST_PHASE, LAST_PHASE)) if length is None else iter([(0, uniform(length, each))])
    for k, limits in plan:
        going, start = Search(data, limits, keep), time.perf_counter()
        try:
            while not going.done and not stopped:
                left = inf if steps is None else steps - spent[1] - going.steps
                if left <= 0 or (seconds is not None and time.perf_counter() - begin >= seconds):
                    stopped = "budget"
                    break
                going.advance(int(min(SLICE, left)))
                progress(k, spent[0] + going.programs, spent[1] + going.steps)
        except KeyboardInterrupt:
            stopped = "interrupted"
        spent = [spent[0] + going.programs, spent[1] + going.steps]
        outcomes.append(going.outcomes())
        phases.append(Phase(k, going.programs, going.steps, time.perf_counter() - start, going.done))
        if stopped:
            break
    return Answer(data, _best(outcomes, keep), phases, stopped, tree.probability(), tree.bits, packed)


def uniform(length: int, steps: int) -> np.ndarray:
    """Limits of a search of every program to `length`, each with `steps`."""
    limits = np.full(length + 2, steps, dtype=np.int64)
    limits[-1] = 0
    return limits


def levin(k: int) -> np.ndarray:
    """Limits of phase k: a program of n instructions has 2^k / 6^n steps, whole ones."""
    limits = [2**k]
    while limits[-1] >= len(limits):
        limits.append(2**k // 6 ** len(limits))
    return np.array([*limits, 0], dtype=np.int64)


def literal(data: Sequence[int]) -> Hit:
    program, cell = "", 0
    for bit in data:
        program += "~." if bit != cell else "."
        cell = bit
    return Hit(program, len(program))


def xz_bits(data: Sequence[int]) -> int:
    """The size in bits of what xz makes of the data, packed into bytes."""
    return 8 * len(lzma.compress(np.packbits(np.array(data, dtype=np.uint8)).tobytes(), preset=9 | lzma.PRESET_EXTREME))


def log2_of(mass: Fraction) -> float:
    return log2(mass.numerator) - log2(mass.denominator) if mass else -inf


def _phases(last: int) -> Iterator[tuple[int, np.ndarray]]:
    for k in range(1, last + 1):
        yield k, levin(k)


def _best(outcomes: list[Outcomes], keep: int) -> Outcomes:
    """The later of the last two, or the earlier one where that decided more; with the hits of both."""
    *_, before, last = [None, *outcomes]
    if before is None:
        return last
    best = min(before, last, key=lambda each: (each.undecided + each.undecided_after, each is before))
    hits = {hit.program: hit for hit in [*before.shortest, *last.shortest]}.values()
    shortest = sorted(hits, key=lambda hit: (len(hit.program), hit.steps))[:keep]
    least = min((each.least for each in (before, last) if each.least), key=lambda hit: hit.kt, default=None)
    return Outcomes(best.data, best.counts, best.limits, best.programs, best.steps, shortest, least, best.complete)
