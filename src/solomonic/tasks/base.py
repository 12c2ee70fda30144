"""What a task is. A task draws batches and scores logits; it never sees a model.

Shapes: B rows, T positions, V vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

IGNORE = -100
"""Target at a position that is not scored (the default of `torch.nn.functional.cross_entropy`)."""


@dataclass(frozen=True)
class Batch:
    """Rows of one length. `logits[:, t]` of a model on `tokens` is held against `targets[:, t]`."""

    tokens: Tensor  # (B, T) int64 in [0, V)
    targets: Tensor  # (B, T) int64 in [0, V), or IGNORE
    bound: Tensor | None = None  # (B, T) float32, test batches: what the best predictor scores, where that is known
    documents: Tensor | None = (
        None  # (B,) int64, test batches: of which document each row is a piece, where there are some
    )


class Task(ABC):
    """Draws samples, and scores logits.

    Laws, tested on every task there is (`solomonic.testing`):

    - A batch is a function of its arguments and of the generator's state alone.
    - Tokens lie in [0, vocab_size); at least one position of every row is scored.
    - Perfect logits (all mass on the target) score `best`; `score` is NaN exactly where the target is IGNORE.
    - The test split never repeats a training document, where there are documents.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line, for `solomonic list`
    metric: ClassVar[str] = "accuracy"
    best: ClassVar[float] = 1.0  # the value of perfect logits
    by_position: ClassVar[bool] = False  # whether a curve over positions is of interest

    vocab_size: int
    length: int  # the (longest) training length
    lengths: tuple[int, ...]  # the lengths a comparison asks by default
    chance: float | None = (
        None  # share that a uniform guess among the possible answers gets right; None: not of interest
    )

    @abstractmethod
    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        """A batch of about `size` rows to learn from. `progress` in [0, 1] is how far training is: a task may begin
        with easier rows. More positions may have targets than the test scores."""

    @abstractmethod
    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        """A batch of `size` held-out rows of `length` positions.

        Raises ValueError when the task has no row of that length (the message says which are possible).
        """

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T, V), (B, T) -> (B, T) float32: 1 where the largest logit is the target, else 0; NaN where IGNORE."""
        right = (logits.argmax(-1) == targets).float()
        return right.masked_fill(targets == IGNORE, torch.nan)

    def held_out_rows(self, length: int) -> int | None:
        """How many different rows of `length` positions `test_batch` has; None: it draws new ones without end.

        A task with a number has documents: its batches say of which one each row is, and any part of a row is a row.
        """
        return None

    def document(self, index: int) -> str:
        """The name of a document of `Batch.documents`."""
        return str(index)

    def joined(self, scores: Tensor) -> Tensor:
        """(B, T) -> (B, T): scores of whole rows, given what `score` said of their chunks, side by side.

        Only a task whose score of a position depends on those before it has anything to do here.
        """
        return scores

    def marks(self, batch: Batch) -> list[int]:
        """Positions of the first row's tokens that will be asked for, for pictures; empty where that is not known."""
        return []

    def label(self, token: int) -> str:
        """How a token is shown to a person."""
        return str(token)
