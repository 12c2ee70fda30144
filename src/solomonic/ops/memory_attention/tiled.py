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

from ..selection import select
from ..sequence import Sequences
from ..tiles import Layout
from .call import AttentionCall
from .softmax import Columns, Tile, change, room, softmax


def attend(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """See `AttentionCall`. Differentiable once."""
    queries, keys, values = call.queries, call.keys, call.values
    score, coordinate, bias, stored, rotation = call.score, call.coordinate, call.bias, call.stored, call.rotation
    sequences, window, span, block, capacity = call.sequences, call.window, call.span, call.block, call.capacity
    given = [*queries, *keys, *values]
    if not window:
        given[0::3] = [None] * 3
    elif queries[1] is queries[0]:
        given[1] = None  # the fading memory's queries are the window's: one gradient
    if capacity and rotation is not None:
        if queries[2] is queries[0]:
            given[2] = None
        if _ends(keys[0], keys[2]) and _ends(values[0], values[2]):
            given[3] = given[6] = None
    q, v = (queries[0], values[0]) if window else (queries[1], values[1])
    kind = q.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        lower = torch.get_autocast_dtype(kind)
        given = [None if x is None else x.to(lower) for x in given]
    T = q.shape[1]
    cut = Cut.of(T, window, span, block)
    cos = sin = index = unseen = carried = None
    if rotation is not None:
        cos, sin = rotation.table(torch.arange(-window - span, T, device=q.device), q.shape[3])
    if capacity:
        index, unseen, carried = _plan(score, coordinate, sequences, window, block, capacity, cut)
    call = Call(cut, window, span, q.shape, v.shape[2])
    y, mass = _Attend.apply(*given, bias, index, unseen, sequences.position, cos, sin, call, stored is not None)
    return y if stored is None else _with_store(y, mass, stored), carried


def _ends(part: Tensor, whole: Tensor) -> bool:
    """Whether one is known to be the last rows of the other, so that one gradient will do."""
    if torch.compiler.is_compiling() or part._base is not whole:
        return False
    return part.storage_offset() == whole[:, -part.shape[1] :].storage_offset()


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
        rows = blocks * block if block < T else T
        return Cut(-(-T // rows), rows, blocks)


class Tiles(NamedTuple):
    """The tiles of keys with nearest <= lag < farthest: tile n of queries sees tiles n .. n + seen - 1 of them."""

    nearest: int
    farthest: int
    first: int  # the coordinate that tile 0 begins with
    rows: int
    seen: int


class Call(NamedTuple):
    """`shape` (B, T, H, D) of the queries, `heads` of keys."""

    cut: Cut
    window: int
    span: int
    shape: torch.Size
    heads: int

    def tile(self) -> Tile:
        return Tile(self.cut.tiles, self.shape[0], self.heads, self.cut.rows, self.shape[2] // self.heads)

    def near(self) -> list[Tiles | None]:
        """Of the window and of the fading memory; None for one that there is not."""
        cut, found = self.cut, []
        for nearest, farthest in ((0, self.window), (self.window, self.window + self.span)):
            if nearest == farthest:
                found.append(None)
            elif cut.tiles == 1:
                found.append(Tiles(nearest, farthest, -farthest, farthest - nearest + cut.rows, 1))
            else:
                earliest, latest = -(-(farthest - 1) // cut.rows), (cut.rows - 1 - nearest) // cut.rows
                found.append(Tiles(nearest, farthest, -earliest * cut.rows, cut.rows, earliest + latest + 1))
        return found

    def layouts(self) -> tuple[Layout, list[Layout | None]]:
        """Of queries; of the keys of the window and of the fading memory, whose first row has coordinate -farthest."""
        cut, heads = self.cut, self.heads
        return Layout(cut.tiles, cut.rows, 0, heads), [
            None if t is None else Layout(cut.tiles + t.seen - 1, t.rows, -t.farthest - t.first, heads)
            for t in self.near()
        ]

    def parts(self) -> list[tuple[int, slice, Columns]]:
        """The number of the group, its lanes that the lanes of queries see, and which of its keys those are."""
        each, found = self.shape[0] * self.heads, []
        for i, tiles in enumerate(self.near()):
            for j in range(tiles.seen if tiles else 0):
                columns = Columns(tiles.nearest, tiles.farthest, tiles.first + j * tiles.rows, tiles.rows)
                found.append((i, slice(j * each, (self.cut.tiles + j) * each), columns))
        return found


def _plan(score: Tensor, coordinate: Tensor, sequences: Sequences, window: int, block: int, capacity: int, cut: Cut):
    """Candidates of each block (b, n m, s), which of them are hidden (b, n, t, s), what is carried on."""
    T, device = sequences.position.shape[1], score.device
    sets = select(score, coordinate, sequences, block, capacity)
    missing = cut.tiles * cut.blocks - sets.event.shape[1]
    index, event = pad(sets.index, (0, 0, 0, missing), value=-1), pad(sets.event, (0, missing), value=T)
    row = torch.arange(cut.tiles * cut.rows, device=device).view(1, -1, cut.rows // cut.blocks, 1)
    position = pad(sequences.position, (0, row.numel() - T)).reshape(-1, *row.shape[1:])
    turn = None if sequences.aligned else row >= event[..., None, None]  # whether the later set is in force
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
    return held, hidden.reshape(len(hidden), cut.tiles, cut.rows, -1), sets.carried


class _Attend(torch.autograd.Function):
    """Queries of None are the window's; keys and values of None, with a window, are the last rows of the eidetic ones."""

    @staticmethod
    def forward(
        ctx, q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, index, unseen, position, cos, sin, call, massed
    ):
        """y (B, T, H, D), and where `massed` the logarithm of its normaliser (B, T, H) float32, else None."""
        ctx.shapes = [None if x is None else x.shape for x in (q, q_far, q_kept, k, k_far, k_kept, bias)]
        ctx.call = call
        (B, T, H, D), tile, (rows, near) = call.shape, call.tile(), call.layouts()
        if call.window and k is None:
            k, v = (x[:, -call.window - T :] for x in (k_kept, v_kept))
        tiled = [None if x is None else rows.lay(x, _turns(cos, sin, T), D**-0.5) for x in (q, q_far)]
        queries = [tiled[0], tiled[0] if q_far is None else tiled[1]]
        keys = [None if x is None else t.lay(x, _turns(cos, sin, x.shape[1])) for t, x in zip(near, (k, k_far))]
        values = [None if x is None else t.lay(x) for t, x in zip(near, (v, v_far))]
        sets = capacity = 0
        at = k_set = v_set = kept = None
        if index is not None:
            kept = rows.lay(q if q_kept is None else q_kept, None, D**-0.5)
            at, capacity = _flat(index, call.cut, k_kept), index.shape[2]
            k_set, v_set = (x.reshape(-1, D).index_select(0, at).view(-1, capacity, D) for x in (k_kept, v_kept))
            sets = len(k_set)

        parts = call.parts()
        columns, dtype = [c for _, _, c in parts], queries[1].dtype
        precise = torch.promote_types(dtype, torch.float32)
        logits = room(tile, columns, sets, capacity, precise, position.device)
        for (i, seen, _), logit in zip(parts, logits.near):
            _product(queries[i], keys[i][seen].mT, logit)
        if index is not None:
            _product(kept.view(sets, -1, D), k_set.mT, logits.kept)
            if bias is not None:
                extra = bias.gather(1, index.flatten(1)).view(B, tile.count, 1, call.cut.blocks, 1, capacity)
                shape = tile.count, B, tile.heads, call.cut.blocks, -1, capacity
                logits.kept.view(shape).add_(extra.transpose(0, 1))
        weights, mass = softmax(logits, tile, columns, position, unseen, massed)
        y = queries[1].new_empty(queries[1].shape)
        for n, ((i, seen, _), weight) in enumerate(zip(parts, weights.near)):
            _product(weight.to(dtype), values[i][seen], y, add=n > 0)
        if index is not None:
            _product(weights.kept.to(dtype), v_set, y.view(sets, -1, D), add=True)
        ctx.save_for_backward(
            *tiled, kept, *keys, *values, k_set, v_set, index, at, cos, sin, y, weights.kept, *weights.near
        )
        if massed:
            mass = rows.lift(mass, mass.new_empty(B, T, H, 1))[..., 0]
        return rows.lift(y, y.new_empty(B, T, H, D)), mass

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dmass):
        call, (*shapes, bias_shape) = ctx.call, ctx.shapes
        q, q_far, kept, k, k_far, v, v_far, k_set, v_set, index, at, cos, sin, y, weight, *weights = ctx.saved_tensors
        (_, T, _, D), tile, (rows, near) = call.shape, call.tile(), call.layouts()
        queries, keys, values = [q, q if q_far is None else q_far], (k, k_far), (v, v_far)
        dy = rows.lay(dy)
        mean = (dy * y).sum(-1, keepdim=True, dtype=torch.promote_types(dy.dtype, torch.float32))
        if dmass is not None:
            mean = mean - rows.lay(dmass[..., None])

        dq = [None if x is None else x.new_empty(x.shape) for x in (q, q_far)]
        dk, dv = ([None if x is None else x.new_empty(x.shape) for x in given] for given in (keys, values))
        begun = set()
        for (i, seen, _), w in zip(call.parts(), weights):
            part = change(dy @ values[i][seen].mT, mean, w).to(dy.dtype)
            asked = 0 if q_far is None else i
            _product(part, keys[i][seen], dq[asked], add=asked in begun)
            begun.add(asked)
            if seen.start == 0:
                for d in (dk[i], dv[i]):
                    d[seen.stop :].zero_()
            _product(part.mT, queries[i], dk[i][seen], add=seen.start > 0)
            _product(w.to(dy.dtype).mT, dy, dv[i][seen], add=seen.start > 0)

        turns, scale, out = _turns(cos, sin, T), D**-0.5, [None] * 9
        for i in (0, 1):
            if dq[i] is not None:
                out[i] = rows.lift(dq[i], dq[i].new_empty(shapes[i]), turns, scale)
        dbias = None
        if index is not None:
            up = dy.view(len(v_set), -1, D)
            part = change(up @ v_set.mT, mean.view(*up.shape[:2], 1), weight)
            if bias_shape is not None:
                by_set = part.view(tile.count, -1, tile.heads, call.cut.blocks, *part.shape[1:]).sum((2, 4))
                by_set = by_set.transpose(0, 1).reshape(len(index), -1)
                dbias = by_set.new_zeros(bias_shape).scatter_add_(1, index.flatten(1), by_set)
            part = part.to(dy.dtype)
            if shapes[2] is not None:
                out[2] = dy.new_empty(shapes[2])
            to = out[0] if shapes[2] is None else out[2]
            rows.lift((part @ k_set).view_as(kept), to, None, scale, add=to is out[0])
            out[5], out[8] = (dy.new_zeros(shapes[5]) for _ in range(2))
        for i, layout in enumerate(near):
            for o, d in ((3 + i, dk[i]), (6 + i, dv[i])):
                if layout is None:
                    continue
                if shapes[3 + i] is None:
                    to = out[o + 2][:, -call.window - T :]
                else:
                    to = out[o] = d.new_empty(shapes[3 + i])
                layout.lift(d, to, _turns(cos, sin, to.shape[1]) if o < 6 else None)
        if index is not None:
            for o, d in (5, part.mT @ kept.view_as(up)), (8, weight.to(dy.dtype).mT @ up):
                out[o].view(-1, D).index_add_(0, at, d.flatten(0, 1))
        return *out, dbias, *[None] * 7


def _turns(cos: Tensor | None, sin: Tensor | None, length: int) -> tuple[Tensor, Tensor] | None:
    """Of the last rows."""
    return None if cos is None else (cos[-length:], sin[-length:])


def _product(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> None:
    """Writes a @ b to `out`, or adds it."""
    if add:
        out.baddbmm_(a, b)
    elif out.dtype == a.dtype and not torch.compiler.is_compiling():
        torch.bmm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _flat(index: Tensor, cut: Cut, like: Tensor) -> Tensor:
    """Where the candidates (b, n m, s), n b g m s, lie among the flat rows of keys like (B, C, G, D)."""
    B, C, G, _ = like.shape
    at = index.reshape(B, cut.tiles, 1, cut.blocks, -1) + C * torch.arange(B, device=index.device).view(B, 1, 1, 1, 1)
    return (at * G + torch.arange(G, device=index.device).view(G, 1, 1)).transpose(0, 1).flatten()
