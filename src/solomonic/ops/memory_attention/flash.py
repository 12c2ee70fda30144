"""Memory attention with PyTorch's flash attention for the CPU: logits of window and fading keys are never in memory.

Window and fading keys of a tile of queries are a view of the rows around it, and one fused call attends to all tiles; the
eidetic ones are a gather a block and two products. Each group gives its output and the logarithm of its normaliser,
which add up to one softmax. Backward each group is given the common output and normaliser: the gradient of a softmax
needs no more of the other groups, so that every part is exact.

Letters: b batch, g key head, r query head of it, n tile of queries, t query row of it, s key, d dim of a head.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ..place import Place
from ..selection import select

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
TILE = 32
"""Queries of a tile against window and fading keys. More of them see more keys in vain; fewer are slower each."""


def refusal(x: Tensor) -> str | None:
    """Why this backend cannot serve queries, keys or values like x (..., D), or None where it can."""
    if not x.is_cpu:
        return f"expected tensors on the CPU, got {x.device.type}"
    if x.dtype not in DTYPES:
        return f"expected a floating-point type, got {x.dtype}"
    return None


def attend(queries, keys, values, score, coordinate, bias, place: Place, window, span, block, capacity):
    """See `memory_attention.BACKENDS`. ValueError for what `refusal` names. Differentiable once."""
    given = [*queries, *keys, *values]
    if not window:
        given[0::3] = [None] * 3
    if torch.is_autocast_enabled("cpu"):
        given = [None if x is None else x.to(torch.get_autocast_dtype("cpu")) for x in given]
    for x in given:
        reason = None if x is None else refusal(x)
        if reason:
            raise ValueError(f"backend 'flash': {reason}; backend 'blocked' serves every call")
    if window and queries[1] is queries[0]:
        given[1] = None  # the fading memory's queries are the window's: one gradient
    index = hidden = carried = None
    if capacity:
        index, hidden, carried = _plan(score, coordinate, place, window, block, capacity)
    return _Attend.apply(*given, bias, index, hidden, place.position, window, span, block), carried


def _plan(score: Tensor, coordinate: Tensor, place: Place, window: int, block: int, capacity: int):
    """Candidates of each block (B, N, S), which of them its rows do not see (B, N, rows, S), what is carried on."""
    N, rows = _counts(place.position.shape[1], block)
    sets = select(score, coordinate, place, block, capacity)
    row = torch.arange(N * rows).view(N, rows, 1)
    position = _fill(place.position, N * rows).view(-1, N, rows, 1)
    index = sets.index[:, 1:]
    if not place.aligned:
        index = torch.cat([sets.index[:, :-1], index], -1)
    at = coordinate.gather(1, index.clamp_min(0).flatten(1)).view_as(index)
    at = at.masked_fill(index < 0, 1 << 30)[:, :, None]
    hidden = (at > row - window) | (at < row - position)
    if not place.aligned:  # two sets a block, the second from its event on
        hidden |= (row >= sets.event[..., None, None]) != (torch.arange(2 * capacity) >= capacity)
    return index.clamp_min(0), hidden, sets.carried


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, index, hidden, position, *sizes):
        window, span, block = ctx.sizes = sizes
        queries, value = (q_far, v_far) if q is None else (q, v)
        (B, T, H, D), G = queries.shape, value.shape[2]
        precise = torch.promote_types(value.dtype, torch.float32)

        N, rows = _counts(T, TILE)
        parts, lse = [], None
        for _, x, keys, values, nearest, farthest in _near(q, q_far, k, k_far, v, v_far, window, span):
            count = farthest - nearest + rows
            mask = _mask(position, nearest, farthest, N, rows, H // G, G, x.dtype)
            part, log = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                _tiles(x, G, rows), _around(keys, N, rows, count), _around(values, N, rows, count), attn_mask=mask
            )
            log = _rows(log.to(precise), G, T, rows)
            if nearest:  # where nothing is seen the kernel says 0
                log = log.masked_fill((position < nearest)[..., None], -torch.inf)
            lse = log if lse is None else torch.logaddexp(lse, log)
            parts.append((part, log))
        weight = k_set = v_set = None
        if index is not None:
            at = _flat(index, k_kept)
            k_set, v_set = (_flat_rows(z).index_select(0, at).view(B * G, *index.shape[1:], D) for z in (k_kept, v_kept))
            weight = (_tiles(q_kept * D**-0.5, G, block) @ k_set.mT).to(precise)
            extra = weight.new_zeros(hidden.shape) if bias is None else _of_sets(bias, index)[:, :, None]
            extra = extra.masked_fill(hidden, -torch.inf)[:, None, :, None]
            _in_heads(weight, G, hidden.shape[2]).add_(extra)
            largest = weight.amax(-1).clamp_min(-1e30)
            total = weight.sub_(largest[..., None]).exp_().sum(-1)
            lse = torch.logaddexp(lse, _rows(largest + total.log(), G, T, block))
            weight.mul_((largest - _tiles(lse, G, block)).exp_()[..., None])
        y = sum(part * _tiles((log - lse).exp_(), G, rows)[..., None] for part, log in parts)
        y = _rows(y, G, T, rows)
        if index is not None:
            y = y + _rows(weight.to(v_set.dtype) @ v_set, G, T, block)
        y = y.to(value.dtype)
        ctx.save_for_backward(
            *(q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, index, position),
            *(y, lse, weight, k_set, v_set),
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        window, span, block = ctx.sizes
        q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, index, position, *rest = ctx.saved_tensors
        y, lse, weight, k_set, v_set = rest
        (B, T, H, D), G = y.shape, (v_far if v is None else v).shape[2]
        dq, dk, dv, dbias = [None] * 3, [None] * 3, [None] * 3, None

        N, rows = _counts(T, TILE)
        for group, x, keys, values, nearest, farthest in _near(q, q_far, k, k_far, v, v_far, window, span):
            count = farthest - nearest + rows
            by_query, by_key, by_value = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(_tiles(dy, G, rows), _tiles(x, G, rows), _around(keys, N, rows, count)),
                *(_around(values, N, rows, count), _tiles(y, G, rows), _tiles(lse, G, rows), 0.0, False),
                attn_mask=_mask(position, nearest, farthest, N, rows, H // G, G, x.dtype),
            )
            if group == 1 and q is not None and q_far is None:
                dq[0] += by_query
            else:
                dq[group] = by_query
            dk[group], dv[group] = _summed(by_key, keys, rows), _summed(by_value, values, rows)
        dq = [None if x is None else _rows(x, G, T, rows) for x in dq]
        if index is not None:
            q_tile, dy_tile = _tiles(q_kept * D**-0.5, G, block), _tiles(dy, G, block).contiguous()
            slope = (dy_tile @ v_set.mT).to(weight.dtype)
            slope.sub_(_tiles((dy * y).sum(-1, dtype=weight.dtype), G, block)[..., None]).mul_(weight)
            if bias is not None:
                by_set = _in_heads(slope, G, min(block, T)).sum((1, 3, 4))
                dbias = torch.zeros_like(bias).scatter_add_(1, index.flatten(1), by_set.flatten(1).to(bias.dtype))
            slope = slope.to(y.dtype)
            dq[2] = _rows(slope @ k_set, G, T, block) * D**-0.5
            at = _flat(index, k_kept)
            dk[2] = torch.zeros_like(k_kept).view(-1, D).index_add_(0, at, (slope.mT @ q_tile).view(-1, D)).view_as(k_kept)
            dv_set = weight.to(y.dtype).mT @ dy_tile
            dv[2] = torch.zeros_like(v_kept).view(-1, D).index_add_(0, at, dv_set.view(-1, D)).view_as(v_kept)
        return *dq, *dk, *dv, dbias, *[None] * 6


def _counts(T: int, size: int) -> tuple[int, int]:
    """Into how many tiles of how many rows, `size` at most, T rows are cut; zeros fill the last one."""
    return -(-T // size), min(size, T)


def _fill(x: Tensor, length: int) -> Tensor:
    """(B, T, ...) -> (B, length or T, ...), zeros behind the rows there are."""
    missing = length - x.shape[1]
    return pad(x, [0] * (2 * (x.dim() - 2)) + [0, missing]) if missing > 0 else x


def _near(q, q_far, k, k_far, v, v_far, window: int, span: int):
    """(number, queries, keys, values, nearest, farthest) of window and fading memory: keys of nearest <= lag < farthest."""
    if k is not None:
        yield 0, q, k, v, 0, window
    if k_far is not None:
        yield 1, q if q_far is None else q_far, k_far, v_far, window, window + span


def _tiles(x: Tensor, G: int, size: int) -> Tensor:
    """(B, T, H, ...) -> (b g) n (r t) ...; a view where the shape allows one."""
    N, rows = _counts(x.shape[1], size)
    x = _fill(x, N * rows).unflatten(2, (G, -1)).unflatten(1, (N, rows))  # b n t g r ...
    return x.permute(0, 3, 1, 4, 2, *range(5, x.dim())).flatten(3, 4).flatten(0, 1)


def _rows(x: Tensor, G: int, T: int, size: int) -> Tensor:
    """The inverse of `_tiles`."""
    x = x.unflatten(2, (-1, min(size, T))).unflatten(0, (-1, G))  # b g n r t ...
    return x.permute(0, 2, 4, 1, 3, *range(5, x.dim())).flatten(3, 4).flatten(1, 2)[:, :T]


def _in_heads(x: Tensor, G: int, rows: int) -> Tensor:
    """(b g) n (r t) s -> a view b g n r t s."""
    return x.unflatten(2, (-1, rows)).unflatten(0, (-1, G))


def _around(x: Tensor, N: int, rows: int, count: int) -> Tensor:
    """(B, R + T, G, D) -> (b g) n s d, a view: the `count` rows from n `rows` on."""
    x = _fill(x, (N - 1) * rows + count).transpose(1, 2).flatten(0, 1)
    return x.unfold(1, count, rows)[:, :N].mT


def _summed(x: Tensor, like: Tensor, rows: int) -> Tensor:
    """The gradient of rows like (B, R + T, G, D) from that of `_around`."""
    (B, L, G, D), (_, N, count, _) = like.shape, x.shape
    total = x.new_zeros(B, max(N - 1 + -(-count // rows), -(-L // rows)), rows, G, D)
    for i, piece in enumerate(x.unflatten(0, (B, G)).split(rows, 3)):
        total[:, i : i + N, : piece.shape[3]] += piece.permute(0, 2, 3, 1, 4)
    return total.flatten(1, 2)[:, :L]


def _mask(position: Tensor, nearest: int, farthest: int, N: int, rows: int, R: int, G: int, dtype) -> Tensor:
    """What to add to logits of queries (b g) n (r t) and keys s: -inf where the lag is out of bounds."""
    row = torch.arange(rows)[:, None]
    lag = row + farthest - torch.arange(farthest - nearest + rows)
    hidden = (lag < nearest) | (lag >= farthest) | (lag > _fill(position, N * rows).view(-1, N, rows, 1))
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)[:, None, :, None]
    return mask.expand(-1, G if len(mask) > 1 else 1, -1, R, -1, -1).flatten(3, 4).flatten(0, 1)


def _flat_rows(x: Tensor) -> Tensor:
    """(B, C, G, D) -> (B C G, D)."""
    return x.reshape(-1, x.shape[-1])


def _flat(index: Tensor, like: Tensor) -> Tensor:
    """Where b g n s of the sets (B, N, S) lie in the flat rows of keys or values like (B, C, G, D)."""
    B, C, G, _ = like.shape
    at = index + C * torch.arange(B)[:, None, None]
    return (at[:, None] * G + torch.arange(G)[:, None, None]).flatten()


def _of_sets(x: Tensor, index: Tensor) -> Tensor:
    """(B, C) of all candidates -> (B, N, S) of the sets."""
    return x.gather(1, index.flatten(1)).view_as(index)
