"""The rule row by row, as numba compiles it, a lane (b h) at a time: its state stays in the cache, no system is solved.

States lie as (k, v) here, so that every loop is over values. The gradient goes back through chunks, whose states it
makes again from the innovations. With S' = Diag(exp(g)) S_{t-1}, the state that row t finds, and D, D' the gradients of
S_t, S':

    D += q dy^T      de = D^T k + what asks for e itself      D' = D - p de^T      D_{t-1} = Diag(exp(g)) D'
    dq = S_t dy      dk = D e      dp = -S' de      dv = de      dg = sum over values of S' D'
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..jit import FAST, arrays, dot, in_parts, numbers, require, threads
from .call import ChannelDeltaCall

F = np.float32
CHUNK = 32


@in_parts(**FAST)
def _forward(parts, q, k, erase, v, decay, states, y, errors, last):
    (B, T, H, K), V = q.shape, v.shape[3]
    for part in prange(parts):
        state = np.empty((K, V), F)
        for lane in range(B * H * part // parts, B * H * (part + 1) // parts):
            b, h = lane // H, lane % H
            state[:] = states[lane, 0]
            for t in range(T):
                if t % CHUNK == 0:
                    states[lane, t // CHUNK] = state
                error, out = errors[b, t, h], y[b, t, h]
                for i in range(V):
                    error[i] = v[b, t, h, i]
                for n in range(K):
                    row, key, left = state[n], erase[b, t, h, n], decay[b, t, h, n]
                    for i in range(V):
                        row[i] = row[i] * left if left != 0 else F(0)
                    for i in range(V):
                        error[i] -= key * row[i]
                for i in range(V):
                    out[i] = F(0)
                for n in range(K):
                    row, key, query = state[n], k[b, t, h, n], q[b, t, h, n]
                    for i in range(V):
                        row[i] += key * error[i]
                    for i in range(V):
                        out[i] += query * row[i]
            last[lane] = state


@in_parts(**FAST)
def _backward(parts, q, k, erase, decay, states, errors, dy, derrors, dlast, dq, dk, derase, dv, dlog_decay):
    """dlast (lanes, K, V): becomes the gradient of the state before the first row."""
    (B, T, H, K), V = q.shape, dy.shape[3]
    for part in prange(parts):
        after, decayed = np.empty((CHUNK, K, V), F), np.empty(V, F)
        for lane in range(B * H * part // parts, B * H * (part + 1) // parts):
            b, h = lane // H, lane % H
            dstate = dlast[lane]
            for chunk in range((T - 1) // CHUNK, -1, -1):
                first, beyond = chunk * CHUNK, min(chunk * CHUNK + CHUNK, T)
                for t in range(first, beyond):
                    error = errors[b, t, h]
                    for n in range(K):
                        before = after[t - first - 1, n] if t > first else states[lane, chunk, n]
                        row, key, left = after[t - first, n], k[b, t, h, n], decay[b, t, h, n]
                        for i in range(V):
                            row[i] = (left * before[i] if left != 0 else F(0)) + key * error[i]
                for t in range(beyond - 1, first - 1, -1):
                    error, up, derror = errors[b, t, h], dy[b, t, h], dv[b, t, h]
                    for i in range(V):
                        derror[i] = derrors[b, t, h, i]
                    for n in range(K):
                        row, drow, key, query = after[t - first, n], dstate[n], k[b, t, h, n], q[b, t, h, n]
                        for i in range(V):
                            drow[i] += query * up[i]
                        for i in range(V):
                            derror[i] += key * drow[i]
                        dq[b, t, h, n], dk[b, t, h, n] = dot(row, up), dot(drow, error)
                    for n in range(K):
                        row, drow, key, erased = after[t - first, n], dstate[n], k[b, t, h, n], erase[b, t, h, n]
                        left = decay[b, t, h, n]
                        for i in range(V):
                            decayed[i] = row[i] - key * error[i]
                        for i in range(V):
                            drow[i] -= erased * derror[i]
                        derase[b, t, h, n], dlog_decay[b, t, h, n] = -dot(decayed, derror), dot(decayed, drow)
                        for i in range(V):
                            drow[i] = drow[i] * left if left != 0 else F(0)


def channel_delta(call: ChannelDeltaCall) -> tuple[Tensor, Tensor, Tensor]:
    q, k, erase, v, log_decay, state, sequences, _ = call
    (B, T, H, K), V = k.shape, v.shape[3]
    fits = q.shape == k.shape == erase.shape == log_decay.shape and v.shape == (B, T, H, V)
    expected = "q, k, erase and log_decay (B, T, H, K), v (B, T, H, V), state (B, H, V, K)"
    require(fits and state.shape == (B, H, V, K), expected, q, k, erase, v, log_decay, state)
    if (real := sequences.real()) is not None:
        k, log_decay = (x * real[:, :, None, None] for x in (k, log_decay))
    return _Scan.apply(q, k, erase, v, log_decay, state, sequences.position == 0 if sequences.packed else None)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, erase, v, log_decay, state, begins):
        (B, T, H, K), V = q.shape, v.shape[3]
        decay = log_decay.exp()
        if begins is not None:
            decay = decay.masked_fill_(begins[:, :, None, None], 0)
        states = numbers(B * H, -(-T // CHUNK), K, V)
        states[:, 0] = state.mT.reshape(B * H, K, V)
        y, errors, last = numbers(B, T, H, V), numbers(B, T, H, V), numbers(B * H, K, V)
        _forward(min(threads(), B * H), *arrays(q, k, erase, v, decay, states, y, errors, last))
        ctx.save_for_backward(q, k, erase, decay, states, errors)
        return y, errors, last.view(B, H, K, V).mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, derrors, dlast):
        q, k, erase, decay, states, errors = ctx.saved_tensors
        B, H, V, K = dlast.shape
        dstate = dlast.mT.contiguous().view(B * H, K, V)
        dstate = dstate.clone() if dstate.data_ptr() == dlast.data_ptr() else dstate
        gradients = [numbers(*x.shape) for x in (q, k, erase, errors, decay)]
        inputs = arrays(q, k, erase, decay, states, errors, dy, derrors, dstate)
        _backward(min(threads(), B * H), *inputs, *arrays(*gradients))
        return *gradients, dstate.view(B, H, K, V).mT, None


__all__ = ["channel_delta"]
