"""The search of `reference`, depth first and compiled by numba: equal to it in every count, hit and number of steps.

A branch of the tree of programs goes on from where its parent asked for an instruction, and dies as soon as its output
departs from the data. Only a `]` can run on by itself: what the other five do is done once, and then the machine asks.
Steps are undone by the frames of a stack, one an instruction: the tape is two words, a place of the program one index.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from ..._utils.progress import watch_numba
from .outcomes import AFTER, BITS, DEPARTS, HIT, LONG, ONE, ROWS, SILENT, SLOW, WIDE, ZERO, Hit, Limits, Outcomes
from .reference import CELLS, INSTRUCTIONS

watch_numba()
FLIP, BACK, ON, OPEN, CLOSE, PRINT = range(6)
LEFT_FULL, RIGHT_FULL = 1 << (CELLS - 1), 1 << CELLS
SLICE = 20_000_000  # steps between two looks at the clock


class Search:
    """One search, that goes on by `advance` until `done`; `outcomes` at any time.

    data    bits, at least one
    limits  steps of a program of n instructions, not growing with n; the last is 0
    """

    def __init__(self, data: Sequence[int], limits: Limits, keep: int = 5):
        self.data = np.array(data, dtype=np.int8)
        self.limits = np.asarray(limits, dtype=np.int64)
        most = len(self.limits)
        self._counts = np.zeros((ROWS, most), dtype=np.int64)
        self._frames = np.zeros((most + 1, 7), dtype=np.int64)
        self._program = np.full((most + 1, 4), -1, dtype=np.int64)
        self._best = np.zeros((keep + 1, most + 2), dtype=np.int64)
        self._best[:, :2] = np.iinfo(np.int64).max
        self._at = np.array([0 if self.limits[1] > 0 else -1, 0, 0])
        if self.done:
            self._counts[LONG, 0] = 1
        else:
            self._frames[0] = 0, 0, 0, 0, -1, -1, 0

    @property
    def done(self) -> bool:
        return bool(self._at[0] < 0)

    @property
    def programs(self) -> int:
        return int(self._at[1])

    @property
    def steps(self) -> int:
        return int(self._at[2])

    def advance(self, steps: int = SLICE) -> None:
        """Go on for about `steps` steps of the machine."""
        _advance(
            self.data, self.limits, self.steps + steps, self._at, self._frames, self._program, self._counts, self._best
        )

    def outcomes(self) -> Outcomes:
        hits = [
            Hit("".join(INSTRUCTIONS[i] for i in row[2 : 2 + row[0]]), int(row[1]))
            for row in self._best
            if row[0] < len(row)
        ]
        least = hits.pop() if hits else None
        data = tuple(self.data.tolist())
        return Outcomes(data, self._counts.copy(), self.limits, self.programs, self.steps, hits, least, self.done)


def search(data: Sequence[int], limits: Limits, keep: int = 5) -> Outcomes:
    """`reference.search`, compiled."""
    going = Search(data, limits, keep)
    while not going.done:
        going.advance()
    return going.outcomes()


def ready() -> None:
    """Compiles, or reads what an earlier process compiled, so that the first search does not wait for it."""
    search((0,), (1, 1, 0))


@njit(cache=True, inline="always")
def _hit(program, n, steps, counts, best):
    """Count a hit, and keep it where it is among the shortest (all rows but the last), or of the least Kt (the last)."""
    counts[HIT, n] += 1
    least = len(best) - 1
    if best[least, 0] > n + 1_000_000 or n * BITS + np.log2(steps) < best[least, 0] * BITS + np.log2(best[least, 1]):
        best[least, 0], best[least, 1] = n, steps
        best[least, 2 : 2 + n] = program[:n, 0]
    place = least
    while place > 0 and (best[place - 1, 0] > n or (best[place - 1, 0] == n and best[place - 1, 1] > steps)):
        place -= 1
    if place < least:
        for row in range(least - 1, place, -1):
            best[row] = best[row - 1]
        best[place, 0], best[place, 1] = n, steps
        best[place, 2 : 2 + n] = program[:n, 0]


@njit(cache=True)
def _advance(data, limits, quota, at, frames, program, counts, best):
    """
    at       (3,): the frame on top, -1 at the end; programs run; steps run
    frames   a row an instruction that is asked for: left, right, bits printed, steps, the place where it is to be
             written (2 i after i, 2 i + 1 in its body, -1 the first), its loop (-1: none), the next one to try
    program  a row an instruction: what it is, its loop, the instruction after it, the first of its body (-1: none)
    """
    size = len(data)
    depth, programs, total = at[0], at[1], at[2]
    while depth >= 0 and total < quota:
        instruction = frames[depth, 6]
        if instruction == 6:
            place = frames[depth, 4]
            if place >= 0:
                program[place >> 1, 2 + (place & 1)] = -1
            depth -= 1
            continue
        frames[depth, 6] = instruction + 1
        programs += 1
        left, right, printed = frames[depth, 0], frames[depth, 1], frames[depth, 2]
        before, loop = frames[depth, 3], frames[depth, 5]
        steps, n = before + 1, depth + 1
        program[depth, 0], program[depth, 1] = instruction, loop
        program[depth, 2] = program[depth, 3] = -1
        place, row = 2 * depth, -1
        if instruction == FLIP:
            right ^= 1
        elif instruction == ON:
            if left >= LEFT_FULL:
                row = WIDE
            else:
                left, right = left << 1 | right & 1, right >> 1
        elif instruction == BACK:
            if right >= RIGHT_FULL:
                row = WIDE
            else:
                left, right = left >> 1, right << 1 | left & 1
        elif instruction == OPEN:
            if right & 1:
                place, loop = place + 1, depth
        elif instruction == PRINT:
            if printed == size:
                row = ONE if right & 1 else ZERO
            elif data[printed] != right & 1:
                row = DEPARTS
            else:
                printed += 1
                if printed == size:
                    _hit(program, n, steps, counts, best)
        elif loop >= 0:
            limit = limits[n]
            if right & 1:
                place = 2 * loop + 1
                seen, seen_left, seen_right, turns, following = loop, left, right, 1, 2
            else:
                place, loop = 2 * loop, program[loop, 1]
                seen, seen_left, seen_right, turns, following = -1, 0, 0, 0, 1
            while True:
                here = program[place >> 1, 2 + (place & 1)]
                if here < 0:
                    break
                if steps >= limit:
                    row = SLOW
                    break
                steps += 1
                instruction, place = program[here, 0], 2 * here
                loop = program[here, 1]
                if instruction == FLIP:
                    right ^= 1
                elif instruction == ON:
                    if left >= LEFT_FULL:
                        row = WIDE
                        break
                    left, right = left << 1 | right & 1, right >> 1
                elif instruction == BACK:
                    if right >= RIGHT_FULL:
                        row = WIDE
                        break
                    left, right = left >> 1, right << 1 | left & 1
                elif instruction == OPEN:
                    if right & 1:
                        place, loop = place + 1, here
                elif instruction == PRINT:
                    if printed == size:
                        row = ONE if right & 1 else ZERO
                        break
                    if data[printed] != right & 1:
                        row = DEPARTS
                        break
                    printed += 1
                    if printed == size:
                        _hit(program, n, steps, counts, best)
                    seen, turns, following = -1, 0, 1
                elif loop >= 0:
                    if right & 1:
                        place = 2 * loop + 1
                        if seen == loop and seen_left == left and seen_right == right:
                            row = SILENT
                            break
                        turns += 1
                        if turns == following:
                            seen, seen_left, seen_right, following = loop, left, right, 2 * following
                    else:
                        place, loop = 2 * loop, program[loop, 1]
        total += steps - before
        if row < 0:
            if steps < limits[n + 1]:
                depth += 1
                frames[depth, 0], frames[depth, 1], frames[depth, 2] = left, right, printed
                frames[depth, 3], frames[depth, 4], frames[depth, 5] = steps, place, loop
                frames[depth, 6] = 0
                program[place >> 1, 2 + (place & 1)] = depth
                continue
            row = LONG
        if row >= SILENT and printed == size:
            row += AFTER
        counts[row, n] += 1
    at[0], at[1], at[2] = depth, programs, total
