"""Register machine: a program that sets, adds and copies a few registers, and asks for what one of them holds.

One sample (registers=2, modulus=5, length=15): 0 sets, 1 adds, 2 copies, 3 asks; 4-5 are registers a and b, 6-10 the
values 0-4; `.` is not scored.

              a = 3   b = 4    a += b   ask a    b = a
    tokens    0 4 9   0 5 10   1 4 5    3 4 8    2 5 4
    targets   . . .   . . .    . . .    . 8 .    . . .

Every instruction is three tokens: what it does, a register r, and a value or a register s. `set r v` makes r = v,
`add r s` makes r = r + s modulo m, `copy r s` makes r = s; r and s differ. `ask r` is followed by the value that r
holds, which is the target at r. A row begins by setting every register in order; then the four instructions are
equally likely, registers and values uniform. The last value that fits a row of T positions is always asked for; the
row is cut off after T tokens, within an instruction where T is no multiple of three. Nothing but the answers is
scored.

With `scratchpad` every instruction is followed by the working, the values that all registers then hold, in order (a
register that was not yet set holds 0). Instruction 3 of the sample reads `1 4 5  8 10`. Answers and working are
scored, and a position is right only if all scored positions before it in its row are (`_scratchpad.py`): the score is
that of a model that writes its own working while it is given the instructions.

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

There is no outside source; the task is this library's own. What has to be kept is the same at every length.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._scratchpad import ScratchpadTask
from .base import IGNORE, Batch

SET, ADD, COPY, ASK = range(4)


class RegisterMachine(ScratchpadTask):
    """Options:

    registers   R, at least 2
    modulus     m, values are 0 to m - 1; at least 2
    scratchpad  whether rows hold the working
    length      training length, at least 3 R + 2, with scratchpad R (3 + R) + 2
    lengths     test lengths; None: 1, 2, 4 and 8 times `length`
    """

    name = "register_machine"
    summary = "what a register holds after instructions that set, add and copy"
    grows = True

    def __init__(
        self,
        *,
        registers: int = 4,
        modulus: int = 7,
        scratchpad: bool = False,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.registers = _check.whole("registers", registers, 2, "one is added or copied to another")
        self.modulus = _check.whole("modulus", modulus, 2, "one value would leave nothing to predict")
        self.scratchpad = _check.flag("scratchpad", scratchpad)
        self.values = 4 + self.registers  # the token of the value 0
        self.vocab_size = self.values + self.modulus
        self.chance = None if self.scratchpad else 1 / self.modulus
        self.step = 3 + self.registers * self.scratchpad  # tokens an instruction
        self._take_lengths(length, lengths, (1, 2, 4, 8))

    def label(self, token: int) -> str:
        if token < 4:
            return ("set", "add", "copy", "ask")[token]
        return f"r{token - 4}" if token < self.values else str(token - self.values)

    def _possible(self, name: str, length: int) -> int:
        least = self.registers * self.step + 2
        return _check.whole(name, length, least, f"{self.registers} registers are set, and one is asked for")

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, n = _check.batch_size(size), length // self.step + 1  # the last one reaches beyond T
        does = rng.integers(4, size=(rows, n))
        r = rng.integers(self.registers, size=(rows, n))
        s = (r + rng.integers(1, self.registers, size=(rows, n))) % self.registers
        value = rng.integers(self.modulus, size=(rows, n))
        does[:, : self.registers], r[:, : self.registers] = SET, np.arange(self.registers)
        does[:, (length - 2) // self.step] = ASK

        held, row = np.zeros((rows, self.registers), dtype=np.int64), np.arange(rows)
        after = np.empty((rows, n, self.registers), dtype=np.int64)
        for i in range(n):
            of_r, of_s = held[row, r[:, i]], held[row, s[:, i]]
            value[:, i] = np.choose(does[:, i], (value[:, i], (of_r + of_s) % self.modulus, of_s, of_r))
            held[row, r[:, i]] = value[:, i]
            after[:, i] = held

        program = np.empty((rows, n, self.step), dtype=np.int64)
        program[..., 0], program[..., 1] = does, 4 + r
        program[..., 2] = np.where((does == ADD) | (does == COPY), 4 + s, self.values + value)
        scored = np.zeros(program.shape, dtype=bool)
        scored[..., 2] = does == ASK
        if self.scratchpad:
            program[..., 3:], scored[..., 3:] = self.values + after, True
        targets = np.where(scored, program, IGNORE).reshape(rows, -1)
        return _draw.batch(program.reshape(rows, -1)[:, :length], targets[:, 1 : length + 1])
