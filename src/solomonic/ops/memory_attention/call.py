"""What a backend of memory attention is called with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..rotary import Rotation
from ..sequence import Sequences

Group = tuple[Tensor, Tensor | None, Tensor | None]
"""Of the window, of the fading memory and of the eidetic memory; the first is there without a window too."""


class Stored(NamedTuple):
    """Keys and values that came from outside the layer, constants to it: E of them for each query.

    With `sharpness` s, their weight in the softmax is divided among them by the softmax of s times their logits.
    """

    query: Tensor  # (B, T, H, D), before rotation
    key: Tensor  # (B, T, E, G, D)
    value: Tensor  # (B, T, E, G, D)
    bias: Tensor  # (B, T, E) float32, added to the logits
    visible: Tensor  # (B, T, E) bool
    watch: Callable[[Tensor], None] | None = None  # is given the weights, (B, T, H, E), that the queries gave them
    sharpness: float = 1.0


@dataclass(frozen=True)
class AttentionCall:
    """A `Group` has None for a memory that the layer does not read.

    The last T rows of keys and values of window and fading memory are this call's; those of the eidetic memory are all S
    candidates, slots first, and coordinate says in which row of the call each stands, below 0 before it. A backend
    returns (B, T, H, D) and the candidates that are carried on (B, capacity), -1 for none.
    """

    queries: Group  # (B, T, H, D)
    keys: Group  # (B, rows, G, D)
    values: Group  # (B, rows, G, D)
    score: Tensor | None  # (B, S): the order in which candidates are kept
    coordinate: Tensor | None  # (B, S) int64
    bias: Tensor | None  # (B, S) float32, added to the logits
    lost: Tensor | None  # (B, S): row i sees candidate j with a logit less by lost_j - lost_i; its last T are the rows'
    sequences: Sequences
    window: int
    span: int
    block: int
    capacity: int
    stored: Stored | None = None
    rotation: Rotation | None = None  # of queries and keys of window and fading memory; None where they are rotated


__all__ = ["AttentionCall", "Group", "Stored"]
