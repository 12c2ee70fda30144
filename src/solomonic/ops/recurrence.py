"""A recurrence by its definition, one row after the other: what the plain references of scans are made of."""

from collections.abc import Callable

import torch
from torch import Tensor

from .sequence import Sequences

States = tuple[Tensor, ...]
Step = tuple[States, States]


def initial(state: Tensor | None, v: Tensor, k: Tensor) -> Tensor:
    """The state (B, H, V, K) that a call begins with: zeros for None. v (B, T, H, V), k (B, T, H, K)."""
    return v.new_zeros(v.shape[0], *v.shape[2:], k.shape[3]) if state is None else state


def recurrence(step: Callable[..., Step], states: States, sequences: Sequences, length: int) -> Step:
    """`step(t, *states)` gives the outputs (B, ...) of row t and the states (B, H, ..., ...) after it.

    A document's first row begins at zero, and padding changes no state. Returns the outputs of all rows (B, T, ...) and
    the states after the last real one.
    """
    real, rows = sequences.real(), []
    for t in range(length):
        before = states
        if sequences.packed:
            begins = (sequences.position[:, t] == 0)[:, None, None, None]
            states = tuple(torch.where(begins, 0, x) for x in states)
        outputs, states = step(t, *states)
        if real is not None:
            now = real[:, t, None, None, None]
            states = tuple(torch.where(now, x, y) for x, y in zip(states, before, strict=True))
        rows.append(outputs)
    return tuple(torch.stack(x, 1) for x in zip(*rows, strict=True)), states


__all__ = ["Step", "initial", "recurrence"]
