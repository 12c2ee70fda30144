"""What the tasks share that draw training and test rows alike, at any possible length."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from . import _check, _draw
from .base import Batch, Task

EASY = 0.6  # share of training in which the longest rows of a task that grows are shorter than `length`
MOST = 4  # times as many rows of a batch, where they are short


class RowTask(Task):
    """A task of which `_rows` draws every batch, and `_possible` says which lengths there are.

    Where it `grows`, half of the training batches are as long as any, the others of any possible length; the longest ones
    grow from the shortest rows that there are to `length`, since short rows are what a model learns to look back in. Short
    rows are more, up to `MOST` times as many.
    """

    grows: ClassVar[bool] = False
    shortest: int  # where it grows

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        if not self.grows:
            return self._rows(size, self.length, rng)
        longest = round(self.shortest * (self.length / self.shortest) ** min(1.0, progress / EASY))
        length = _draw.training_length(rng, self.shortest, longest)
        return self._rows(min(MOST * size, size * self.length // length), length, rng)

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        return self._rows(size, self._possible("length", length), rng)

    @abstractmethod
    def _possible(self, name: str, length: int) -> int:
        """`length`; ValueError, which calls it `name`, where no row has it."""

    @abstractmethod
    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch: ...

    def _take_lengths(self, length: int, lengths: Iterable[int] | None, times: tuple[int, ...]) -> None:
        """Set `length` and `lengths`; where those are None they are `times` the training length."""
        self.length = self._possible("length", length)
        lengths = [m * self.length for m in times] if lengths is None else lengths
        if self.grows:
            self.shortest = next(n for n in range(1, self.length + 1) if self._has(n))
        self.lengths = tuple(self._possible("lengths", n) for n in _check.increasing("lengths", lengths))

    def _has(self, length: int) -> bool:
        try:
            return self._possible("length", length) == length
        except ValueError:
            return False
