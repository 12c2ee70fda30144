"""The chunks of `chunked` as fused kernels for a GPU: nothing of the size of a chunk squared is ever written.

Letters: b batch, c chunk (Q rows), h head, g group of R heads, t s rows, p value dim, n key dim; G the cumsum of the log
decays in the chunk, S the state that it begins with, D the gradient of the state that it ends with.

    into_t = exp(G_t), onward_s = exp(G_Q - G_s) step_s, W_ts = exp(G_t - G_s) step_s for s <= t, all 0 across documents
    y_t = into_t S q_t + sum_s W_ts (q_t.k_s) v_s + skip v_t         S' = exp(G_Q) S + sum_s onward_s v_s k_s^T

A program does the BQ rows of a tile of a chunk. Products are in the type of v and sums in float32; of float32 the products
keep the digits. Every sum is made by one program in one order, so that two runs give the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from ..triton import INTERPRETED, load, product, products_refusal, store, wide
from .call import SSDCall

LARGEST = 128  # of both dims of the state
LOG2E = 1.4426950408889634  # G is in units of log 2: exp2 is what the hardware has
MEMORY = 114688  # bytes of shared memory that the gradient of the largest takes
SLICE = 256  # numbers of a state that a program carries through the chunks


def refusal(v: Tensor, k: Tensor) -> str | None:
    """Why these kernels cannot serve values v (B, T, H, P) and keys k (B, T, G, N), or None where they can."""
    if max(v.shape[-1], k.shape[-1]) > LARGEST:
        return f"expected values and keys of {LARGEST} dims at most, got {v.shape[-1]} and {k.shape[-1]}"
    reason = products_refusal(v)
    if reason is None and min(v.shape[-1], k.shape[-1]) > 64 and not INTERPRETED:
        available = torch.cuda.get_device_properties(v.device).shared_memory_per_block_optin
        if available < MEMORY:
            return f"expected {MEMORY} bytes of shared memory for values and keys of more than 64 dims, got {available}"
    return reason


def ssd(call: SSDCall) -> tuple[Tensor, Tensor]:
    """See `ssd`; v, k, q may be of any type that `refusal` does not name, the first decides. ValueError for others."""
    v, k, q, log_decay, state, sequences, step, skip = call
    B, T, H = v.shape[:3]
    if reason := refusal(v, k):
        raise ValueError(f"backend 'triton': {reason}; backend 'chunked' serves every call")
    if not (B and T):
        return v.float(), state.float()
    if v.dtype == torch.float16:  # states and sums of products leave its range
        v = v.float()
    step = torch.ones_like(log_decay) if step is None else step
    skip = log_decay.new_zeros(H) if skip is None else skip
    if (real := sequences.real()) is not None:
        step, log_decay = (x * real[:, :, None] for x in (step, log_decay))
    document = sequences.document()
    if document is not None:
        document = document.to(torch.int32).expand(B, -1)
    y, state, *_ = _scan(v, k.to(v.dtype), q.to(v.dtype), log_decay, step, skip, state.float(), document)
    return y, state


@torch.library.custom_op("solomonic::ssd", mutates_args=())
def _scan(
    v: Tensor,
    k: Tensor,
    q: Tensor,
    log_decay: Tensor,
    step: Tensor,
    skip: Tensor,
    state: Tensor,
    document: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last state; and what the gradients need: G, the steps (b h c t), the states in front of chunks and the last."""
    (B, T, H), sizes = v.shape[:3], _sizes(v, k)
    y, last, total, steps, states = _shaped(v, k, state)
    C, Q = total.shape[2:]
    torch.cumsum(_by_head(log_decay, C, Q), -1, out=total).mul_(LOG2E)
    steps.copy_(_by_head(step, C, Q))
    document = _whole_chunks(document, C * Q)
    v, k, q = (_rows(x) for x in (v, k, q))
    with torch.cuda.device_of(v):
        _states_kernel[(B * C * H,)](v, k, total, steps, document, states, *_strides(v, k), T, C, **sizes)
        _carry(states, total, document, state)
        tensors = v, k, q, total, steps, skip.contiguous(), document, states, y
        _output_kernel[(B * C * H * (Q // sizes["BQ"]),)](*tensors, *_strides(v, k, q), T, C, **sizes, num_stages=2)
    last.copy_(states[:, -1])
    return y, last, total, steps, states


@_scan.register_fake
def _(v, k, q, log_decay, step, skip, state, document):
    return _shaped(v, k, state)


def _shaped(v: Tensor, k: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    B, T, H, P = v.shape
    Q = _sizes(v, k)["Q"]
    C = -(-T // Q)
    shapes = (B, T, H, P), state.shape, (B, H, C, Q), (B, H, C, Q), (B, C + 1, H, P, k.shape[3])
    return tuple(torch.empty(shape, dtype=torch.float32, device=v.device) for shape in shapes)


@torch.library.custom_op("solomonic::ssd_backward", mutates_args=())
def _differentiate(
    dy: Tensor,
    dstate: Tensor,
    v: Tensor,
    k: Tensor,
    q: Tensor,
    skip: Tensor,
    document: Tensor | None,
    total: Tensor,
    steps: Tensor,
    states: Tensor,
) -> list[Tensor]:
    """Of v, k, q, log_decay, step, skip and the state."""
    (B, T, H), G, sizes, (C, Q) = v.shape[:3], k.shape[2], _sizes(v, k), total.shape[2:]
    dv, dk, dq = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (v, k, q))
    changes = torch.empty_like(states)
    dtotal, dtotal_keys, donward, dsteps = (torch.empty_like(total) for _ in range(4))
    document = _whole_chunks(document, C * Q)
    v, k, q, dy = (*(_rows(x) for x in (v, k, q)), dy.contiguous())
    tiles = B * C * G * (Q // sizes["BQ"])
    dskip = total.new_empty(tiles, H // G)
    with torch.cuda.device_of(v):
        _states_kernel[(B * C * H,)](dy, q, total, None, document, changes, *_strides(dy, q), T, C, **sizes)
        ends = total.new_empty(triton.cdiv(states[0, 0, 0].numel(), SLICE), B, H, C)
        _carry(changes, total, document, dstate, states, ends)
        tensors, strides = (v, k, q, total, steps, skip.contiguous(), document), (*_strides(v, k, q), T, C)
        _query_kernel[(tiles,)](*tensors, states, dy, dq, dtotal, *strides, **sizes, num_stages=1)
        tensors = *tensors, changes, dy, dv, dk, dtotal_keys, donward, dsteps, dskip
        _key_kernel[(tiles,)](*tensors, *strides, **sizes, num_stages=1)
    # a decay acts between what is before and what is after it: nothing that is not is added only to cancel
    dlog_decay = (
        (dtotal - dtotal_keys).flip(-1).cumsum(-1).flip(-1) + donward.cumsum(-1) - donward + ends.sum(0)[..., None]
    )
    dlog_decay, dstep = (x.flatten(2)[..., :T].transpose(1, 2).contiguous() for x in (dlog_decay, dsteps))
    dskip = dskip.view(B * C, G, -1, H // G).sum((0, 2)).flatten()
    return [dv, dk, dq, dlog_decay, dstep, dskip, changes[:, 0].clone()]


@_differentiate.register_fake
def _(dy, dstate, v, k, q, skip, document, total, steps, states):
    (B, T, H), first = v.shape[:3], states[:, 0]
    gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (v, k, q)]
    return [*gradients, *(total.new_empty(B, T, H) for _ in range(2)), skip.new_empty(H), first.new_empty(first.shape)]


def _save(ctx, inputs, output) -> None:
    v, k, q, _, _, skip, _, document = inputs
    _, _, *kept = output
    ctx.save_for_backward(v, k, q, skip, document, *kept)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dstate, *_):
    v, k, q, skip, document, total, steps, states = ctx.saved_tensors
    if dy is None and dstate is None:
        return (None,) * 8
    dy = v.new_zeros(v.shape, dtype=torch.float32) if dy is None else dy
    dstate = torch.zeros_like(states[:, 0]) if dstate is None else dstate
    return *_differentiate(dy, dstate, v, k, q, skip, document, total, steps, states), None


_scan.register_autograd(_backward, setup_context=_save)


def _whole_chunks(document: Tensor | None, length: int) -> Tensor | None:
    """The last document goes on to the end of the last chunk."""
    if document is None:
        return None
    return torch.cat([document, document[:, -1:].expand(-1, length - document.shape[1])], 1).contiguous()


def _rows(x: Tensor) -> Tensor:
    """x (B, T, heads, dim) where the numbers of a row lie side by side."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    """Of the batch and the rows."""
    return tuple(n for x in tensors for n in (x.stride(0), x.stride(1)))


def _by_head(x: Tensor, C: int, Q: int) -> Tensor:
    """(B, T, H) -> (B, H, C, Q), zeros after the last row."""
    return pad(x.transpose(1, 2), (0, C * Q - x.shape[1])).reshape(len(x), -1, C, Q)


def _sizes(v: Tensor, k: Tensor) -> dict[str, int]:
    (H, P), (G, N) = v.shape[2:], k.shape[2:]
    BP, BN = (max(16, triton.next_power_of_2(n)) for n in (P, N))
    chunk = 32 if INTERPRETED else 64 if v.dtype == torch.float32 else 128
    rows = chunk // 4 if max(BP, BN) > 64 and not INTERPRETED else chunk // 2  # so that shared memory holds the tiles
    return {"H": H, "G": G, "P": P, "N": N, "BP": BP, "BN": BN, "Q": chunk, "BQ": rows, "WIDE": wide(v.dtype)}


def _carry(states: Tensor, total: Tensor, document: Tensor | None, first: Tensor, other=None, ends=None) -> None:
    """What each chunk adds to the state -> the states that chunks begin with, and the last.

    Given `ends`, back: the gradient of the state a chunk begins with by its rows -> by all later ones. Writes to
    `ends` (slices, B, H, C) what the decay over each whole chunk has by way of the state before it, of `other`.
    """
    B, C, H, P, N = states.shape
    _carry_kernel[(B * H, triton.cdiv(P * N, SLICE))](
        *(states, total, document, first.contiguous(), other, ends, H, C - 1, P * N, total.shape[3], SLICE)
    )


@triton.jit
def _state(states, b, c, h, C, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr):
    """The state in front of chunk c, (BP, BN)."""
    p = tl.arange(0, BP)
    return load(states + ((b * (C + 1) + c) * H + h) * (P * N), p, N, p < P, N, BN)


@triton.jit
def _document_before(document, b, c, C, Q: tl.constexpr):
    """The document that the state in front of chunk c is of."""
    return tl.load(document + b * (C * Q) + c * Q - 1, mask=c > 0, other=0)


@triton.jit
def _carry_kernel(states, total, document, first, other, ends, H, C, PN, Q: tl.constexpr, SLICE: tl.constexpr):
    """In order, or given `ends` back from the last chunk."""
    b, h = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    n = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    inside = n < PN
    state = tl.load(first + (b * H + h) * PN + n, mask=inside, other=0.0)
    total += (b * H + h) * C * Q + Q - 1
    end = ((b * (C + 1) + C) * H + h) * PN + n
    if ends is not None:
        tl.store(states + end, state, mask=inside)
        ends += ((tl.program_id(1) * (tl.num_programs(0) // H) + b) * H + h) * C
    for i in range(C):
        c = i
        if ends is not None:
            c = C - 1 - i
        at = ((b * (C + 1) + c) * H + h) * PN + n
        keep = tl.exp2(tl.load(total + c * Q))
        if document is not None:
            last = tl.load(document + b * (C * Q) + c * Q + Q - 1)
            keep = tl.where(last == _document_before(document, b, c, C, Q), keep, 0.0)
        added = tl.load(states + at, mask=inside, other=0.0)
        if ends is not None:
            state *= keep
            tl.store(ends + c, tl.sum(state * tl.load(other + at, mask=inside, other=0.0), 0))
            state += added
            tl.store(states + at, state, mask=inside)
        else:
            tl.store(states + at, state, mask=inside)
            state = keep * state + added
    if ends is None:
        tl.store(states + end, state, mask=inside)


@triton.jit
def _states_kernel(
    v,
    k,
    total,
    steps,
    document,
    states,
    v_batch,
    v_row,
    k_batch,
    k_row,
    T,
    C,
    H: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    Q: tl.constexpr,
    BQ: tl.constexpr,
    WIDE: tl.constexpr,
):
    """sum_s onward_s v_s k_s^T of a chunk, or without steps: sum_t into_t v_t k_t^T."""
    h, c = tl.program_id(0) % H, tl.program_id(0) // H % C
    b = (tl.program_id(0) // H // C).to(tl.int64)
    v += b * v_batch + h * P
    k += b * k_batch + h // (H // G) * N
    total += ((b * H + h) * C + c) * Q
    end = tl.load(total + Q - 1)
    sum_ = tl.zeros([BP, BN], tl.float32)
    for first in tl.static_range(0, Q, BQ):
        s = first + tl.arange(0, BQ)
        row, inside = c * Q + s, c * Q + s < T
        log = tl.load(total + s)
        if steps is not None:
            weight = tl.exp2(end - log) * tl.load(steps + ((b * H + h) * C + c) * Q + s)
        else:
            weight = tl.exp2(log)
        if document is not None:
            if steps is not None:
                same = tl.load(document + b * (C * Q) + c * Q + Q - 1)
            else:
                same = _document_before(document, b, c, C, Q)
            weight = tl.where(tl.load(document + b * (C * Q) + row) == same, weight, 0.0)
        k_tile = load(k, row.to(tl.int64), k_row, inside, N, BN)
        v_tile = load(v, row.to(tl.int64), v_row, inside, P, BP).to(tl.float32) * weight[:, None]
        sum_ += product(tl.trans(v_tile.to(k_tile.dtype)), k_tile, WIDE)
    p = tl.arange(0, BP)
    store(states + ((b * (C + 1) + c) * H + h) * (P * N), p, N, p < P, sum_, N, BN)


@triton.jit
def _decay(total, document, here, there, first_t, first_s, BQ: tl.constexpr):
    """exp(G_t - G_s) for s <= t of one document, (t, s), of two tiles; `here`, `there` the documents of their rows."""
    t, s = first_t + tl.arange(0, BQ), first_s + tl.arange(0, BQ)
    log = tl.load(total + t)[:, None] - tl.load(total + s)[None, :]
    if document is not None:
        log = tl.where(here[:, None] == there[None, :], log, -float("inf"))
    if first_t == first_s:
        log = tl.where(t[:, None] >= s[None, :], log, -float("inf"))
    return tl.exp2(log)


@triton.jit
def _output_kernel(
    v,
    k,
    q,
    total,
    steps,
    skip,
    document,
    states,
    y,
    v_batch,
    v_row,
    k_batch,
    k_row,
    q_batch,
    q_row,
    T,
    C,
    H: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    Q: tl.constexpr,
    BQ: tl.constexpr,
    WIDE: tl.constexpr,
):
    tile, h, c = tl.program_id(0) % (Q // BQ), tl.program_id(0) // (Q // BQ) % H, tl.program_id(0) // (Q // BQ * H) % C
    b = (tl.program_id(0) // (Q // BQ * H) // C).to(tl.int64)
    v += b * v_batch + h * P
    k += b * k_batch + h // (H // G) * N
    q += b * q_batch + h // (H // G) * N
    total += ((b * H + h) * C + c) * Q
    steps += ((b * H + h) * C + c) * Q
    t = tile * BQ + tl.arange(0, BQ)
    row = (c * Q + t).to(tl.int64)
    q_tile = load(q, row, q_row, row < T, N, BN)
    into = tl.exp2(tl.load(total + t))
    here = 0
    if document is not None:
        document += b * (C * Q) + c * Q
        here = tl.load(document + t)
        into = tl.where(here == tl.load(document - 1, mask=c > 0, other=0), into, 0.0)
    state = _state(states, b, c, h, C, H, P, N, BP, BN).to(q_tile.dtype)
    sum_ = product(q_tile, tl.trans(state), WIDE) * into[:, None]
    for first in range(0, (tile + 1) * BQ, BQ):
        s = first + tl.arange(0, BQ)
        at = (c * Q + s).to(tl.int64)
        there = 0
        if document is not None:
            there = tl.load(document + s)
        weight = _decay(total, document, here, there, tile * BQ, first, BQ) * tl.load(steps + s)[None, :]
        k_tile, v_tile = load(k, at, k_row, at < T, N, BN), load(v, at, v_row, at < T, P, BP)
        weight *= product(q_tile, tl.trans(k_tile), WIDE)
        sum_ += product(weight.to(v_tile.dtype), v_tile, WIDE)
    sum_ += tl.load(skip + h) * load(v, row, v_row, row < T, P, BP).to(tl.float32)
    store(y + (b * T * H + h) * P, row, H * P, row < T, sum_, P, BP)


@triton.jit
def _query_kernel(
    v,
    k,
    q,
    total,
    steps,
    skip,
    document,
    states,
    dy,
    dq,
    dtotal,
    v_batch,
    v_row,
    k_batch,
    k_row,
    q_batch,
    q_row,
    T,
    C,
    H: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    Q: tl.constexpr,
    BQ: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradients of the queries, summed over the heads of a group, and of G at their rows."""
    tile, g, c = tl.program_id(0) % (Q // BQ), tl.program_id(0) // (Q // BQ) % G, tl.program_id(0) // (Q // BQ * G) % C
    b = (tl.program_id(0) // (Q // BQ * G) // C).to(tl.int64)
    R: tl.constexpr = H // G
    k += b * k_batch + g * N
    q += b * q_batch + g * N
    t = tile * BQ + tl.arange(0, BQ)
    row = (c * Q + t).to(tl.int64)
    q_tile = load(q, row, q_row, row < T, N, BN)
    here = 0
    if document is not None:
        document += b * (C * Q) + c * Q
        here = tl.load(document + t)
    sum_ = tl.zeros([BQ, BN], tl.float32)
    for h in range(g * R, g * R + R):
        chunk = ((b * H + h) * C + c) * Q
        into = tl.exp2(tl.load(total + chunk + t))
        if document is not None:
            into = tl.where(here == tl.load(document - 1, mask=c > 0, other=0), into, 0.0)
        dy_tile = load(dy + (b * T * H + h) * P, row, H * P, row < T, P, BP).to(q_tile.dtype)
        state = _state(states, b, c, h, C, H, P, N, BP, BN).to(q_tile.dtype)
        change = product(dy_tile, state, WIDE) * into[:, None]
        by_decay = tl.sum(change * q_tile.to(tl.float32), 1)
        sum_ += change
        for first in range(0, (tile + 1) * BQ, BQ):
            s = first + tl.arange(0, BQ)
            at = (c * Q + s).to(tl.int64)
            there = 0
            if document is not None:
                there = tl.load(document + s)
            weight = (
                _decay(total + chunk, document, here, there, tile * BQ, first, BQ) * tl.load(steps + chunk + s)[None, :]
            )
            k_tile = load(k, at, k_row, at < T, N, BN)
            v_tile = load(v + b * v_batch + h * P, at, v_row, at < T, P, BP)
            weight *= product(dy_tile, tl.trans(v_tile), WIDE)
            by_decay += tl.sum(weight * product(q_tile, tl.trans(k_tile), WIDE), 1)
            sum_ += product(weight.to(k_tile.dtype), k_tile, WIDE)
        tl.store(dtotal + chunk + t, by_decay)
    store(dq + (b * T * G + g) * N, row, G * N, row < T, sum_, N, BN)


@triton.jit
def _key_kernel(
    v,
    k,
    q,
    total,
    steps,
    skip,
    document,
    changes,
    dy,
    dv,
    dk,
    dtotal,
    donward,
    dsteps,
    dskip,
    v_batch,
    v_row,
    k_batch,
    k_row,
    q_batch,
    q_row,
    T,
    C,
    H: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    Q: tl.constexpr,
    BQ: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradients of values, steps and skip, and of keys, summed over the heads of a group.

    Of G at their rows, less: by what the chunk's rows see of them, and by what of them is in the state that it ends with.
    """
    tile, g, c = tl.program_id(0) % (Q // BQ), tl.program_id(0) // (Q // BQ) % G, tl.program_id(0) // (Q // BQ * G) % C
    b = (tl.program_id(0) // (Q // BQ * G) // C).to(tl.int64)
    R: tl.constexpr = H // G
    k += b * k_batch + g * N
    q += b * q_batch + g * N
    s = tile * BQ + tl.arange(0, BQ)
    row = (c * Q + s).to(tl.int64)
    k_tile = load(k, row, k_row, row < T, N, BN)
    there = 0
    if document is not None:
        document += b * (C * Q) + c * Q
        there = tl.load(document + s)
    sum_ = tl.zeros([BQ, BN], tl.float32)
    for h in range(g * R, g * R + R):
        chunk = ((b * H + h) * C + c) * Q
        step = tl.load(steps + chunk + s)
        onward = tl.exp2(tl.load(total + chunk + Q - 1) - tl.load(total + chunk + s))
        if document is not None:
            onward = tl.where(there == tl.load(document + Q - 1), onward, 0.0)
        v_tile = load(v + b * v_batch + h * P, row, v_row, row < T, P, BP)
        change = _state(changes, b, c + 1, h, C, H, P, N, BP, BN).to(k_tile.dtype)
        by_key = product(v_tile, change, WIDE) * onward[:, None]
        by_value = product(k_tile, tl.trans(change), WIDE) * onward[:, None]
        tl.store(donward + chunk + s, tl.sum(by_key * k_tile.to(tl.float32), 1) * step)
        by_decay = tl.zeros([BQ], tl.float32)
        for first in range(tile * BQ, Q, BQ):
            t = first + tl.arange(0, BQ)
            at = (c * Q + t).to(tl.int64)
            here = 0
            if document is not None:
                here = tl.load(document + t)
            decay = tl.trans(_decay(total + chunk, document, here, there, first, tile * BQ, BQ))
            q_tile = load(q, at, q_row, at < T, N, BN)
            dy_tile = load(dy + (b * T * H + h) * P, at, H * P, at < T, P, BP).to(k_tile.dtype)
            seen = product(k_tile, tl.trans(q_tile), WIDE) * decay
            asked = product(v_tile, tl.trans(dy_tile), WIDE)
            by_decay += tl.sum(seen * asked, 1)
            by_value += product(seen.to(dy_tile.dtype), dy_tile, WIDE)
            by_key += product((asked * decay).to(q_tile.dtype), q_tile, WIDE)
        own = load(dy + (b * T * H + h) * P, row, H * P, row < T, P, BP).to(tl.float32)
        value = v_tile.to(tl.float32)
        tl.store(dtotal + chunk + s, by_decay * step)
        tl.store(dsteps + chunk + s, tl.sum(by_value * value, 1))
        tl.store(dskip + tl.program_id(0).to(tl.int64) * R + h % R, tl.sum(tl.sum(own * value, 1), 0))
        by_value = by_value * step[:, None] + own * tl.load(skip + h)
        store(dv + (b * T * H + h) * P, row, H * P, row < T, by_value, P, BP)
        sum_ += by_key * step[:, None]
    store(dk + (b * T * G + g) * N, row, G * N, row < T, sum_, N, BN)


__all__ = ["refusal", "ssd"]
