"""Where the rows of one call stand in their documents, and the rings of past rows that states are made of.

A call sees T rows of each batch element; row t of this call has *coordinate* t, the row before the call has
coordinate -1. A state keeps the last R rows, so that `extend` gives R + T rows with coordinates -R .. T-1.
Whether query t may see key s depends on two numbers only: the lag t - s, and `position[t]`, the number of tokens of
the same document before t. `lag <= position` holds exactly for keys of the same document.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.types import Device

LEAST_LOG_DECAY = -20.0
"""Log decays of a scan are clamped to this: e^-20 is below float32's last digit, and sums over a chunk stay exact."""


class Store(Protocol):
    """A long-term store as one layer uses it: B rows, T tokens of the call, H query and G key/value heads of dim D."""

    def keep(self, k: Tensor, v: Tensor, score: Tensor) -> None:
        """Receives every row of the call: k, v (B, T, G, D) before rotation, admission score (B, T)."""

    def recall(self, q: Tensor, sequences: "Sequences") -> Any:
        """The keys and values found for the queries (B, T, H, D) before rotation (`memory_attention.Stored`), or None."""


@dataclass(frozen=True)
class Sequences:
    """B batch elements, T rows a call. Made once per forward pass by the model."""

    position: Tensor  # (B or 1, T) int64: tokens of the same document before row t
    end: Tensor  # (B,) int64: tokens of the current document after the call
    length: Tensor | None = None  # (B,) int64: real rows, the rest is padding on the right; None = T everywhere
    aligned: bool = True  # position == arange(T): nothing before the call, nothing packed
    packed: bool = False  # documents may begin inside the call
    longest: int | None = None  # rows of the longest current document after the call, where known
    store: "Store | None" = None  # of the layer, where one is attached
    dropped: Tensor | None = None  # (B,) bool: rows that layers with attention read by it alone, ungated

    def real(self) -> Tensor | None:
        """(B, T) bool, False at padding; None when there is none."""
        if self.length is None:
            return None
        return torch.arange(self.position.shape[1], device=self.position.device) < self.length[:, None]

    def document(self) -> Tensor | None:
        """(B or 1, T) int64: documents begun in this call so far, 0 = the one the state is of; None if not packed."""
        return (self.position == 0).cumsum(1) if self.packed else None

    def last(self) -> Tensor:
        """(B, 1) int64: coordinate just after the last real row."""
        if self.length is None:
            return torch.full((len(self.end), 1), self.position.shape[1], device=self.end.device)
        return self.length[:, None]


def fresh(batch: int, length: int, device: Device = None) -> Sequences:
    """`length` rows that begin a document in every one of `batch` elements."""
    position = torch.arange(length, device=device)[None]
    return Sequences(position, torch.full((batch,), length, device=device))


def extend(ring: Tensor | None, x: Tensor, size: int) -> Tensor:
    """(B, size, ...) past rows and (B, T, ...) new ones -> (B, size + T, ...); no ring means zeros."""
    if ring is None:
        ring = x.new_zeros(x.shape[0], size, *x.shape[2:])
    return torch.cat([ring.to(x.dtype), x], 1) if size else x


def advance(extended: Tensor, sequences: Sequences, size: int) -> Tensor:
    """(B, R + T, ...) -> (B, size, ...): the last `size` rows up to the last real one.

    Rows of documents that have ended are zero, so that a state does not depend on what was packed or padded before. The
    ring owns its memory: a view would keep all R + T rows alive.
    """
    past = extended.shape[1] - sequences.position.shape[1]
    if size == 0:
        return extended.new_zeros(extended.shape[0], 0, *extended.shape[2:])
    if sequences.length is None:
        ring = extended if size == extended.shape[1] else extended[:, -size:].clone()
    else:
        row = sequences.length[:, None] + past - size + torch.arange(size, device=extended.device)
        row = row.clamp_min(0).view(*row.shape, *[1] * (extended.dim() - 2))
        ring = extended.gather(1, row.expand(-1, -1, *extended.shape[2:]))
    if sequences.packed or sequences.length is not None:
        keep = torch.arange(size, 0, -1, device=extended.device) <= sequences.end[:, None]
        ring = torch.where(keep.view(*keep.shape, *[1] * (extended.dim() - 2)), ring, 0)
    return ring


def join(rings: list[Tensor], lengths: Tensor) -> Tensor:
    """Rings (B, size, ...) of documents of lengths (N, B) -> the ring of all of them, one after the other."""
    size = rings[0].shape[1]
    lag = torch.arange(size, 0, -1, device=lengths.device)
    real = (lag <= lengths[..., None]).transpose(0, 1).flatten(1)  # (B, N size)
    row = real.long().argsort(dim=1, stable=True)[:, -size:]
    row = row.view(*row.shape, *[1] * (rings[0].dim() - 2))
    return torch.cat(rings, 1).gather(1, row.expand(-1, -1, *rings[0].shape[2:]))
