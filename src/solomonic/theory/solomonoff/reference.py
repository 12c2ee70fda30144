"""The machine and the search, one program at a time: the definition that the compiled search must equal.

A tape of bits, all 0, without ends, and a head on it. Six instructions:

    ~  flip the bit under the head          [  if it is 0, skip the loop that begins here; else enter it
    <  >  move the head                     ]  if it is 0, leave the loop that ends here; else begin it again
    .  print it                                (outside of a loop: nothing)

A program is not given but asked for: when the machine gets to a place where no instruction is written yet, it asks for
one, and that is written there for good. A `[` has two places after it: its body, and what follows the loop. On a 0 it
goes on after the loop, and the body is written when it is first entered, which may be never. So no program is invalid,
and a program is the string of its instructions in the order in which they were asked for: each drawn with chance
1/6, a program of n instructions weighs 6^-n, and the weights of all that one machine may do sum to 1.

After BrainPhoque of "Learning Universal Predictors" (arXiv 2401.14953); there `[` never skips, and this one does.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from .outcomes import AFTER, DEPARTS, HIT, LONG, ONE, ROWS, SILENT, SLOW, WIDE, ZERO, Hit, Limits, Outcomes

INSTRUCTIONS = "~<>[]."
CELLS = 61
"""Cells on either side of the head that are remembered; a 1 that would be left further behind ends the run."""


class Stopped(Exception):
    """Why a run ended: "asks", "silent", "slow" or "wide"."""


class Machine:
    """Runs a program and asks `draw()` for its instructions; raises Stopped("asks") when that gives None.

    `steps` counts instructions carried out, `program` is what was drawn so far.
    """

    def __init__(self, draw: Callable[[], str | None]):
        self.draw = draw
        self.program, self.steps = "", 0
        self.left = self.right = 0  # the tape as two stacks of bits; the lowest of `right` is under the head
        # of every instruction: the place of the next one, of its body's first one, and of the loop that it is in
        self.after: list[int | None] = []
        self.body: list[int | None] = []
        self.loop: list[int | None] = []
        self._watch()

    def outputs(self, limit: int) -> Iterator[int]:
        """The bits that it prints. Raises Stopped after `limit` steps, and when it will print no more."""
        place = self._write(None)
        self._watch()
        while True:
            if self.steps >= limit:
                raise Stopped("slow")
            self.steps += 1
            bit, loop = self.right & 1, self.loop[place]
            places, of = self.after, place
            match self.program[place]:
                case "~":
                    self.right ^= 1
                case ">":
                    if self.left >> (CELLS - 1):
                        raise Stopped("wide")
                    self.left, self.right = self.left << 1 | bit, self.right >> 1
                case "<":
                    if self.right >> CELLS:
                        raise Stopped("wide")
                    self.left, self.right = self.left >> 1, self.right << 1 | self.left & 1
                case "[" if bit:
                    places, loop = self.body, place
                case "]" if loop is not None and bit:
                    places, of = self.body, loop
                    self._repeats(loop)
                case "]" if loop is not None:
                    of, loop = loop, self.loop[loop]
                case ".":
                    yield bit
                    self._watch()
            following = places[of]
            if following is None:
                following = places[of] = self._write(loop)
                self._watch()
            place = following

    def _write(self, loop: int | None) -> int:
        """Ask for an instruction and write it; returns its place."""
        instruction = self.draw()
        if instruction is None:
            raise Stopped("asks")
        self.program += instruction
        self.after.append(None)
        self.body.append(None)
        self.loop.append(loop)
        return len(self.program) - 1

    def _watch(self) -> None:
        self._seen: tuple[int, int, int] | None = None
        self._iterations, self._next = 0, 1

    def _repeats(self, loop: int) -> None:
        """Raises Stopped where place and tape come again with nothing printed or drawn in between (Brent 1980)."""
        here = loop, self.left, self.right
        if here == self._seen:
            raise Stopped("silent")
        self._iterations += 1
        if self._iterations == self._next:
            self._seen, self._next = here, 2 * self._next


def layout(program: str) -> str:
    """The program as a text, every loop between its brackets; `_` where nothing is written yet, but at the end."""
    draw = iter(program)
    machine = Machine(lambda: next(draw, None))
    try:
        for _ in machine.outputs(100_000):
            if len(machine.program) == len(program):
                break
    except Stopped:
        pass

    def text(place: int | None) -> str:
        if place is None:
            return "_"
        instruction = machine.program[place]
        if instruction == "[":
            return f"[{text(machine.body[place])}]{text(machine.after[place])}"
        return (
            "" if instruction == "]" and machine.loop[place] is not None else instruction + text(machine.after[place])
        )

    return text(0 if machine.program else None).rstrip("_")


def continuation(program: str, bits: int, steps: int = 100_000) -> tuple[str, str]:
    """The output of the program, at most `bits` bits, and why it ended: "", "asks", "silent", "slow" or "wide"."""
    draw, out = iter(program), ""
    try:
        for bit in islice(Machine(lambda: next(draw, None)).outputs(steps), bits):
            out += str(bit)
    except Stopped as why:
        return out, str(why)
    return out, ""


def search(data: Sequence[int], limits: Limits, keep: int = 5) -> Outcomes:
    """Run every program of n < len(limits) - 1 instructions for limits[n] steps, each from its beginning.

    data    bits, at least one
    limits  steps of a program of n instructions, not growing with n; the last is 0
    """
    data, step_limits = tuple(data), np.asarray(limits, dtype=np.int64)
    counts = np.zeros((ROWS, len(step_limits)), dtype=np.int64)
    hits: list[Hit] = []
    programs = steps = 0

    def visit(program: str, before: int) -> None:
        """Run `program`, whose last instruction was drawn after `before` steps, and those that begin with it."""
        nonlocal programs, steps
        n, draw, printed = len(program), iter(program), 0
        hit: int | None = None
        row: int | None = None
        machine = Machine(lambda: next(draw, None))
        programs += 1
        try:
            for bit in machine.outputs(int(step_limits[n])):
                if printed == len(data):
                    row = ONE if bit else ZERO
                    break
                if bit != data[printed]:
                    row = DEPARTS
                    break
                printed += 1
                if printed == len(data):
                    hit = machine.steps
        except Stopped as why:
            after = AFTER if printed == len(data) else 0
            row = {"asks": None, "silent": SILENT + after, "slow": SLOW + after, "wide": WIDE + after}[str(why)]
        steps += machine.steps - before
        if hit is not None and hit > before:
            counts[HIT, n] += 1
            hits.append(Hit(program, hit))
        if row is not None:
            counts[row, n] += 1
        elif machine.steps >= step_limits[n + 1]:
            counts[LONG + after, n] += 1
        else:
            for instruction in INSTRUCTIONS:
                visit(program + instruction, machine.steps)

    if step_limits[1] > 0:
        for instruction in INSTRUCTIONS:
            visit(instruction, 0)
    else:
        counts[LONG, 0] = 1
    ranked = sorted(hits, key=lambda hit: (len(hit.program), hit.steps))
    least = min(hits, key=lambda hit: hit.kt, default=None)
    return Outcomes(data, counts, step_limits, programs, steps, ranked[:keep], least)
