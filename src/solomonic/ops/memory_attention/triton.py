"""Memory attention as fused kernels: one online softmax over the window, the fading and the eidetic memory.

The attention is one kernel over tiles of queries; its backward is that kernel once more for the queries' gradients, and
one over tiles of keys for each memory's. No mask and no copy of a key is written: what a query sees follows from four
small tensors, and eidetic keys are read where they lie, through the plan of `ops.selection`.

    n   number of a set of the plan; in force for the rows [start(n), start(n + 1)), start(n) = min(event[n-1], n block)
    m   row of queries of one key head: m = t R + r, query head r of R, so that the heads of a group share the keys read

An eidetic key's gradient is a sum over the sets that hold it: each set writes its part, the parts are sorted by key and
summed in the order of time. Nothing is added atomically, so that two runs give the same bits.

Logits are in units of log 2 (exp2 is what the hardware has). Kernels are tuned once for each shape of a layer.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from ..selection import select
from ..triton import INTERPRETED, load, product, products_refusal, store, wide
from .call import AttentionCall
from .reference import rotated

LARGEST_HEAD = 256

FAR = tl.constexpr(1 << 30)  # a lag or coordinate beyond all others: positions of 64 bits are compared as 32
LOG2E = tl.constexpr(1.4426950408889634)
LEAST = tl.constexpr(-1e30)  # below every logit, and finite: the maximum over nothing


def refusal(x: Tensor) -> str | None:
    """Why these kernels cannot serve queries, keys or values like x (..., D), or None where they can."""
    reason = products_refusal(x)
    if reason is None and x.shape[-1] > LARGEST_HEAD:
        return f"expected a head size of {LARGEST_HEAD} at most, got {x.shape[-1]}"
    return reason


def attend(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """See `AttentionCall`. ValueError for what `refusal` names. Products run in autocast's type."""
    queries, keys, values = call.queries, call.keys, call.values
    score, coordinate, bias, rotation = call.score, call.coordinate, call.bias, call.rotation
    sequences, window, span, block, capacity = call.sequences, call.window, call.span, call.block, call.capacity
    queries, keys = rotated(queries, keys, rotation)
    tensors = [*queries, *keys, *values]
    if not window:
        tensors[0::3] = [None] * 3
    device = sequences.position.device
    if torch.is_autocast_enabled(device.type):
        lower = torch.get_autocast_dtype(device.type)
        tensors = [None if x is None else x.to(lower) for x in tensors]
    for x in tensors:
        reason = None if x is None else refusal(x)
        if reason:
            raise ValueError(f"backend 'triton': {reason}; backend 'tiled' serves every call")
    if window and queries[1] is queries[0]:
        tensors[1] = None
    tensors = [None if x is None else x.contiguous() for x in tensors]
    index = event = seen = newest = carried = None
    if capacity:
        index, event, carried = (x.contiguous() for x in select(score, coordinate, sequences, block, capacity))
        seen = _of_sets(coordinate.clamp_min(-FAR.value).to(torch.int32), index)
        newest = seen.masked_fill(index < 0, -FAR.value).amax(-1)
        seen = seen.masked_fill(index < 0, FAR.value)
    bias = None if bias is None else bias.contiguous()
    position = sequences.position.clamp_max(2**31 - 1).to(torch.int32).contiguous()
    lost = None if call.lost is None else call.lost.contiguous()
    y, _ = _attend(*tensors, bias, lost, position, seen, newest, index, event, window, span, block, capacity)
    return y, carried


def _of_sets(x: Tensor, index: Tensor) -> Tensor:
    """(B, S) of the candidates -> (B, Q + 1, capacity) of those in the sets; what is at -1 means nothing."""
    return x.gather(1, index.clamp_min(0).flatten(1)).view_as(index)


def _extra(
    bias: Tensor | None, lost: Tensor | None, index: Tensor | None, event: Tensor | None, T: int, block: int
) -> tuple[Tensor | None, Tensor | None]:
    """float32, added to the eidetic logits: of the keys of the sets (B, Q + 1, capacity) and of the rows (B, T).

    What is lost counts from the row at which a set comes into force, so that sums over a long call cost no digits.
    """
    if index is None or (bias is None and lost is None):
        return None, None
    by_key = None if bias is None else _of_sets(bias, index)
    if lost is None:
        return by_key, None
    event, Q = event.expand(len(lost), -1), event.shape[1]
    number = torch.arange(1, Q + 1, device=lost.device)
    begin = pad(torch.minimum(event, number * block), (1, 0)).clamp_max(T - 1)
    rows = lost[:, -T:]
    first = rows.gather(1, begin)  # (B, Q + 1)
    row = torch.arange(T, device=lost.device)
    of_row = row // block + (row >= event[:, row // block])
    since = first[..., None] - _of_sets(lost, index)
    return (since if by_key is None else by_key + since).float(), (rows - first.gather(1, of_row)).float()


MaybeTensor = Tensor | None
"""seen, index (B, Q + 1, capacity): the coordinates of the keys of each set, `FAR` for none, and their numbers, -1 for
none; newest (B, Q + 1) the last of the coordinates. A set is of one document: who sees that one may see all."""


@torch.library.custom_op("solomonic::memory_attention", mutates_args=())
def _attend(
    q: MaybeTensor,
    q_far: MaybeTensor,
    q_kept: MaybeTensor,
    k: MaybeTensor,
    k_far: MaybeTensor,
    k_kept: MaybeTensor,
    v: MaybeTensor,
    v_far: MaybeTensor,
    v_kept: MaybeTensor,
    bias: MaybeTensor,
    lost: MaybeTensor,
    position: Tensor,
    seen: MaybeTensor,
    newest: MaybeTensor,
    index: MaybeTensor,
    event: MaybeTensor,
    window: int,
    span: int,
    block: int,
    capacity: int,
) -> tuple[Tensor, Tensor]:
    """(B, T, H, D), and the logarithm of each query's normalizer (B, T, H) float32, to the base 2.

    Without q_far, the fading memory's queries are the window's.
    """
    extra = _extra(bias, lost, index, event, position.shape[1], block)
    tensors = [q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, *extra, position, seen, newest, index, event]
    y, lse = _shaped_like_queries(q, q_far, v, v_far, position)
    _by_queries(tensors, (window, span, block, capacity), y, lse)
    return y, lse


@_attend.register_fake
def _(q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, lost, position, *_):
    return _shaped_like_queries(q, q_far, v, v_far, position)


def _shaped_like_queries(q, q_far, v, v_far, position) -> tuple[Tensor, Tensor]:
    like, v = q_far if q is None else q, v_far if v is None else v
    return like.new_empty(like.shape, dtype=v.dtype), like.new_empty(like.shape[:3], dtype=torch.float32)


@torch.library.custom_op("solomonic::memory_attention_backward", mutates_args=())
def _differentiate(
    dy: Tensor,
    y: Tensor,
    lse: Tensor,
    q: MaybeTensor,
    q_far: MaybeTensor,
    q_kept: MaybeTensor,
    k: MaybeTensor,
    k_far: MaybeTensor,
    k_kept: MaybeTensor,
    v: MaybeTensor,
    v_far: MaybeTensor,
    v_kept: MaybeTensor,
    bias: MaybeTensor,
    lost: MaybeTensor,
    position: Tensor,
    seen: MaybeTensor,
    newest: MaybeTensor,
    index: MaybeTensor,
    event: MaybeTensor,
    window: int,
    span: int,
    block: int,
    capacity: int,
) -> list[Tensor]:
    """The gradients of those of q ... lost that are not None, in their order."""
    change = [
        None if x is None else torch.empty_like(x)
        for x in (q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, bias, lost)
    ]
    extra = _extra(bias, lost, index, event, position.shape[1], block)
    tensors = [q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, *extra, position, seen, newest, index, event]
    sizes = window, span, block, capacity
    delta, drow = torch.empty_like(lse), None if lost is None else torch.empty_like(lse)
    _by_queries(tensors, sizes, y, lse, delta, dy, [*change[:3], drow])
    if window:
        _by_keys(tensors, 0, (0, window, block, 0), lse, delta, dy, change[3], change[6])
    if span:
        _by_keys(tensors, 1, (window, window + span, block, 0), lse, delta, dy, change[4], change[7])
    if capacity:
        B, E, (S, G, D) = len(index), index.shape[1] * capacity, k_kept.shape[1:]
        dk, dv, dbias = (lse.new_empty(B, E, G, n) for n in (D, D, 1))
        _by_keys(tensors, 2, (window, 0, block, capacity), lse, delta, dy, dk, dv, dbias)
        number, order = index.flatten(1).sort(dim=1, stable=True)
        bounds = torch.arange(S + 1, device=index.device).expand(B, -1).contiguous()
        bounds = torch.searchsorted(number, bounds)
        for parts, total in ((dk, change[5]), (dv, change[8])):
            _sum_parts(parts.flatten(2), order, bounds, total)
        if bias is not None or lost is not None:
            total = change[9] if lost is None else change[10]
            _sum_parts(dbias.sum(2), order, bounds, total)
            if lost is not None:
                if bias is not None:
                    change[9].copy_(total)
                total.neg_()[:, -position.shape[1] :] += drow.sum(2)
    return [x for x in change if x is not None]


@_differentiate.register_fake
def _(dy, y, lse, *tensors):
    return [torch.empty_like(x) for x in tensors[:11] if x is not None]


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.window, ctx.span, ctx.block, ctx.capacity = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, _):
    *tensors, y, lse = ctx.saved_tensors
    change = [None] * len(ctx.needs_input_grad)
    if dy is not None:
        sizes = ctx.window, ctx.span, ctx.block, ctx.capacity
        got = iter(_differentiate(dy.contiguous(), y, lse, *tensors, *sizes))
        change[:11] = [None if x is None else next(got) for x in tensors[:11]]
    return tuple(change)


_attend.register_autograd(_backward, setup_context=_save)


def _by_queries(tensors, sizes, y, lse, delta=None, dy=None, dq=(None, None, None, None)) -> None:
    """Launches the attention, which writes y and lse; with dy, its backward, which writes delta and dq, the last the
    gradient of what is added to the rows."""
    q, q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, by_key, by_row, position, seen, newest, index, event = tensors
    window, span, block, capacity = sizes
    B, T, H = y.shape[:3]
    G = (v_far if v is None else v).shape[2]
    tied = q_far is None
    with torch.cuda.device_of(y):
        _query_kernel[lambda tile: (B * G * triton.cdiv(T * H // G, tile["BM"]),)](
            *(q, q if tied else q_far, q_kept, k, k_far, k_kept, v, v_far, v_kept, by_key, by_row),
            *(position, seen, newest, index, event),
            *(y, lse, delta, dy, dq[0], dq[0] if tied else dq[1], dq[2], dq[3]),
            *_counts(T, H // G, position, k_kept, event),
            **_constants(y, G),
            WINDOW=window,
            SPAN=span,
            CAPACITY=capacity,
            BLOCK=block,
            TIED=tied,
            BIAS=by_key is not None,
            FADES=by_row is not None,
            BACKWARD=dy is not None,
        )


def _by_keys(tensors, group, sizes, lse, delta, dy, dk, dv, dbias=None) -> None:
    """Launches the gradients of the keys of a group: of all its rows, or for each set of the plan, of its keys."""
    q, k, v = tensors[group] if tensors[group] is not None else tensors[0], tensors[3 + group], tensors[6 + group]
    by_key, by_row, position, seen, newest, index, event = tensors[9:]
    nearest, farthest, block, capacity = sizes
    if not capacity:
        by_key = by_row = None
    B, T, H = q.shape[:3]
    S, G = k.shape[1:3]

    def grid(tile):
        tiles = index.shape[1] * triton.cdiv(capacity, tile["BN"]) if capacity else triton.cdiv(S, tile["BN"])
        return (B * G * tiles,)

    with torch.cuda.device_of(dy):
        _key_kernel[grid](
            *(q, k, v, by_key, by_row, position, seen, newest, index, event, lse, delta, dy, dk, dv, dbias),
            *_counts(T, H // G, position, k, event),
            **_constants(dy, G),
            NEAREST=nearest,
            FARTHEST=farthest,
            CAPACITY=capacity,
            BLOCK=block,
            BIAS=by_key is not None,
            FADES=by_row is not None,
        )


def _sum_parts(parts: Tensor, order: Tensor, bounds: Tensor, total: Tensor) -> None:
    """total[b, s] = sum of parts[b, order[b, i]], bounds[b, s] <= i < bounds[b, s + 1]; parts (B, E, X) float32."""
    (B, E, X), S = parts.shape, total.shape[1]
    width = min(triton.next_power_of_2(X), 1024)
    with torch.cuda.device_of(parts):
        _sum_kernel[(B * S, triton.cdiv(X, width))](parts, order, bounds, total, S, E, X, BX=width, BI=16)


def _counts(T, R, position, kept, event):
    """T, candidates, sets but one, strides of position and event along the batch, and what the rows tune for."""
    tuned = min(max(16, triton.next_power_of_2(T * R)), 1024)
    Q = 0 if event is None else event.shape[1]
    strides = (0 if x is None or len(x) == 1 else x.shape[1] for x in (position, event))
    return T, 0 if kept is None else kept.shape[1], Q, *strides, tuned


def _constants(y: Tensor, G: int):
    D = y.shape[3]
    width = max(16, triton.next_power_of_2(D))
    return {"scale": D**-0.5, "G": G, "R": y.shape[2] // G, "D": D, "BD": width, "WIDE": wide(y.dtype)}


@triton.jit
def _oldest(position, t, inside):
    """The coordinate where the document of row t began; beyond all where not `inside`, so that it sees nothing."""
    return t - tl.load(position + t, mask=inside, other=-FAR)


@triton.jit
def _start(event, n, Q, T, BLOCK: tl.constexpr):
    """The first row for which set n is in force; T for n = Q + 1."""
    begins = tl.load(event + n - 1, mask=(n > 0) & (n <= Q), other=0)
    return tl.where(n <= Q, tl.minimum(begins, n * BLOCK), T).to(tl.int32)


@triton.jit
def _set_of(event, t, BLOCK: tl.constexpr):
    n = t // BLOCK
    return n + (t >= tl.load(event + n)).to(tl.int32)


@triton.jit
def _step(logit, k, v, a, b, sum_, dy, logit_scale, BACKWARD: tl.constexpr, WIDE: tl.constexpr):
    """Queries see a tile of keys, with products `logit`, -inf where they do not.

    Forward: a, b, sum = the maximum, the normalizer and the weighted values so far.
    Backward: a, b = lse, delta, and sum = the queries' gradient so far. Also gives the sum of the logits' gradients.
    """
    total = b
    if BACKWARD:
        weight = tl.exp2(logit * logit_scale - a[:, None])
        change = weight * (product(dy, tl.trans(v), WIDE) - b[:, None])
        sum_ += product(change.to(k.dtype), k, WIDE)
        total = tl.sum(change, 1)
    else:
        top = tl.maximum(a, tl.max(logit, 1) * logit_scale)
        weight = tl.exp2(logit * logit_scale - top[:, None])
        fade = tl.exp2(a - top)
        b = b * fade + tl.sum(weight, 1)
        sum_ = sum_ * fade[:, None] + product(weight.to(v.dtype), v, WIDE)
        a = top
    return a, b, sum_, total


@triton.jit
def _see_rows(
    q,
    k,
    v,
    batch,
    g,
    t,
    oldest,
    first,
    last,
    a,
    b,
    sum_,
    dy,
    T,
    logit_scale,
    G: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    NEAREST: tl.constexpr,
    FARTHEST: tl.constexpr,
    BACKWARD: tl.constexpr,
    WIDE: tl.constexpr,
    BN: tl.constexpr,
):
    """Queries first .. last see the rows of a ring and of the call with NEAREST <= lag < FARTHEST.

    Each sees a run of them, low .. high. A tile that all queries see whole is not masked.
    """
    low, high = tl.maximum(oldest, t - FARTHEST + 1), t - NEAREST
    whole = tl.max(low, 0)
    n = tl.arange(0, BN)
    start = tl.maximum(first - FARTHEST + 1, tl.min(oldest, 0))
    begin = ((batch * (FARTHEST + T) + FARTHEST + start) * G + g) * D
    for s in range(start, last - NEAREST + 1, BN):
        k_tile = load(k + begin, n, G * D, s + n <= last - NEAREST, D, BD)
        v_tile = load(v + begin, n, G * D, s + n <= last - NEAREST, D, BD)
        begin += BN * G * D
        logit = product(q, tl.trans(k_tile), WIDE)
        if (s < whole) | (s + BN > first - NEAREST + 1):
            at = (s + n)[None, :]
            logit = tl.where((at >= low[:, None]) & (at <= high[:, None]), logit, -float("inf"))
        a, b, sum_, _ = _step(logit, k_tile, v_tile, a, b, sum_, dy, logit_scale, BACKWARD, WIDE)
    return a, b, sum_


@triton.jit
def _query(
    q,
    q_far,
    q_kept,
    k,
    k_far,
    k_kept,
    v,
    v_far,
    v_kept,
    by_key,
    by_row,
    position,
    seen,
    newest,
    index,
    event,
    y,
    lse,
    delta,
    dy,
    dq,
    dq_far,
    dq_kept,
    drow,
    T,
    S,
    Q,
    position_stride,
    event_stride,
    tuned,
    scale,
    G: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    WINDOW: tl.constexpr,
    SPAN: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
    TIED: tl.constexpr,
    BIAS: tl.constexpr,
    FADES: tl.constexpr,
    BACKWARD: tl.constexpr,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """One tile of BM queries of one key head, against all it sees, BN keys at a time."""
    logit_scale = scale * LOG2E
    tiles = tl.cdiv(T * R, BM)
    tile, g = tl.program_id(0) % tiles, tl.program_id(0) // tiles % G
    batch = (tl.program_id(0) // tiles // G).to(tl.int64)
    first, last = tile * BM // R, tl.minimum((tile * BM + BM - 1) // R, T - 1)
    m = tile * BM + tl.arange(0, BM)
    t = m // R
    inside = t < T
    row = ((batch * T + t) * G + g) * R + m % R
    oldest = _oldest(position + batch * position_stride, t, inside)

    sum_ = tl.zeros([BM, BD], tl.float32)
    if BACKWARD:
        dy_tile = load(dy, row, D, inside, D, BD)
        a = tl.load(lse + row, mask=inside, other=0.0)
        b = tl.sum(dy_tile.to(tl.float32) * load(y, row, D, inside, D, BD).to(tl.float32), 1)
        tl.store(delta + row, b, mask=inside)
    else:
        dy_tile = 0.0
        a = tl.full([BM], LEAST, tl.float32)
        b = tl.zeros([BM], tl.float32)

    if WINDOW:
        q_tile = load(q, row, D, inside, D, BD)
        a, b, sum_ = _see_rows(
            q_tile,
            k,
            v,
            batch,
            g,
            t,
            oldest,
            first,
            last,
            a,
            b,
            sum_,
            dy_tile,
            T,
            logit_scale,
            G,
            D,
            BD,
            0,
            WINDOW,
            BACKWARD,
            WIDE,
            BN,
        )
        if BACKWARD and not TIED:
            store(dq, row, D, inside, sum_ * scale, D, BD)
            sum_ = tl.zeros([BM, BD], tl.float32)
    if SPAN:
        q_tile = load(q_far, row, D, inside, D, BD)
        a, b, sum_ = _see_rows(
            q_tile,
            k_far,
            v_far,
            batch,
            g,
            t,
            oldest,
            first,
            last,
            a,
            b,
            sum_,
            dy_tile,
            T,
            logit_scale,
            G,
            D,
            BD,
            WINDOW,
            WINDOW + SPAN,
            BACKWARD,
            WIDE,
            BN,
        )
    if BACKWARD and (SPAN or TIED):
        store(dq_far, row, D, inside, sum_ * scale, D, BD)
        sum_ = tl.zeros([BM, BD], tl.float32)
    if CAPACITY:
        q_tile = load(q_kept, row, D, inside, D, BD)
        event += batch * event_stride
        if FADES:
            faded = tl.load(by_row + batch * T + t, mask=inside, other=0.0)[:, None] * (1 / scale)
            changed = tl.zeros([BM], tl.float32)
        for n in range(_set_of(event, first, BLOCK), _set_of(event, last, BLOCK) + 1):
            served = (t >= _start(event, n, Q, T, BLOCK)) & (t < _start(event, n + 1, Q, T, BLOCK))
            served &= oldest <= tl.load(newest + batch * (Q + 1) + n)
            high = tl.where(served, t - WINDOW, -2 * FAR)
            for c in range(0, CAPACITY, BN):
                slot = c + tl.arange(0, BN)
                slots, there = (batch * (Q + 1) + n) * CAPACITY + slot, slot < CAPACITY
                at = tl.load(index + slots, mask=there, other=-1)
                key_seen = tl.load(seen + slots, mask=there, other=FAR)
                k_tile = load(k_kept, (batch * S + at) * G + g, D, at >= 0, D, BD)
                v_tile = load(v_kept, (batch * S + at) * G + g, D, at >= 0, D, BD)
                logit = product(q_tile, tl.trans(k_tile), WIDE)
                if BIAS:
                    logit += (tl.load(by_key + slots, mask=there, other=0.0) * (1 / scale))[None, :]
                if FADES:
                    logit += faded
                logit = tl.where(key_seen[None, :] <= high[:, None], logit, -float("inf"))
                a, b, sum_, total = _step(logit, k_tile, v_tile, a, b, sum_, dy_tile, logit_scale, BACKWARD, WIDE)
                if FADES and BACKWARD:
                    changed += total
        if BACKWARD:
            store(dq_kept, row, D, inside, sum_ * scale, D, BD)
            if FADES:
                tl.store(drow + row, changed, mask=inside)
    if not BACKWARD:
        b = tl.where(inside, b, 1.0)
        store(y, row, D, inside, sum_ / b[:, None], D, BD)
        tl.store(lse + row, a + tl.log2(b), mask=inside)


@triton.jit
def _key(
    q,
    k,
    v,
    by_key,
    by_row,
    position,
    seen,
    newest,
    index,
    event,
    lse,
    delta,
    dy,
    dk,
    dv,
    dbias,
    T,
    S,
    Q,
    position_stride,
    event_stride,
    tuned,
    scale,
    G: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    NEAREST: tl.constexpr,
    FARTHEST: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
    BIAS: tl.constexpr,
    FADES: tl.constexpr,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """One tile of BN keys of one head, against all queries that see it, BM at a time: its gradients.

    With a CAPACITY, a tile is of one set of the plan, and what it writes is that set's part.
    """
    logit_scale = scale * LOG2E
    chunks = tl.cdiv(CAPACITY, BN) if CAPACITY else 1
    tiles = (Q + 1) * chunks if CAPACITY else tl.cdiv(S, BN)
    tile, g = tl.program_id(0) % tiles, tl.program_id(0) // tiles % G
    batch = (tl.program_id(0) // tiles // G).to(tl.int64)
    position += batch * position_stride
    if CAPACITY:
        n, slot = tile // chunks, tile % chunks * BN + tl.arange(0, BN)
        event += batch * event_stride
        first, beyond = _start(event, n, Q, T, BLOCK), _start(event, n + 1, Q, T, BLOCK)
        inside = slot < CAPACITY
        out = (batch * (Q + 1) + n) * CAPACITY + slot
        at = tl.load(index + out, mask=inside, other=-1)
        held = at >= 0
        key_seen = tl.load(seen + out, mask=inside, other=FAR)
        last_seen = tl.load(newest + batch * (Q + 1) + n)
        if BIAS:
            extra = tl.load(by_key + out, mask=inside, other=0.0)[:, None] * (1 / scale)
        row, out = (batch * S + at) * G + g, out * G + g
    else:
        at = tile * BN + tl.arange(0, BN)
        first, beyond = tl.maximum(tile * BN + NEAREST - FARTHEST, 0), tl.minimum(tile * BN + BN - 1, T)
        inside = at < S
        held = inside
        key_seen = at - FARTHEST
        row = (batch * S + at) * G + g
        out = row
    nearest = key_seen + NEAREST
    k_tile = load(k, row, D, held, D, BD)
    v_tile = load(v, row, D, held, D, BD)
    dk_tile = tl.zeros([BN, BD], tl.float32)
    dv_tile = tl.zeros([BN, BD], tl.float32)
    if BIAS:
        dbias_tile = tl.zeros([BN], tl.float32)
    for start in range(first * R, beyond * R, BM):
        m = (start + tl.arange(0, BM)).to(tl.uint32)
        t = (m // R).to(tl.int32)
        real = t < beyond
        query = ((batch * T + t) * G + g) * R + (m % R).to(tl.int32)
        oldest = _oldest(position, t, real)
        q_tile = load(q, query, D, real, D, BD)
        dy_tile = load(dy, query, D, real, D, BD)
        norm = tl.load(lse + query, mask=real, other=0.0)
        mean = tl.load(delta + query, mask=real, other=0.0)
        logit = product(k_tile, tl.trans(q_tile), WIDE)
        if BIAS:
            logit += extra
        if FADES:
            logit += tl.load(by_row + batch * T + t, mask=real, other=0.0)[None, :] * (1 / scale)
        if CAPACITY:
            since = tl.where(oldest <= last_seen, t, -2 * FAR)
            logit = tl.where(since[None, :] >= nearest[:, None], logit, -float("inf"))
        else:
            begun = tl.max(oldest, 0) <= tl.min(key_seen, 0)
            near = (start + BM - 1) // R < tl.min(key_seen, 0) + FARTHEST
            if not (begun & near & (start // R >= tl.max(nearest, 0))):
                low = tl.maximum(oldest, t - FARTHEST + 1)
                visible = (t[None, :] >= nearest[:, None]) & (key_seen[:, None] >= low[None, :])
                logit = tl.where(visible, logit, -float("inf"))
        weight = tl.exp2(logit * logit_scale - norm[None, :])
        dv_tile += product(weight.to(dy_tile.dtype), dy_tile, WIDE)
        change = weight * (product(v_tile, tl.trans(dy_tile), WIDE) - mean[None, :])
        dk_tile += product(change.to(q_tile.dtype), q_tile, WIDE)
        if BIAS:
            dbias_tile += tl.sum(change, 1)
    store(dk, out, D, inside, dk_tile * scale, D, BD)
    store(dv, out, D, inside, dv_tile, D, BD)
    if BIAS:
        tl.store(dbias + out, dbias_tile, mask=inside)


@triton.jit
def _sum_kernel(parts, order, bounds, total, S, E, X, BX: tl.constexpr, BI: tl.constexpr):
    """One row of the sum, BX numbers of it, BI parts at a time."""
    batch, s = (tl.program_id(0) // S).to(tl.int64), tl.program_id(0) % S
    x = tl.program_id(1) * BX + tl.arange(0, BX)
    bounds += batch * (S + 1) + s
    last = tl.load(bounds + 1)
    sum_ = tl.zeros([BX], tl.float32)
    for first in range(tl.load(bounds), last, BI):
        i = first + tl.arange(0, BI)
        part = batch * E + tl.load(order + batch * E + i, mask=i < last, other=0)
        mask = (i[:, None] < last) & (x[None, :] < X)
        sum_ += tl.sum(tl.load(parts + part[:, None] * X + x[None, :], mask=mask, other=0.0), 0)
    tl.store(total + (batch * S + s) * X + x, sum_.to(total.dtype.element_ty), mask=x < X)


def _fitting(configs, tensors, **constants):
    """Tiles that fit the rows there are, and registers: float32 products take three times as many."""
    v = tensors["v_far"] if tensors["v"] is None else tensors["v"]
    rows, size = tensors["tuned"], v.element_size()
    width, most = constants["BD"] * size, (96 << 10) // size

    def fits(m: int, n: int) -> bool:
        return rows // 32 <= m <= rows and (m + n) * width <= most

    return [c for c in configs if fits(c.kwargs["BM"], c.kwargs["BN"])] or configs[:1]


def _tuned(kernel, tiles, key):
    """`kernel` with the best of `tiles` (BM, BN, warps, stages), found once for each value of `key`, kept on disk."""
    if INTERPRETED:
        tiles = [(32, 32, 4, 1)]
    return triton.autotune(
        [triton.Config({"BM": m, "BN": n}, num_warps=warps, num_stages=stages) for m, n, warps, stages in tiles],
        [*key, "G", "R", "D", "BLOCK", "CAPACITY", "BIAS", "FADES", "tuned"],
        prune_configs_by=None if INTERPRETED else {"early_config_prune": _fitting},
        cache_results=not INTERPRETED,
    )(kernel)


_query_kernel = _tuned(
    _query,
    [(16, 32, 4, 2), (16, 128, 4, 2), (32, 64, 4, 3), (64, 64, 4, 3), (128, 64, 8, 3)],
    ["WINDOW", "SPAN", "TIED", "BACKWARD"],
)
_key_kernel = _tuned(_key, [(16, 32, 4, 2), (32, 64, 4, 2), (64, 64, 4, 2), (64, 128, 8, 2)], ["NEAREST", "FARTHEST"])
