"""The chunks of `chunked`, on a CPU: products by torch, what is between them by numba, and the gradient written out.

Letters: c chunk, b batch, h head, g group; t s rows of a chunk (Q of them), p value dim, n key dim. Lanes are (c b h), or
(c b g) for what the heads of a group share. States lie as (n, p) here, so that all products are of rows of v.

    W_ts = exp(G_t - G_s) q_t.k_s step_s for s <= t, and the skip for s = t      y  = W v + (into q) S
    into_t = exp(G_t), onward_s = exp(G_Q - G_s) step_s                          S' = exp(G_Q) S + (onward k)^T v

where G is the cumsum of g in the chunk: a step and a skip cost nothing of their own.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..chunks import LEAST_LOG
from ..jit import FAST, arrays, compiled, dot, exp, in_parts, numbers, threads, whole_numbers
from ..tiles import Tiling
from .call import SSDCall

F = np.float32
LEAST = F(LEAST_LOG)
SLICES = 8  # of a state, that go their own way through the chunks


class Shape(NamedTuple):
    chunks: int
    batch: int
    heads: int
    groups: int
    rows: int  # of a chunk
    keys: int
    values: int
    length: int


@compiled(**FAST)
def _kept(log):
    return F(0) if log <= LEAST else exp(log)


@compiled(**FAST)
def _totals(c, b, h, shape, log_decay, document, total, here):
    """Writes the decay up to each row and its document; gives the document that the chunk's incoming state is of."""
    Q, T = shape[4], shape[7]
    sum_ = F(0)
    for t in range(Q):
        row = c * Q + t
        if row < T:
            sum_ += log_decay[b, row, h]
        total[t] = sum_
        if len(document):
            here[t] = document[b % len(document), min(row, T - 1)]
    return document[b % len(document), c * Q - 1] if len(document) and c else 0


@compiled(**FAST)
def _steps(c, b, h, step, out):
    Q = len(out)
    for t in range(Q):
        row = c * Q + t
        out[t] = step[b, row, h] if row < step.shape[1] else F(0)


@compiled(**FAST)
def _decays(t, total, here, packed, out):
    """What row t sees of rows s <= t."""
    for s in range(t + 1):
        out[s] = _kept(total[t] - total[s])
    if packed:
        for s in range(t + 1):
            out[s] = out[s] if here[s] == here[t] else F(0)


@in_parts(**FAST)
def _open(parts, shape, log_decay, step, skip, document, q, k, product, weight, into_q, onward_k, keep):
    C, B, H, G, Q, N, _, _ = shape
    packed = len(document) > 0
    for part in prange(parts):
        total, here, decay = np.empty(Q, F), np.zeros(Q, np.int64), np.empty(Q, F)
        steps = np.empty(Q, F)
        for lane in range(C * B * H * part // parts, C * B * H * (part + 1) // parts):
            c, b, h = lane // (B * H), lane // H % B, lane % H
            group = (c * B + b) * G + h // (H // G)
            before = _totals(c, b, h, shape, log_decay, document, total, here)
            _steps(c, b, h, step, steps)
            last = here[Q - 1]
            for t in range(Q):
                _decays(t, total, here, packed, decay)
                a, w = product[group, t], weight[lane, t]
                for s in range(t + 1):
                    w[s] = a[s] * decay[s] * steps[s]
                w[t] += skip[h]
                w[t + 1 :] = F(0)
                into = _kept(total[t]) if here[t] == before else F(0)
                onward = _kept(total[Q - 1] - total[t]) if here[t] == last else F(0)
                x, y = q[group, t], into_q[lane, t]
                for n in range(N):
                    y[n] = x[n] * into
                onward *= steps[t]
                x, y = k[group, t], onward_k[lane, t]
                for n in range(N):
                    y[n] = x[n] * onward
            keep[lane] = _kept(total[Q - 1]) if last == before else F(0)


@in_parts(**FAST)
def _carry(parts, lanes, keep, states):
    """states (chunks + 1, lanes, numbers): the first, then what each chunk adds, which becomes the state after it."""
    C, size = len(states) - 1, states.shape[2]
    for part in prange(parts):
        for unit in range(lanes * SLICES * part // parts, lanes * SLICES * (part + 1) // parts):
            lane, lo, hi = unit // SLICES, size * (unit % SLICES) // SLICES, size * (unit % SLICES + 1) // SLICES
            for c in range(C):
                x, y, left = states[c, lane, lo:hi], states[c + 1, lane, lo:hi], keep[c * lanes + lane]
                if left != 0:
                    for i in range(len(x)):
                        y[i] += left * x[i]


@in_parts(**FAST)
def _carry_back(parts, lanes, keep, states, dstates, dkeep):
    """dstates: what each chunk asks of its incoming state, and at last of the state after all: becomes the gradients."""
    C, size = len(states) - 1, states.shape[2]
    for part in prange(parts):
        for unit in range(lanes * SLICES * part // parts, lanes * SLICES * (part + 1) // parts):
            lane, lo, hi = unit // SLICES, size * (unit % SLICES) // SLICES, size * (unit % SLICES + 1) // SLICES
            for c in range(C - 1, -1, -1):
                x, later, left = states[c, lane, lo:hi], dstates[c + 1, lane, lo:hi], keep[c * lanes + lane]
                dkeep[c * lanes + lane, unit % SLICES] = dot(later, x) * left
                if left != 0:
                    y = dstates[c, lane, lo:hi]
                    for i in range(len(x)):
                        y[i] += left * later[i]


@in_parts(**FAST)
def _close(parts, shape, log_decay, step, document, q, k, product, weight, changes, out):
    """changes: of weights, into_q, onward_k, and of what is kept; out: of products, q, k, log_decay, step and skip (by lane)."""
    C, B, H, G, Q, N, _, T = shape
    packed, R = len(document) > 0, H // G
    dweight, dinto_q, donward_k, dkeep = changes
    dproduct, dq, dk, dlog_decay, dstep, dskip = out
    for part in prange(parts):
        total, here, decay = np.empty(Q, F), np.zeros(Q, np.int64), np.empty(Q, F)
        dtotal, column, steps, dsteps = np.empty(Q, F), np.empty(Q, F), np.empty(Q, F), np.empty(Q, F)
        for group in range(C * B * G * part // parts, C * B * G * (part + 1) // parts):
            c, b = group // (B * G), group // G % B
            dproduct[group], dq[group], dk[group] = F(0), F(0), F(0)
            for r in range(R):
                h = group % G * R + r
                lane = (c * B + b) * H + h
                before = _totals(c, b, h, shape, log_decay, document, total, here)
                _steps(c, b, h, step, steps)
                last = here[Q - 1]
                column[:], dsteps[:] = F(0), F(0)
                end = skipped = F(0)
                for i in range(SLICES):
                    end += dkeep[lane, i]
                for t in range(Q):
                    _decays(t, total, here, packed, decay)
                    d, w, a, o = dweight[lane, t], weight[lane, t], product[group, t], dproduct[group, t]
                    skipped += d[t]
                    for s in range(t + 1):
                        decay[s] *= d[s]
                    for s in range(t + 1):
                        dsteps[s] += decay[s] * a[s]
                    for s in range(t + 1):
                        o[s] += decay[s] * steps[s]
                    mine = dot(d[: t + 1], w[: t + 1])
                    for s in range(t + 1):
                        column[s] += d[s] * w[s]
                    into = _kept(total[t]) if here[t] == before else F(0)
                    onward = _kept(total[Q - 1] - total[t]) if here[t] == last else F(0)
                    x, d, o = q[group, t], dinto_q[lane, t], dq[group, t]
                    along = dot(d, x)
                    for n in range(N):
                        o[n] += d[n] * into
                    mine += along * into
                    x, d, o = k[group, t], donward_k[lane, t], dk[group, t]
                    along = dot(d, x)
                    dsteps[t] += along * onward
                    onward *= steps[t]
                    for n in range(N):
                        o[n] += d[n] * onward
                    dtotal[t] = mine - along * onward
                    end += along * onward
                dtotal[Q - 1] += end
                sum_ = F(0)
                for t in range(Q - 1, -1, -1):
                    sum_ += dtotal[t] - column[t]
                    if c * Q + t < T:
                        dlog_decay[b, c * Q + t, h], dstep[b, c * Q + t, h] = sum_, dsteps[t]
                dskip[lane] = skipped


def ssd(call: SSDCall, chunk: int = 32) -> tuple[Tensor, Tensor]:
    v, k, q, log_decay, state, sequences, step, skip = call
    step = torch.ones_like(log_decay) if step is None else step
    skip = log_decay.new_zeros(v.shape[2]) if skip is None else skip
    if (real := sequences.real()) is not None:
        step, log_decay = (x * real[:, :, None] for x in (step, log_decay))
    return _Scan.apply(v, k, q, log_decay, step, skip, state, sequences.document(), min(chunk, v.shape[1]))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, k, q, log_decay, step, skip, state, document, chunk):
        (B, T, H, P), (G, N) = v.shape, k.shape[2:]
        ctx.shape = shape = Shape(-(-T // chunk), B, H, G, chunk, N, P, T)
        wide, narrow = (Tiling(shape.chunks, chunk, 0, heads) for heads in (H, G))
        v, k, q = wide.to_tiles(v), narrow.to_tiles(k), narrow.to_tiles(q)
        lanes, product = len(v), q @ k.mT
        weight, into_q, onward_k, keep = (v.new_empty(lanes, *s) for s in ((chunk, chunk), (chunk, N), (chunk, N), ()))
        states = v.new_empty(shape.chunks + 1, B * H, N * P)
        inputs = arrays(log_decay, step, skip, whole_numbers(document), q, k, product, weight, into_q, onward_k, keep)
        _open(threads(), tuple(shape), *inputs)
        states[0].view(B, H, N, P).copy_(state.mT)
        torch.bmm(onward_k.mT, v, out=states[1:].view(lanes, N, P))
        _carry(threads(), B * H, *arrays(keep, states))
        y = (weight @ v).baddbmm_(into_q, states[:-1].view(lanes, N, P))
        ctx.save_for_backward(v, k, q, log_decay, step, document, product, weight, into_q, onward_k, keep, states)
        return wide.from_tiles(y, y.new_empty(B, T, H, P)), states[-1].view(B, H, N, P).mT.clone(
            memory_format=torch.contiguous_format
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dstate):
        v, k, q, log_decay, step, document, product, weight, into_q, onward_k, keep, states = ctx.saved_tensors
        shape = ctx.shape
        C, B, H, G, chunk, N, P, T = shape
        wide, narrow = (Tiling(C, chunk, 0, heads) for heads in (H, G))
        dy, lanes, dstates = wide.to_tiles(dy), len(v), torch.empty_like(states)
        torch.bmm(into_q.mT, dy, out=dstates[:-1].view(lanes, N, P))
        dstates[-1].view(B, H, N, P).copy_(dstate.mT)
        dkeep = keep.new_empty(lanes, SLICES)
        _carry_back(threads(), B * H, *arrays(keep, states, dstates, dkeep))
        added = dstates[1:].view(lanes, N, P)
        dv = (weight.mT @ dy).baddbmm_(onward_k, added)
        changes = dy @ v.mT, dy @ states[:-1].view(lanes, N, P).mT, v @ added.mT, dkeep
        out = [numbers(*x.shape) for x in (product, q, k, log_decay, step, keep)]
        inputs = arrays(log_decay, step, whole_numbers(document), q, k, product, weight)
        _close(threads(), tuple(shape), *inputs, tuple(arrays(*changes)), tuple(arrays(*out)))
        dproduct, dq, dk, dlog_decay, dstep, dskip = out
        dq.baddbmm_(dproduct, k)
        dk.baddbmm_(dproduct.mT, q)
        dv = wide.from_tiles(dv, dv.new_empty(B, T, H, P))
        dq, dk = (narrow.from_tiles(x, x.new_empty(B, T, G, N)) for x in (dq, dk))
        dskip = dskip.view(-1, H).double().sum(0).float()
        return dv, dk, dq, dlog_decay, dstep, dskip, dstates[0].view(B, H, N, P).mT, None, None


__all__ = ["ssd"]
