"""Rows that teach a model to look things up, so that a long-term store is of use to it.

Text alone hardly does: what was read long ago is seldom worth looking up within one row, and whatever a store finds is
noise to a model that never had one. So the first `WARM` of the steps read short rows of random tokens in which a passage
comes back: nothing but copying predicts it. Then come rows of text, the last of a batch with passages of the first ones
written in, while every row finds tokens of the others (`ops.neighbours`). The first find nothing that was copied from
them: to them a match is chance, as it mostly is in a store.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..model import LanguageModel
from ..retrieval.neighbours import Neighbours
from .rows import RowBatch, Rows

WARM, WARM_STEPS = 0.1, 150
"""Share of the steps on random tokens, and the fewest of them, but never more than a third."""

FOUND = 2
"""Tokens that each head finds for each query."""

IGNORE = -100
SHORTEST, LONGEST, FEWEST = 8, 128, 16
"""Tokens of a random row at first and at last; and of a passage that comes back."""


class LookupRows:
    """The batches of `steps` steps: a function of the seed, the step and which rows of it are asked for.

    share: of the rows that get passages of the others. vocab_size: random tokens are below it, and never `end`.
    """

    def __init__(self, rows: Rows, share: float, steps: int, vocab_size: int, end: int):
        if not 0 < share < 1:
            raise ValueError(f"lookup: expected a share in (0, 1), or 0 for none, got {share}")
        if rows.carry:
            raise ValueError("lookup: rows are whole, so that no state is carried; leave --carry or --lookup out")
        if rows.length < 2 * FEWEST:
            raise ValueError(f"lookup: expected rows of {2 * FEWEST} tokens or more, got {rows.length}")
        self.rows, self.share = rows, share
        self.warm = min(max(WARM_STEPS, round(WARM * steps)), steps // 3)
        self.symbols = np.setdiff1d(np.arange(vocab_size), [end])

    def batch(self, step: int, rows: slice = slice(None)) -> RowBatch:
        """The rows `rows` of step 0, 1, ...; while the model warms up, short rows of as many tokens in all."""
        rng = np.random.default_rng([self.rows.seed, step, rows.start or 0])
        count = len(range(self.rows.batch_size)[rows])
        return self._random(step, count, rng) if step < self.warm else self._text(step - self.warm, rows, rng)

    def _random(self, step: int, count: int, rng: np.random.Generator) -> RowBatch:
        longest = min(LONGEST, self.rows.length)
        length = round(SHORTEST * (longest / SHORTEST) ** min(1.0, step / (0.8 * self.warm)))
        count = count * self.rows.length // length
        tokens, targets = np.empty((count, length + 1), np.int64), np.full((count, length + 1), IGNORE)
        for row, target in zip(tokens, targets):
            n = int(rng.integers(2, length // 2))
            gap = int(rng.integers(length + 2 - 2 * n))
            few = int(rng.integers(8, 400))
            symbols = (
                self.symbols if rng.random() < 0.5 else rng.choice(self.symbols, min(few, len(self.symbols)), False)
            )
            row[:] = rng.choice(symbols, length + 1)
            row[n + gap : 2 * n + gap] = row[:n]
            target[n + gap + 1 : 2 * n + gap] = row[1:n]  # its first token comes out of nothing
        return RowBatch(tokens[:, :-1], targets[:, 1:], np.zeros((count, length), np.int64))

    def _text(self, step: int, rows: slice, rng: np.random.Generator) -> RowBatch:
        plain_rows = self.rows.batch(step, rows)
        text = np.concatenate([plain_rows.tokens, plain_rows.targets[:, -1:]], 1)
        count, length = plain_rows.tokens.shape
        plain = min(max(1, count - round(self.share * count)), count - 1)
        for row in text[plain:]:
            at = int(rng.integers(FEWEST))
            while at < length - FEWEST:
                n = min(int(rng.integers(FEWEST, length // 2 + 1)), length + 1 - at)
                begin = int(rng.integers(length + 2 - n))
                row[at : at + n] = text[rng.integers(plain), begin : begin + n]
                at += n + int(rng.integers(length // 3))
        segments = plain_rows.segments.copy()
        segments[plain:] = 0
        may_see = ~np.eye(count, dtype=bool)
        may_see[:plain, plain:] = False
        return RowBatch(text[:, :-1], text[:, 1:], segments, may_see)


def lookup_layers(model: LanguageModel) -> list[bool | None]:
    """Of each layer, whether scores count in its eidetic memory; None for one that has none, and looks nothing up.

    ValueError for a model of which no layer has one.
    """
    layers = [
        getattr(block.mixer, "learns", None) if getattr(config, "capacity", 0) else None
        for block, config in zip(model.blocks, model.config.layers)
    ]
    if all(scores_count is None for scores_count in layers):
        raise ValueError(
            "--lookup: expected a model with an eidetic memory, whose layers look things up; got one without"
        )
    return layers


def neighbours(layers: Sequence[bool | None], batch: RowBatch, device: torch.device) -> list[Neighbours | None] | None:
    """The stores of `layers` for one call, in which rows find tokens of one another; None where no row finds any."""
    if batch.may_see is None:
        return None
    may_see = torch.from_numpy(batch.may_see).to(device)
    return [None if scores_count is None else Neighbours(may_see, FOUND, scores_count) for scores_count in layers]


__all__ = ["FOUND", "LookupRows", "lookup_layers", "neighbours"]
