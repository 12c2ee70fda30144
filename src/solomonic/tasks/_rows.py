"""What the tasks share that draw training and test rows alike, at any possible length."""

from abc import abstractmethod
from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from .base import Batch, Task


class RowTask(Task):
    """A task of which `_rows` draws every batch, and `_possible` says which lengths there are."""

    shortest: int = 0  # half of the training batches are shorter than `length`, from here on; 0: none

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        length = self.length
        if self.shortest:
            length = _draw.training_length(rng, self.shortest, length)
        return self._rows(size, length, rng)

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
        self.lengths = tuple(self._possible("lengths", n) for n in _check.increasing("lengths", lengths))
