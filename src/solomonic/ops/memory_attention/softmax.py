"""One softmax over keys in several parts: the products write each part of one buffer, and no part is copied."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.types import Device

from .. import dispatch


class Columns(NamedTuple):
    """Keys of one tile: the first has coordinate `first`, counted from the first row of the queries' tile.

    A query sees those with nearest <= lag < farthest and, as everywhere, lag <= position.
    """

    nearest: int
    farthest: int
    first: int
    width: int


class Tile(NamedTuple):
    """The shape of queries, `tiles` tiles of `rows` rows: lanes are (tiles batch heads), their queries (rows share)."""

    tiles: int
    batch: int
    heads: int
    rows: int
    share: int

    @property
    def lanes(self) -> int:
        return self.tiles * self.batch * self.heads

    @property
    def queries(self) -> int:
        return self.rows * self.share


class Logits(NamedTuple):
    """Of each part (lanes, queries, its width), and of the eidetic keys (sets, queries of a set, capacity)."""

    all: Tensor  # the numbers of them all, one part after the other
    near: list[Tensor]
    kept: Tensor | None


def room(tile: Tile, columns: list[Columns], sets: int, capacity: int, dtype: torch.dtype, device: Device) -> Logits:
    """Uninitialised; `sets` sets of `capacity` eidetic keys, as many for each lane."""
    rows = tile.lanes * tile.queries
    sizes = [rows * c.width for c in columns] + [rows * capacity]
    every = torch.empty(sum(sizes), dtype=dtype, device=device)
    *near, kept = every.split(sizes)
    near = [x.view(tile.lanes, tile.queries, c.width) for x, c in zip(near, columns)]
    return Logits(every, near, kept.view(sets, -1, capacity) if capacity else None)


def softmax(
    logits: Logits, tile: Tile, columns: list[Columns], position: Tensor, unseen: Tensor | None, massed: bool
) -> tuple[Logits, Tensor | None]:
    """The weights, which may overwrite the logits, and where `massed` their log-sum-exp (lanes, queries, 1).

    position (B or 1, T); unseen (B or 1, tiles, rows, capacity) bool: which eidetic keys a row does not see.
    """
    if dispatch.compiled_pays(logits.all):
        from . import compiled

        return logits, compiled.softmax(logits, tile, columns, position, unseen, massed)
    masks = [_hidden(c, tile, position) for c in columns]
    parts = logits.near
    if logits.kept is not None:
        assert unseen is not None
        masks.append(unseen.transpose(0, 1))
        parts = [*parts, logits.kept.reshape(tile.lanes, tile.queries, -1)]
    if len(parts) == 1:
        every, hidden = parts[0], masks[0]
    else:
        shape = torch.broadcast_shapes(*(x.shape[:3] for x in masks))
        every, hidden = torch.cat(parts, -1), torch.cat([x.expand(*shape, -1) for x in masks], -1)
    every.view(*tile, -1).masked_fill_(hidden[:, :, None, :, None], -torch.inf)
    mass = every.logsumexp(-1, keepdim=True) if massed else None
    every = torch.softmax(every, -1, out=every)
    near = list(every.split([x.shape[-1] for x in parts], -1))
    kept = logits.kept
    if kept is not None:
        kept = near.pop().unflatten(1, (-1, kept.shape[1])).flatten(0, 1)
    return Logits(every, near, kept), mass


def change(dweight: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
    """The gradient of logits: (dweight - mean) weight, of (..., queries, keys); mean (..., queries, 1) is their inner product."""
    if dispatch.compiled_pays(weight) and weight.is_contiguous() and dweight.dtype == weight.dtype:
        from . import compiled

        return compiled.change(dweight, mean, weight)
    return dweight.to(weight.dtype).sub_(mean).mul_(weight)


def _hidden(columns: Columns, tile: Tile, position: Tensor) -> Tensor:
    """(tiles, B or 1, rows, width)."""
    row = torch.arange(tile.rows, device=position.device)[:, None]
    lag = row - torch.arange(columns.first, columns.first + columns.width, device=position.device)
    if (missing := tile.tiles * tile.rows - position.shape[1]) > 0:
        position = pad(position, (0, missing))
    position = position.reshape(-1, tile.tiles, tile.rows, 1).transpose(0, 1)
    return (lag < columns.nearest) | (lag >= columns.farthest) | (lag > position)
