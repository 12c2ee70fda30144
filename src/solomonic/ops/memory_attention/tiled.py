"""Memory attention tile by tile: a tile of queries against [window | fading | eidetic] keys, one softmax over all.

Keys are cut into tiles as the queries are, tiles before batch, so that "all tiles, one earlier" is a slice: a tile of
queries sees a few whole tiles of keys, one batched product each, and nothing overlaps, forward or backward. A tile is a
few blocks, each with eidetic keys of its own, which are one gather. All shapes are static; cost is linear in T. The
gradient is written out: products add up in place where automatic differentiation would make a tensor for each.

Letters: n tile of queries, b batch, g key head, m block of the tile, t query row, r query head of g, s key, d dim.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ..selection import select
from ..sequence import Sequences
from ..tiles import Table, Tiling
from .call import AttentionCall, Stored
from .softmax import Columns, Tile, change, room, softmax


def attend(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """See `AttentionCall`. Differentiable once."""
    queries, keys, values = call.queries, call.keys, call.values
    score, coordinate, bias, stored, rotation = call.score, call.coordinate, call.bias, call.stored, call.rotation
    sequences, window, span, block, capacity = call.sequences, call.window, call.span, call.block, call.capacity
    tensors: list[Tensor | None] = [*queries, *keys, *values]
    if not window:
        tensors[0::3] = [None] * 3
    elif queries[1] is queries[0]:
        tensors[1] = None  # the fading memory's queries are the window's: one gradient
    if capacity and rotation is not None:
        if queries[2] is queries[0]:
            tensors[2] = None
        if _ends(keys[0], keys[2]) and _ends(values[0], values[2]):
            tensors[3] = tensors[6] = None
    q, v = (queries[0], values[0]) if window else (queries[1], values[1])
    assert q is not None and v is not None
    kind = q.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        lower = torch.get_autocast_dtype(kind)
        tensors = [None if x is None else x.to(lower) for x in tensors]
    T = q.shape[1]
    cut = Cut.of(T, window, span, block)
    cos = sin = index = unseen = carried = None
    if rotation is not None:
        cos, sin = rotation.table(torch.arange(-window - span, T, device=q.device), q.shape[3])
    if capacity:
        assert score is not None and coordinate is not None
        index, unseen, carried = _plan(score, coordinate, sequences, window, block, capacity, cut)
    shape = Shape(cut, window, span, q.shape, v.shape[2])
    inputs = *tensors, bias, call.lost, index, unseen, sequences.position, cos, sin, shape, stored is not None
    y, mass = _Attend.apply(*inputs)
    return y if stored is None else _with_store(y, mass, stored), carried


def _ends(part: Tensor, all_rows: Tensor | None) -> bool:
    """Whether `part` is a view of the last rows of the other, so that one gradient serves both."""
    if all_rows is None or torch.compiler.is_compiling() or part._base is not all_rows:
        return False
    return part.storage_offset() == all_rows[:, -part.shape[1] :].storage_offset()


def _with_store(y: Tensor, mass: Tensor, stored: Stored) -> Tensor:
    """One softmax over the logits behind y (B, T, H, D), whose log-sum-exp is `mass` (B, T, H), and what is stored."""
    G, D = stored.key.shape[3:]
    q = stored.query.unflatten(2, (G, -1)) * D**-0.5  # (B, T, G, R, D)
    key, value = (x.to(y.dtype).transpose(2, 3) for x in (stored.key, stored.value))  # (B, T, G, E, D)
    bias = stored.bias.masked_fill(~stored.visible, -torch.inf)[:, :, None, None]
    logit = (q.to(y.dtype) @ key.mT).float() + bias  # (B, T, G, R, E)
    if stored.sharpness != 1:
        logit = _sharper(logit, stored.sharpness)
    weight = torch.cat([mass.unflatten(2, (G, -1))[..., None], logit], -1).softmax(-1)
    if stored.watch:
        stored.watch(weight[..., 1:].flatten(2, 3))
    weight = weight.to(y.dtype)
    mixed: Tensor = weight[..., :1].flatten(2, 3) * y + (weight[..., 1:] @ value).flatten(2, 3)
    return mixed


def _sharper(logit: Tensor, sharpness: float) -> Tensor:
    """Logits (..., E) that are `sharpness` times as far apart, and weigh as much together."""
    seen = logit.amax(-1, keepdim=True) > -torch.inf
    logit = torch.where(seen, logit, 0)
    together = logit.logsumexp(-1, keepdim=True)
    return torch.where(seen, (sharpness * logit).log_softmax(-1) + together, -torch.inf)


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


class Shape(NamedTuple):
    """Of a call: `shape` (B, T, H, D) of the queries, `heads` of keys."""

    cut: Cut
    window: int
    span: int
    shape: torch.Size
    heads: int

    def tile(self) -> Tile:
        return Tile(self.cut.tiles, self.shape[0], self.heads, self.cut.rows, self.shape[2] // self.heads)

    def near(self) -> dict[int, Tiles]:
        """Of the window (0) and of the fading memory (1), where the layer reads them."""
        cut, near = self.cut, {}
        for i, (nearest, farthest) in enumerate(((0, self.window), (self.window, self.window + self.span))):
            if nearest == farthest:
                continue
            if cut.tiles == 1:
                near[i] = Tiles(nearest, farthest, -farthest, farthest - nearest + cut.rows, 1)
            else:
                earliest, latest = -(-(farthest - 1) // cut.rows), (cut.rows - 1 - nearest) // cut.rows
                near[i] = Tiles(nearest, farthest, -earliest * cut.rows, cut.rows, earliest + latest + 1)
        return near

    def tilings(self) -> tuple[Tiling, dict[int, Tiling]]:
        """Of queries; of the keys of `near`, whose first row has coordinate -farthest."""
        cut, heads = self.cut, self.heads
        return Tiling(cut.tiles, cut.rows, 0, heads), {
            i: Tiling(cut.tiles + t.seen - 1, t.rows, -t.farthest - t.first, heads) for i, t in self.near().items()
        }

    def parts(self) -> list[tuple[int, slice, Columns]]:
        """The number of the memory, its lanes that the lanes of queries see, and which of its keys those are."""
        lanes, parts = self.shape[0] * self.heads, []
        for i, tiles in self.near().items():
            for j in range(tiles.seen):
                columns = Columns(tiles.nearest, tiles.farthest, tiles.first + j * tiles.rows, tiles.rows)
                parts.append((i, slice(j * lanes, (self.cut.tiles + j) * lanes), columns))
        return parts


def _plan(
    score: Tensor, coordinate: Tensor, sequences: Sequences, window: int, block: int, capacity: int, cut: Cut
) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates of each block (b, n m, s), which of them are hidden (b, n, t, s), what is carried on."""
    T, device = sequences.position.shape[1], score.device
    sets = select(score, coordinate, sequences, block, capacity)
    missing = cut.tiles * cut.blocks - sets.event.shape[1]
    index, event = pad(sets.candidates, (0, 0, 0, missing), value=-1), pad(sets.event, (0, missing), value=T)
    row = torch.arange(cut.tiles * cut.rows, device=device).view(1, -1, cut.rows // cut.blocks, 1)
    position = pad(sequences.position, (0, row.numel() - T)).reshape(-1, *row.shape[1:])
    renewed = None if sequences.aligned else row >= event[..., None, None]  # whether the later set is in force
    if renewed is None:
        index = index[:, 1:]
    elif T == 1:
        index, renewed = torch.where(renewed[..., 0], index[:, 1:], index[:, :-1]), None
    else:
        index = torch.cat([index[:, :-1], index[:, 1:]], -1)
        renewed = renewed != (torch.arange(2 * capacity, device=device) >= capacity)
    held = index.clamp_min(0)
    at = coordinate.gather(1, held.flatten(1)).view_as(index).masked_fill(index < 0, 1 << 30)[:, :, None]
    hidden = (at > row - window) | (at < row - position)
    if renewed is not None:
        hidden = hidden | renewed
    return held, hidden.reshape(len(hidden), cut.tiles, cut.rows, -1), sets.carried


class _Attend(torch.autograd.Function):
    """Queries of None are the window's; keys and values of None, with a window, are the last rows of the eidetic ones."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor | None,
        q_far: Tensor | None,
        q_kept: Tensor | None,
        k: Tensor | None,
        k_far: Tensor | None,
        k_kept: Tensor | None,
        v: Tensor | None,
        v_far: Tensor | None,
        v_kept: Tensor | None,
        bias: Tensor | None,
        lost: Tensor | None,
        index: Tensor | None,
        unseen: Tensor | None,
        position: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        call: Shape,
        massed: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """y (B, T, H, D), and where `massed` the log-sum-exp of its logits (B, T, H) float32, else None."""
        ctx.shapes = [None if x is None else x.shape for x in (q, q_far, q_kept, k, k_far, k_kept, bias, lost)]
        ctx.call = call
        (B, T, H, D), tile, (rows, near) = call.shape, call.tile(), call.tilings()
        if call.window and k is None and k_kept is not None and v_kept is not None:
            k, v = (x[:, -call.window - T :] for x in (k_kept, v_kept))
        angles = _last_angles(cos, sin, T)
        tiled = [None if x is None else rows.to_tiles(x, angles, D**-0.5) for x in (q, q_far)]
        queries = {i: x for i, x in enumerate((tiled[0], tiled[0] if q_far is None else tiled[1])) if x is not None}
        keys, values = {}, {}
        for i, (key, value) in enumerate(((k, v), (k_far, v_far))):
            if key is not None and value is not None:
                keys[i] = near[i].to_tiles(key, _last_angles(cos, sin, key.shape[1]))
                values[i] = near[i].to_tiles(value)
        sets = capacity = 0
        at = k_set = v_set = kept = None
        if index is not None:
            query = q if q_kept is None else q_kept
            assert query is not None and k_kept is not None and v_kept is not None
            kept = rows.to_tiles(query, None, D**-0.5)
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
            assert kept is not None and k_set is not None and logits.kept is not None
            _product(kept.view(sets, -1, D), k_set.mT, logits.kept)
            by_row, by_key = _extra(bias, lost, index, call.cut, T)
            shape = tile.tiles, B, tile.heads, call.cut.blocks, -1, tile.share, capacity
            if by_key is not None:
                logits.kept.view(shape).add_(by_key.transpose(0, 1)[:, :, None, :, None, None])
            if by_row is not None:
                logits.kept.view(shape).add_(by_row.transpose(0, 1)[:, :, None, :, :, None, None])
        weights, mass = softmax(logits, tile, columns, position, unseen, massed)
        y = queries[1].new_empty(queries[1].shape)
        for n, ((i, seen, _), weight) in enumerate(zip(parts, weights.near)):
            _product(weight.to(dtype), values[i][seen], y, add=n > 0)
        if weights.kept is not None and v_set is not None:
            _product(weights.kept.to(dtype), v_set, y.view(sets, -1, D), add=True)
        near_tiles = [x.get(i) for x in (keys, values) for i in (0, 1)]
        ctx.save_for_backward(
            *tiled, kept, *near_tiles, k_set, v_set, index, at, cos, sin, y, weights.kept, *weights.near
        )
        if mass is not None:
            mass = rows.from_tiles(mass, mass.new_empty(B, T, H, 1))[..., 0]
        return rows.from_tiles(y, y.new_empty(B, T, H, D)), mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dmass: Tensor | None) -> tuple[Tensor | None, ...]:
        call, (*shapes, bias_shape, lost_shape) = ctx.call, ctx.shapes
        q, q_far, kept, k, k_far, v, v_far, k_set, v_set, index, at, cos, sin, y, weight, *weights = ctx.saved_tensors
        (_, T, _, D), tile, (rows, near) = call.shape, call.tile(), call.tilings()
        queries, keys, values = (q, q if q_far is None else q_far), (k, k_far), (v, v_far)
        dy = rows.to_tiles(dy)
        mean = (dy * y).sum(-1, keepdim=True, dtype=torch.promote_types(dy.dtype, torch.float32))
        if dmass is not None:
            mean = mean - rows.to_tiles(dmass[..., None])

        dq, dk, dv = (
            {i: x.new_empty(x.shape) for i, x in enumerate(tiles) if x is not None}
            for tiles in ((q, q_far), keys, values)
        )
        begun: set[int] = set()
        for (i, seen, _), w in zip(call.parts(), weights):
            part = change(dy @ values[i][seen].mT, mean, w).to(dy.dtype)
            o = 0 if q_far is None else i
            _product(part, keys[i][seen], dq[o], add=o in begun)
            begun.add(o)
            if seen.start == 0:
                for d in (dk[i], dv[i]):
                    d[seen.stop :].zero_()
            _product(part.mT, queries[i], dk[i][seen], add=seen.start > 0)
            _product(w.to(dy.dtype).mT, dy, dv[i][seen], add=seen.start > 0)

        angles, scale = _last_angles(cos, sin, T), D**-0.5
        out = {i: rows.from_tiles(d, d.new_empty(shapes[i]), angles, scale) for i, d in dq.items()}
        dbias = dlost = None
        if index is not None:
            up = dy.view(len(v_set), -1, D)
            part = change(up @ v_set.mT, mean.view(*up.shape[:2], 1), weight)
            if bias_shape is not None or lost_shape is not None:
                by_head = part.view(tile.tiles, -1, tile.heads, call.cut.blocks, *part.shape[1:])
                by_set = by_head.sum((2, 4)).transpose(0, 1).reshape(len(index), -1)
                by_key = by_set.new_zeros(bias_shape or lost_shape).scatter_add_(1, index.flatten(1), by_set)
                dbias = None if bias_shape is None else by_key
            if lost_shape is not None:
                by_row = by_head.sum((2, 5)).view(tile.tiles, -1, tile.rows, tile.share).sum(3)
                dlost = -by_key
                dlost[:, -T:] += by_row.transpose(0, 1).flatten(1)[:, :T]
            part = part.to(dy.dtype)
            shared = shapes[2] is None  # the window's queries
            if not shared:
                out[2] = dy.new_empty(shapes[2])
            rows.from_tiles((part @ k_set).view_as(kept), out[0 if shared else 2], None, scale, add=shared)
            out[5], out[8] = (dy.new_zeros(shapes[5]) for _ in range(2))
        for i, tiling in near.items():
            for o, d in ((3 + i, dk[i]), (6 + i, dv[i])):
                if shapes[3 + i] is None:
                    to = out[o + 2][:, -call.window - T :]
                else:
                    to = out[o] = d.new_empty(shapes[3 + i])
                tiling.from_tiles(d, to, _last_angles(cos, sin, to.shape[1]) if o < 6 else None)
        if index is not None:
            for o, d in (5, part.mT @ kept.view_as(up)), (8, weight.to(dy.dtype).mT @ up):
                out[o].view(-1, D).index_add_(0, at, d.flatten(0, 1))
        return *(out.get(i) for i in range(9)), dbias, dlost, *[None] * 7


def _extra(
    bias: Tensor | None, lost: Tensor | None, index: Tensor, cut: Cut, T: int
) -> tuple[Tensor | None, Tensor | None]:
    """float32, added to the eidetic logits: of rows (b, n, m, t) and of the candidates of blocks (b, n, m, s).

    What is lost counts from the first row of the block, so that sums over a long call cost no digits.
    """
    shape = len(index), cut.tiles, cut.blocks, -1
    by_key = None if bias is None else bias.gather(1, index.flatten(1)).view(shape)
    if lost is None:
        return None, by_key
    rows = pad(lost[:, -T:], (0, cut.tiles * cut.rows - T)).view(shape)
    since = rows[..., :1] - lost.gather(1, index.flatten(1)).view(shape)
    return (rows - rows[..., :1]).float(), (since if by_key is None else by_key + since).float()


def _last_angles(cos: Tensor | None, sin: Tensor | None, length: int) -> Table | None:
    """Of the last `length` rows."""
    return None if cos is None or sin is None else (cos[-length:], sin[-length:])


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
