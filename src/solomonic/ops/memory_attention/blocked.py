"""Memory attention tile by tile: a tile of queries against [window | fading | eidetic] keys, one softmax over all.

Keys are cut into tiles as the queries are, tiles before batch, so that "all tiles, one earlier" is a slice: a tile of
queries sees a few whole tiles of keys, one batched product each, and nothing overlaps, forward or backward. A tile is a
few blocks, each with eidetic keys of its own, which are one gather. All shapes are static; cost is linear in T. The
gradient is written out: products add up in place where automatic differentiation would make a tensor for each.

Letters: n tile of queries, b batch, g key head, m block of the tile, t query row, r query head of g, s key, d dim.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ..place import Place
from ..selection import select


def attend(queries, keys, values, score, coordinate, bias, place: Place, window, span, block, capacity, stored=None):
    """See `memory_attention.BACKENDS`. Differentiable once."""
    given = [*queries, *keys, *values]
    if not window:
        given[0::3] = [None] * 3
    kind = place.position.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        lower = torch.get_autocast_dtype(kind)
        given = [None if x is None else x.to(lower) for x in given]
    if window and queries[1] is queries[0]:
        given[1] = None  # the fading memory's queries are the window's: one gradient
    T = place.position.shape[1]
    cut = Cut.of(T, window, span, block)
    index = carried = None
    hidden = [tiles.hidden(cut, place.position) for tiles in _near(cut, window, span) if tiles]
    if capacity:
        index, unseen, carried = _plan(score, coordinate, place, window, block, capacity, cut)
        hidden.append(unseen)
    shape = torch.broadcast_shapes(*(x.shape[:3] for x in hidden))
    hidden = torch.cat([x.expand(*shape, -1) for x in hidden], -1) if len(hidden) > 1 else hidden[0]
    y, mass = _Attend.apply(*given, bias, index, hidden, window, span, cut, stored is not None)
    return y if stored is None else _with_store(y, mass, stored), carried


def _with_store(y: Tensor, mass: Tensor, stored) -> Tensor:
    """One softmax over what gave y (B, T, H, D), its normaliser's logarithm `mass` (B, T, H), and what is stored."""
    G, D = stored.key.shape[3:]
    q = stored.query.unflatten(2, (G, -1)) * D**-0.5  # (B, T, G, R, D)
    key, value = (x.to(y.dtype).transpose(2, 3) for x in (stored.key, stored.value))  # (B, T, G, E, D)
    bias = stored.bias.masked_fill(~stored.visible, -torch.inf)[:, :, None, None]
    logit = (q.to(y.dtype) @ key.mT).float() + bias  # (B, T, G, R, E)
    weight = torch.cat([mass.unflatten(2, (G, -1))[..., None], logit], -1).softmax(-1)
    if stored.watch:
        stored.watch(weight[..., 1:].flatten(2, 3))
    weight = weight.to(y.dtype)
    return weight[..., :1].flatten(2, 3) * y + (weight[..., 1:] @ value).flatten(2, 3)


class Cut(NamedTuple):
    """T rows in `tiles` tiles of `rows` rows, each of `blocks` blocks; zeros fill the last."""

    tiles: int
    rows: int
    blocks: int

    @staticmethod
    def of(T: int, window: int, span: int, block: int) -> "Cut":
        """Tiles about as long as the window: then they see little that is hidden, and a single tile before them."""
        blocks = min(-(-(window or span) // block), -(-T // block))
        rows = blocks * block if T > block else T
        return Cut(-(-T // rows), rows, blocks)


class Tiles(NamedTuple):
    """The tiles of keys with nearest <= lag < farthest: tile n of queries sees tiles n .. n + seen - 1 of them."""

    nearest: int
    farthest: int
    first: int  # the coordinate that tile 0 begins with
    rows: int
    seen: int

    def hidden(self, cut: Cut, position: Tensor) -> Tensor:
        """(n, b, t, s): which of the keys of all tiles that a query's tile sees are not the query's."""
        row = torch.arange(cut.rows, device=position.device)[:, None]
        lag = row - torch.arange(self.first, self.first + self.seen * self.rows, device=position.device)
        missing = cut.tiles * cut.rows - position.shape[1]
        position = pad(position, (0, missing)).reshape(-1, cut.tiles, cut.rows, 1).transpose(0, 1)
        return (lag < self.nearest) | (lag >= self.farthest) | (lag > position)

    def fill(self, cut: Cut, length: int) -> tuple[int, int]:
        """Rows to add before and behind `length` rows, whose first has coordinate -farthest."""
        before = -self.farthest - self.first
        return before, (cut.tiles + self.seen - 1) * self.rows - before - length

    def cut(self, x: Tensor, cut: Cut) -> Tensor:
        """(B, L, G, D) -> n b g s d."""
        before, behind = self.fill(cut, x.shape[1])
        x = x[:, max(-before, 0) : x.shape[1] - max(-behind, 0)]
        if before > 0 or behind > 0:
            x = pad(x, (0, 0, 0, 0, max(before, 0), max(behind, 0)))
        return x.unflatten(1, (-1, self.rows)).permute(1, 0, 3, 2, 4).contiguous()

    def join(self, x: Tensor, cut: Cut, length: int) -> Tensor:
        """The inverse of `cut`, with zeros for rows that no tile has."""
        before, behind = self.fill(cut, length)
        x = x.permute(1, 0, 3, 2, 4)  # b n s g d
        whole = x.new_zeros(len(x), length + max(before, 0) + max(behind, 0), *x.shape[3:])
        start = max(-before, 0)
        inner = whole[:, start : start + x.shape[1] * self.rows].unflatten(1, x.shape[1:3])
        inner.copy_(x)
        return whole[:, max(before, 0) : max(before, 0) + length]


def _near(cut: Cut, window: int, span: int) -> list[Tiles | None]:
    """Of the window and of the fading memory; None for one that there is not."""
    found: list[Tiles | None] = []
    for nearest, farthest in ((0, window), (window, window + span)):
        if nearest == farthest:
            found.append(None)
        elif cut.tiles == 1:
            found.append(Tiles(nearest, farthest, -farthest, farthest - nearest + cut.rows, 1))
        else:
            earliest, latest = -(-(farthest - 1) // cut.rows), (cut.rows - 1 - nearest) // cut.rows
            found.append(Tiles(nearest, farthest, -earliest * cut.rows, cut.rows, earliest + latest + 1))
    return found


def _plan(score: Tensor, coordinate: Tensor, place: Place, window: int, block: int, capacity: int, cut: Cut):
    """Candidates of each block (b, n m, s), which of them are hidden (n, b, t, s), what is carried on."""
    T, device = place.position.shape[1], score.device
    sets = select(score, coordinate, place, block, capacity)
    missing = cut.tiles * cut.blocks - sets.event.shape[1]
    index, event = pad(sets.index, (0, 0, 0, missing), value=-1), pad(sets.event, (0, missing), value=T)
    row = torch.arange(cut.tiles * cut.rows, device=device).view(1, -1, cut.rows // cut.blocks, 1)
    position = pad(place.position, (0, row.numel() - T)).reshape(-1, *row.shape[1:])
    turn = None if place.aligned else row >= event[..., None, None]  # whether the later set is in force
    if turn is None:
        index = index[:, 1:]
    elif T == 1:
        index, turn = torch.where(turn[..., 0], index[:, 1:], index[:, :-1]), None
    else:
        index = torch.cat([index[:, :-1], index[:, 1:]], -1)
        turn = turn != (torch.arange(2 * capacity, device=device) >= capacity)
    held = index.clamp_min(0)
    at = coordinate.gather(1, held.flatten(1)).view_as(index).masked_fill(index < 0, 1 << 30)[:, :, None]
    hidden = (at > row - window) | (at < row - position)
    if turn is not None:
        hidden = hidden | turn
    return held, hidden.reshape(len(hidden), cut.tiles, cut.rows, -1).transpose(0, 1), sets.carried


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, index, hidden, window, span, cut, massed
    ):
        """y (B, T, H, D), and where `massed` the logarithm of its normaliser (B, T, H) float32, else None."""
        near = _near(cut, window, span)
        (B, T, H, D), G = (q_far if q is None else q).shape, (v_far if v is None else v).shape[2]
        N, R, scale = cut.tiles, H // G, D**-0.5
        dtype = (v_far if v is None else v).dtype

        q, q_far, q_kept = (None if x is None else _tile(x, cut, G, scale) for x in (q, q_far, q_kept))
        queries = [q, q if q_far is None else q_far]
        keys = [None if x is None else t.cut(x, cut) for t, x in zip(near, (k, k_far))]
        values = [None if x is None else t.cut(x, cut) for t, x in zip(near, (v, v_far))]
        logits = [
            _product(queries[i], keys[i][seen].flatten(0, 2).mT).to(_precise(dtype)) for i, seen, _ in _parts(near, N)
        ]
        at = k_set = v_set = None
        if index is not None:
            at = _flat(index, cut, k_kept)
            k_set, v_set = (x.reshape(-1, D)[at].unflatten(0, (-1, index.shape[2])) for x in (k_kept, v_kept))
            kept = _product(q_kept.reshape(len(k_set), -1, D), k_set.mT).to(_precise(dtype))
            if bias is not None:
                extra = bias.gather(1, index.flatten(1)).view(B, N, 1, cut.blocks, 1, -1).transpose(0, 1)
                kept.view(N, B, G, cut.blocks, -1, index.shape[2]).add_(extra)
            logits.append(kept.reshape(N * B * G, cut.rows * R, -1))
        weight = torch.cat(logits, -1)
        weight.view(N, B, G, cut.rows, R, -1).masked_fill_(hidden[:, :, None, :, None], -torch.inf)
        mass = _untile(weight.logsumexp(-1, keepdim=True), cut, B, T, H)[..., 0] if massed else None
        weight = torch.softmax(weight, -1, out=weight)

        low = weight.to(dtype)
        y = None
        for i, seen, columns in _parts(near, N):
            y = _product(low[..., columns], values[i][seen].flatten(0, 2), y)
        if index is not None:
            _product(_kept(low, cut, index), v_set, y.view(len(k_set), -1, D))
        ctx.save_for_backward(q, q_far, q_kept, *keys, *values, k_set, v_set, index, at, weight, y)
        ctx.settings = window, span, cut, B, T, [None if x is None else x.shape for x in (k, k_far, k_kept, bias)]
        return _untile(y, cut, B, T, H), mass

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dmass):
        window, span, cut, B, T, shapes = ctx.settings
        q, q_far, q_kept, *rest, k_set, v_set, index, at, weight, y = ctx.saved_tensors
        queries, keys, values = [q, q if q_far is None else q_far], rest[:2], rest[2:]
        near, N, H, D = _near(cut, window, span), cut.tiles, dy.shape[2], dy.shape[3]
        G = queries[1].shape[0] // (N * B)
        scale, dy = D**-0.5, _tile(dy, cut, G)

        mean = (dy * y).sum(-1, keepdim=True, dtype=weight.dtype)
        if dmass is not None:
            mean = mean - _tile(dmass[..., None], cut, G)

        def change(dy: Tensor, v: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
            """Of the logits."""
            return (dy @ v.mT).to(weight.dtype).sub_(mean).mul_(weight)

        dbias, dq = None, [None, None, None]
        dk, dv = ([None if x is None else torch.zeros_like(x) for x in given] for given in (keys, values))
        low = weight.to(dy.dtype)
        for i, seen, columns in _parts(near, N):
            part = change(dy, values[i][seen].flatten(0, 2), weight[..., columns], mean).to(dy.dtype)
            j = 0 if q_far is None and q is not None else i
            dq[j] = _product(part, keys[i][seen].flatten(0, 2), dq[j])
            _product(part.mT, queries[i], dk[i][seen].flatten(0, 2))
            _product(low[..., columns].mT, dy, dv[i][seen].flatten(0, 2))
        for d in (dk, dv):
            d[:] = [None if x is None else t.join(x, cut, shape[1]) for t, x, shape in zip(near, d, shapes)]
        if index is not None:
            dy = dy.reshape(len(k_set), -1, D)
            part = change(dy, v_set, _kept(weight, cut, index), mean.reshape(len(k_set), -1, 1))
            if shapes[3] is not None:
                by_set = part.view(N, B, G, cut.blocks, -1, index.shape[2]).sum((2, 4)).transpose(0, 1).reshape(B, -1)
                dbias = by_set.new_zeros(shapes[3]).scatter_add_(1, index.flatten(1), by_set)
            part = part.to(dy.dtype)
            dq[2] = _product(part, k_set).view_as(q_kept)
            k_part = _product(part.mT, q_kept.reshape(len(k_set), -1, D))
            v_part = _kept(low, cut, index).mT @ dy
            for d, x in ((dk, k_part), (dv, v_part)):
                d.append(x.new_zeros(shapes[2]).view(-1, D).index_add_(0, at, x.flatten(0, 1)).view(shapes[2]))
        else:
            dk, dv = [*dk, None], [*dv, None]
        dq = [None if x is None else _untile(x.mul_(scale), cut, B, T, H) for x in dq]
        return *dq, *dk, *dv, dbias, *[None] * 6


def _parts(near: list[Tiles | None], N: int):
    """(number of the group, its tiles that the N tiles of queries see, their columns among the logits)."""
    column = 0
    for i, tiles in enumerate(near):
        for j in range(tiles.seen if tiles else 0):
            yield i, slice(j, j + N), slice(column, column + tiles.rows)
            column += tiles.rows


def _kept(x: Tensor, cut: Cut, index: Tensor) -> Tensor:
    """Of (n b g) (t r) s the columns of the eidetic keys, a view (n b g m) (t r) s."""
    return x.unflatten(1, (cut.blocks, -1)).flatten(0, 1)[..., -index.shape[2] :]


def _product(a: Tensor, b: Tensor, total: Tensor | None = None) -> Tensor:
    """a @ b, added to `total` where there is one."""
    return a @ b if total is None else total.baddbmm_(a, b)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _tile(x: Tensor, cut: Cut, G: int, scale: float | None = None) -> Tensor:
    """(B, T, H, D) -> (n b g) (t r) d, times `scale`."""
    B, T, _, D = x.shape
    x = pad(x, (0, 0, 0, 0, 0, cut.tiles * cut.rows - T)).reshape(B, cut.tiles, cut.rows, G, -1, D)
    x = x.permute(1, 0, 3, 2, 4, 5)
    x = x.contiguous() if scale is None else x.clone(memory_format=torch.contiguous_format).mul_(scale)
    return x.view(cut.tiles * B * G, -1, D)


def _untile(x: Tensor, cut: Cut, B: int, T: int, H: int) -> Tensor:
    """The inverse of `_tile`."""
    x = x.view(cut.tiles, B, -1, cut.rows, H * cut.tiles * B // len(x), x.shape[2])
    return x.permute(1, 0, 3, 2, 4, 5).reshape(B, cut.tiles * cut.rows, H, -1)[:, :T]


def _flat(index: Tensor, cut: Cut, like: Tensor) -> Tensor:
    """Where the candidates (b, n m, s), n b g m s, lie among the flat rows of keys like (B, C, G, D)."""
    B, C, G, _ = like.shape
    at = index.reshape(B, cut.tiles, 1, cut.blocks, -1) + C * torch.arange(B, device=index.device).view(B, 1, 1, 1, 1)
    return (at * G + torch.arange(G, device=index.device).view(G, 1, 1)).transpose(0, 1).flatten()
