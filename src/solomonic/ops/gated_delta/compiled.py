"""The rule row by row, as numba compiles it, a lane (b h) at a time: its state stays in the cache, and no system is solved.

States lie as (k, v) here, so that every loop is over values. The gradient goes back through chunks, whose states it
makes again from the innovations. With S' = exp(g) S_{t-1}, the state that the row found, and D, D' the gradients of S_t, S':

    D += q dy^T      dbe = D^T k      de = b dbe + what asks for e itself      D' = D - k de^T      D_{t-1} = exp(g) D'
    dq = S_t dy      dk = D (b e) - S' de      dv = de      db = e.dbe      dg = S':D'
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..jit import FAST, arrays, compiled, dot, exp, in_parts, numbers, require, threads, whole_numbers
from .call import DeltaCall

F = np.float32
CHUNK = 32
LEAST = F(-60)  # of what a row leaves, less than e^-60 is nothing


@compiled(**FAST)
def _left(log_decay, position, b, t, h):
    """What a row leaves of the state: nothing where a document begins."""
    if len(position) and position[b % len(position), t] == 0:
        return F(0)
    return F(0) if log_decay[b, t, h] <= LEAST else exp(log_decay[b, t, h])


@in_parts(**FAST)
def _forward(parts, q, k, v, beta, log_decay, position, states, y, errors, last):
    (B, T, H, K), V = q.shape, v.shape[3]
    for part in prange(parts):
        state, change = np.empty((K, V), F), np.empty(V, F)
        for lane in range(B * H * part // parts, B * H * (part + 1) // parts):
            b, h = lane // H, lane % H
            state[:] = states[lane, 0]
            for t in range(T):
                if t % CHUNK == 0:
                    states[lane, t // CHUNK] = state
                left, weight = _left(log_decay, position, b, t, h), beta[b, t, h]
                error, out = errors[b, t, h], y[b, t, h]
                for i in range(V):
                    error[i] = v[b, t, h, i]
                for n in range(K):
                    row, key = state[n], k[b, t, h, n]
                    for i in range(V):
                        row[i] = row[i] * left if left != 0 else F(0)
                    for i in range(V):
                        error[i] -= key * row[i]
                for i in range(V):
                    change[i] = weight * error[i]
                for i in range(V):
                    out[i] = F(0)
                for n in range(K):
                    row, key, query = state[n], k[b, t, h, n], q[b, t, h, n]
                    for i in range(V):
                        row[i] += key * change[i]
                    for i in range(V):
                        out[i] += query * row[i]
            last[lane] = state


@in_parts(**FAST)
def _backward(
    parts, q, k, beta, log_decay, position, states, errors, dy, derrors, dlast, dq, dk, dv, dbeta, dlog_decay
):
    """dlast (lanes, K, V): becomes the gradient of the state before the first row."""
    (B, T, H, K), V = q.shape, dy.shape[3]
    for part in prange(parts):
        after, decayed = np.empty((CHUNK, K, V), F), np.empty(V, F)
        change, dchange = np.empty(V, F), np.empty(V, F)
        for lane in range(B * H * part // parts, B * H * (part + 1) // parts):
            b, h = lane // H, lane % H
            dstate = dlast[lane]
            for chunk in range((T - 1) // CHUNK, -1, -1):
                first, beyond = chunk * CHUNK, min(chunk * CHUNK + CHUNK, T)
                for t in range(first, beyond):
                    left, error = _left(log_decay, position, b, t, h), errors[b, t, h]
                    for i in range(V):
                        change[i] = beta[b, t, h] * error[i]
                    for n in range(K):
                        before = after[t - first - 1, n] if t > first else states[lane, chunk, n]
                        row, key = after[t - first, n], k[b, t, h, n]
                        for i in range(V):
                            row[i] = (left * before[i] if left != 0 else F(0)) + key * change[i]
                for t in range(beyond - 1, first - 1, -1):
                    left, weight = _left(log_decay, position, b, t, h), beta[b, t, h]
                    error, up, out = errors[b, t, h], dy[b, t, h], dv[b, t, h]
                    for i in range(V):
                        change[i] = weight * error[i]
                    for i in range(V):
                        dchange[i] = F(0)
                    for n in range(K):
                        row, drow, key, query = after[t - first, n], dstate[n], k[b, t, h, n], q[b, t, h, n]
                        for i in range(V):
                            drow[i] += query * up[i]
                        for i in range(V):
                            dchange[i] += key * drow[i]
                        dq[b, t, h, n], dk[b, t, h, n] = dot(row, up), dot(drow, change)
                    dbeta[b, t, h] = dot(dchange, error)
                    for i in range(V):
                        out[i] = weight * dchange[i] + derrors[b, t, h, i]
                    along, faded = dot(out, change), F(0)
                    for n in range(K):
                        row, drow, key = after[t - first, n], dstate[n], k[b, t, h, n]
                        dk[b, t, h, n] -= dot(row, out) - key * along
                        for i in range(V):
                            drow[i] -= key * out[i]
                        for i in range(V):
                            decayed[i] = row[i] - key * change[i]
                        faded += dot(decayed, drow)
                        for i in range(V):
                            drow[i] = drow[i] * left if left != 0 else F(0)
                    dlog_decay[b, t, h] = faded


def gated_delta(call: DeltaCall) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, beta, log_decay, state, sequences, _ = call
    (B, T, H, K), V = k.shape, v.shape[3]
    fits = q.shape == k.shape and v.shape == (B, T, H, V) and beta.shape == log_decay.shape == (B, T, H)
    expected = "q and k (B, T, H, K), v (B, T, H, V), beta and log_decay (B, T, H), state (B, H, V, K)"
    require(fits and state.shape == (B, H, V, K), expected, q, k, v, beta, log_decay, state)
    if (real := sequences.real()) is not None:
        beta, log_decay = (x * real[:, :, None] for x in (beta, log_decay))
    return _Scan.apply(q, k, v, beta, log_decay, state, sequences.position if sequences.packed else None)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, beta, log_decay, state, position):
        (B, T, H, K), V = q.shape, v.shape[3]
        states = numbers(B * H, -(-T // CHUNK), K, V)
        states[:, 0] = state.mT.reshape(B * H, K, V)
        y, errors, last = numbers(B, T, H, V), numbers(B, T, H, V), numbers(B * H, K, V)
        inputs = arrays(q, k, v, beta, log_decay, whole_numbers(position), states, y, errors, last)
        _forward(min(threads(), B * H), *inputs)
        ctx.save_for_backward(q, k, beta, log_decay, position, states, errors)
        return y, errors, last.view(B, H, K, V).mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, derrors, dlast):
        q, k, beta, log_decay, position, states, errors = ctx.saved_tensors
        B, H, V, K = dlast.shape
        dstate = dlast.mT.contiguous().view(B * H, K, V)
        dstate = dstate.clone() if dstate.data_ptr() == dlast.data_ptr() else dstate
        dq, dk, dv, dbeta, dlog_decay = (numbers(*x.shape) for x in (q, k, errors, beta, log_decay))
        inputs = (q, k, beta, log_decay, whole_numbers(position), states, errors, dy, derrors, dstate)
        _backward(min(threads(), B * H), *arrays(*inputs, dq, dk, dv, dbeta, dlog_decay))
        return dq, dk, dv, dbeta, dlog_decay, dstate.view(B, H, K, V).mT, None


__all__ = ["gated_delta"]
