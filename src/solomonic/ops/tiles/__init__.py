"""How rows lie in tiles: copied once, turned and scaled on the way there, turned back on the way back."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import dispatch
from ..rotary import turn

Table = tuple[Tensor, Tensor]
"""Cosines and sines (L, D/2) of the angle of each row."""


class Layout(NamedTuple):
    """`count` tiles of `rows` rows: row l of L is row l + before of all tiles, one after the other.

    Heads (H = G R) lie in G groups: (B, L, H, D) <-> (count B G, rows R, D), where tiles come before the batch. Zeros
    fill what no row is in, on both sides.
    """

    count: int
    rows: int
    before: int
    groups: int

    def lay(self, x: Tensor, table: Table | None = None, scale: float = 1.0) -> Tensor:
        """Into tiles: turned by `table`, where there is one, times `scale`."""
        if dispatch.compiled_pays(x):
            from . import compiled

            return compiled.lay(self, x, table, scale)
        B, L, _, D = x.shape
        if table is not None:
            x = turn(x, *(y[None] for y in table))
        behind = self.count * self.rows - self.before - L
        x = x[:, max(-self.before, 0) : L - max(-behind, 0)]
        if self.before > 0 or behind > 0:
            x = pad(x, (0, 0, 0, 0, max(self.before, 0), max(behind, 0)))
        x = x.unflatten(2, (self.groups, -1)).unflatten(1, (self.count, self.rows)).permute(1, 0, 3, 2, 4, 5)
        x = x.contiguous() if scale == 1 else x.clone(memory_format=torch.contiguous_format).mul_(scale)
        return x.view(self.count * B * self.groups, -1, D)

    def lift(self, tiles: Tensor, out: Tensor, table: Table | None = None, scale: float = 1.0, add: bool = False):
        """Out of tiles, into `out` (B, L, H, D), which it returns, or added to it: turned back, times `scale`.

        The transpose of `lay`.
        """
        if dispatch.compiled_pays(tiles) and out.dtype == tiles.dtype:
            from . import compiled

            return compiled.lift(self, tiles, out, table, scale, add)
        B, L, H, D = out.shape
        behind = self.count * self.rows - self.before - L
        x = tiles.view(self.count, B, self.groups, self.rows, -1, D).permute(1, 0, 3, 2, 4, 5)
        x = x.reshape(B, self.count * self.rows, H, D)
        x = x[:, max(self.before, 0) : self.count * self.rows - max(behind, 0)]
        if self.before < 0 or behind < 0:
            x = pad(x, (0, 0, 0, 0, max(-self.before, 0), max(-behind, 0)))
        if table is not None:
            cos, sin = table
            x = turn(x, cos[None], -sin[None])
        if scale != 1:
            x = x * scale
        return out.add_(x) if add else out.copy_(x)
