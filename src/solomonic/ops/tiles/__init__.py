"""Rows copied into tiles, where they are rotated and scaled, and back out of them."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import dispatch
from ..rotary import rotate

Table = tuple[Tensor, Tensor]
"""Cosines and sines (L, D/2) of the angle of each row."""


class Tiling(NamedTuple):
    """`tiles` tiles of `rows` rows: row l of L is row l + before of all tiles, one after the other.

    Heads (H = G R) lie in G groups: (B, L, H, D) <-> (tiles B G, rows R, D), where tiles come before the batch. Zeros
    fill what no row is in, on both sides.
    """

    tiles: int
    rows: int
    before: int
    groups: int

    def to_tiles(self, x: Tensor, table: Table | None = None, scale: float = 1.0) -> Tensor:
        """x (B, L, H, D) -> tiles, rotated by `table` if it is given, times `scale`."""
        if dispatch.compiled_pays(x):
            from . import compiled

            return compiled.to_tiles(self, x, table, scale)
        B, L, _, D = x.shape
        if table is not None:
            x = rotate(x, *(y[None] for y in table))
        behind = self.tiles * self.rows - self.before - L
        x = x[:, max(-self.before, 0) : L - max(-behind, 0)]
        if self.before > 0 or behind > 0:
            x = pad(x, (0, 0, 0, 0, max(self.before, 0), max(behind, 0)))
        x = x.unflatten(2, (self.groups, -1)).unflatten(1, (self.tiles, self.rows)).permute(1, 0, 3, 2, 4, 5)
        x = x.contiguous() if scale == 1 else x.clone(memory_format=torch.contiguous_format).mul_(scale)
        return x.view(self.tiles * B * self.groups, -1, D)

    def from_tiles(
        self, tiles: Tensor, out: Tensor, table: Table | None = None, scale: float = 1.0, add: bool = False
    ) -> Tensor:
        """The transpose of `to_tiles`: writes to `out` (B, L, H, D), or adds to it, and returns it."""
        if dispatch.compiled_pays(tiles) and out.dtype == tiles.dtype:
            from . import compiled

            return compiled.from_tiles(self, tiles, out, table, scale, add)
        B, L, H, D = out.shape
        behind = self.tiles * self.rows - self.before - L
        x = tiles.view(self.tiles, B, self.groups, self.rows, -1, D).permute(1, 0, 3, 2, 4, 5)
        x = x.reshape(B, self.tiles * self.rows, H, D)
        x = x[:, max(self.before, 0) : self.tiles * self.rows - max(behind, 0)]
        if self.before < 0 or behind < 0:
            x = pad(x, (0, 0, 0, 0, max(-self.before, 0), max(-behind, 0)))
        if table is not None:
            cos, sin = table
            x = rotate(x, cos[None], -sin[None])
        if scale != 1:
            x = x * scale
        return out.add_(x) if add else out.copy_(x)
