"""The memories of `tree`, one block after the other, as numba compiles it: for a CPU, where one merge costs little."""

import numpy as np
import torch
from torch import Tensor

from ..jit import compiled
from ..sequence import Sequences
from .tree import Sets, events


@compiled()
def ranked(score):
    """The order from the best on, the first among equals; a NaN counts as the best, as where torch sorts."""
    worth = np.empty(len(score), np.float64)
    for i in range(len(score)):
        worth[i] = -np.inf if np.isnan(score[i]) else -np.float64(score[i])
    return np.argsort(worth, kind="mergesort")


@compiled()
def _select(score, coordinate, event, start, last, least, rows, block, capacity, index, carried):
    Q, first = event.shape[1], score.shape[1] - rows
    kept, worth = np.empty(capacity, np.int64), np.empty(capacity, score.dtype)
    both, both_worth = np.empty(capacity + block, np.int64), np.empty(capacity + block, score.dtype)
    for b in range(len(score)):
        for i in range(capacity):
            kept[i], worth[i] = i, score[b, i]
        for q in range(Q + 1):
            if q:
                at, begun = event[b % len(event), q - 1], start[b % len(start), q - 1]
                added = block if at < rows else 0
                for i in range(capacity):
                    both[i] = kept[i]
                    both_worth[i] = -np.inf if coordinate[b, kept[i]] < begun else worth[i]
                for i in range(added):
                    both[capacity + i] = at - block + i + first
                    both_worth[capacity + i] = score[b, at - block + i + first]
                if added or q == 1:
                    order = ranked(both_worth[: capacity + added])
                    for i in range(capacity):
                        kept[i], worth[i] = both[order[i]], both_worth[order[i]]
            for i in range(capacity):
                index[b, q, i] = -1 if worth[i] == -np.inf else kept[i]
        for i in range(capacity):
            here = index[b, Q, i]
            carried[b, i] = here if here >= 0 and coordinate[b, here] >= last[b, 0] - least[b] else -1


def select(score: Tensor, coordinate: Tensor, sequences: Sequences, block: int, capacity: int) -> Sets:
    """See the package's docstring."""
    event, start = events(sequences, block)
    B, Q = len(score), event.shape[1]
    index, carried = (
        torch.empty(*shape, dtype=torch.int64, device="cpu") for shape in ((B, Q + 1, capacity), (B, capacity))
    )
    inputs = (x.contiguous().numpy() for x in (score, coordinate, event, start, sequences.last(), sequences.end))
    _select(*inputs, sequences.position.shape[1], block, capacity, index.numpy(), carried.numpy())
    return Sets(index, event, carried)


__all__ = ["select"]
