"""One row of a call, without gradients, as numba compiles it: a step of decoding on a CPU.

The query is rotated once for each lag, and no key is rotated or copied.
"""

from functools import lru_cache

import numpy as np
import torch
from numba import prange
from torch import Tensor

from ..jit import FAST, arrays, compiled, dot, exp, in_parts, numbers, require, threads
from ..rotary import Rotation
from ..selection.compiled import ranked
from .call import AttentionCall

F = np.float32
LEAST = 1 << 18  # products a part


@compiled()
def _choose(score, coordinate, position, real, end, block, index, carried):
    """The set that the row sees and the one after it, as `selection.select` has them: of a row, one is the other."""
    S, capacity = score.shape[1], index.shape[1]
    both, worth = np.empty(capacity + block, np.int64), np.empty(capacity + block, score.dtype)
    for b in range(len(score)):
        before = position[b % len(position), 0]
        renewed = before > 0 and before % block == 0 and real[b] > 0
        count = capacity + block if renewed else capacity
        in_order = True
        for i in range(count):
            at = i if i < capacity else S - 1 - block + i - capacity
            both[i], worth[i] = at, score[b, at]
            if renewed and i < capacity and coordinate[b, at] < -before:
                worth[i] = -np.inf
            if i and not worth[i - 1] >= worth[i]:
                in_order = False
        order = np.arange(count) if in_order else ranked(worth[:count])
        for i in range(capacity):
            at = -1 if worth[order[i]] == -np.inf else both[order[i]]
            index[b, i] = at
            carried[b, i] = at if at >= 0 and coordinate[b, at] >= real[b] - end[b] else -1


@compiled(**FAST)
def _rotate(q, cos, sin, out):
    half = len(cos)
    for d in range(half):
        out[d] = q[d] * cos[d] - q[half + d] * sin[d]
    for d in range(half):
        out[half + d] = q[half + d] * cos[d] + q[d] * sin[d]


@compiled(**FAST)
def _add(weight, v, out):
    for d in range(len(out)):
        out[d] += weight * v[d]


@compiled(**FAST)
def _sharpen(logit, sharpness):
    """Makes logits `sharpness` times as far apart, and leaves what they weigh together."""
    most = F(-np.inf)
    for e in range(len(logit)):
        most = max(most, logit[e])
    if most == -np.inf:
        return
    before = after = F(0)
    for e in range(len(logit)):
        if logit[e] != -np.inf:
            before += exp(logit[e] - most)
            logit[e] = sharpness * (logit[e] - most)
            after += exp(logit[e])
    for e in range(len(logit)):
        logit[e] += most + np.log(before / after)


@in_parts(**FAST)
def _see(
    parts,
    q,
    q_far,
    q_kept,
    k,
    k_far,
    k_kept,
    v,
    v_far,
    v_kept,
    bias,
    coordinate,
    index,
    position,
    window,
    span,
    cos,
    sin,
    q_stored,
    k_stored,
    v_stored,
    bias_stored,
    seen_stored,
    sharpness,
    weights,
    y,
):
    """Of a store: q_stored (B, H, D), k_stored and v_stored (B, E, G, D), bias_stored and seen_stored (B, E), `Stored.visible`. Writes its weights (B, H, E), and y."""
    B, H, D = y.shape
    E = k_stored.shape[1]
    R, scale, capacity = H // v_far.shape[2], F(1 / np.sqrt(D)), index.shape[1]
    for part in prange(parts):
        rotated, logit = np.empty(D, F), np.empty(window + span + capacity + E, F)
        for lane in range(B * H * part // parts, B * H * (part + 1) // parts):
            b, h = lane // H, lane % H
            g, before = h // R, position[b % len(position), 0]
            near, far = min(window, before + 1), min(window + span, before + 1)
            for lag in range(near):
                _rotate(q[b, h], cos[lag], sin[lag], rotated)
                logit[lag] = dot(rotated, k[b, k.shape[1] - 1 - lag, g]) * scale
            for lag in range(window, far):
                _rotate(q_far[b, h], cos[lag], sin[lag], rotated)
                logit[lag] = dot(rotated, k_far[b, k_far.shape[1] - 1 - lag, g]) * scale
            most = F(-np.inf)
            for i in range(capacity):
                at, n = index[b, i], window + span + i
                logit[n] = F(-np.inf)
                if at >= 0 and -before <= coordinate[b, at] <= -window:
                    logit[n] = dot(q_kept[b, h], k_kept[b, at, g]) * scale + bias[b, at]
                most = max(most, logit[n])
            for e in range(E):
                n = window + span + capacity + e
                logit[n] = F(-np.inf)
                if seen_stored[b, e]:
                    logit[n] = dot(q_stored[b, h], k_stored[b, e, g]) * scale + bias_stored[b, e]
            if sharpness != F(1):
                _sharpen(logit[window + span + capacity :], sharpness)
            for e in range(E):
                most = max(most, logit[window + span + capacity + e])
            for lag in range(near):
                most = max(most, logit[lag])
            for lag in range(window, far):
                most = max(most, logit[lag])
            out, total = y[b, h], F(0)
            out[:] = F(0)
            for lag in range(near):
                weight = exp(logit[lag] - most)
                total += weight
                _add(weight, v[b, v.shape[1] - 1 - lag, g], out)
            for lag in range(window, far):
                weight = exp(logit[lag] - most)
                total += weight
                _add(weight, v_far[b, v_far.shape[1] - 1 - lag, g], out)
            for i in range(capacity):
                n = window + span + i
                if logit[n] != -np.inf:
                    weight = exp(logit[n] - most)
                    total += weight
                    _add(weight, v_kept[b, index[b, i], g], out)
            for e in range(E):
                n = window + span + capacity + e
                weights[b, h, e] = F(0)
                if logit[n] != -np.inf:
                    weights[b, h, e] = exp(logit[n] - most)
                    total += weights[b, h, e]
                    _add(weights[b, h, e], v_stored[b, e, g], out)
            for e in range(E):
                weights[b, h, e] /= total
            for d in range(D):
                out[d] /= total


def refusal(q: Tensor, differentiable: bool) -> str | None:
    """Why it cannot serve queries like q (B, T, H, D), or None where it can."""
    if not q.is_cpu or q.dtype != torch.float32:
        return f"expected float32 on a CPU, got {q.dtype} on {q.device}"
    if q.shape[1] != 1:
        return f"expected one row, got {q.shape[1]}"
    return "it has no gradients" if differentiable else None


def attend(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """See `AttentionCall`. ValueError for what `refusal` names."""
    queries, keys, values = call.queries, call.keys, call.values
    score, coordinate, bias, stored, rotation = call.score, call.coordinate, call.bias, call.stored, call.rotation
    sequences, window, span, block, capacity = call.sequences, call.window, call.span, call.block, call.capacity
    tensors = [x for x in (*queries, *keys, *values) if x is not None]
    others = [x for x in (score, bias, *(stored or ())[:4]) if x is not None]
    reason = refusal(queries[0], torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, *others)))
    if reason:
        raise ValueError(f"backend 'decode': {reason}; backend 'tiled' serves every call")
    B, _, H, D = queries[0].shape
    require(H % values[0].shape[2] == 0, "heads a multiple of those of keys", *tensors)
    parts = [list(x) for x in (queries, keys, values)]
    for part in parts:
        if not window:
            part[0] = part[1]
        elif capacity and part is not parts[0]:
            part[0] = part[2]  # whose last rows they are
        part[1] = part[0] if part[1] is None else part[1]
        part[2] = part[0] if part[2] is None else part[2]
    q, k, v = (arrays(*part) for part in parts)
    index, carried = (torch.empty(B, capacity, dtype=torch.int64, device="cpu") for _ in range(2))
    position = sequences.position.contiguous().numpy()
    if capacity:
        real = sequences.last()[:, 0]
        _choose(*arrays(score, coordinate), position, *arrays(real, sequences.end), block, *arrays(index, carried))
    else:
        coordinate = index
    bias = numbers(B, coordinate.shape[1]).zero_() if bias is None else bias
    y, E = numbers(B, 1, H, D), 0 if stored is None else stored.key.shape[2]
    weights, heads = numbers(B, 1, H, E), [x[:, 0] for x in q]
    if stored is None:
        none = np.empty((B, 0, values[0].shape[2], D), F)
        store = heads[0], none, none, np.empty((B, 0), F), np.empty((B, 0), np.bool_), F(1)
    else:
        store = *(x[:, 0] for x in arrays(*stored[:5])), F(stored.sharpness)
    count = max(1, min(threads(), B * H, y.numel() * (window + span + capacity + E) // LEAST))
    inputs = *arrays(bias, coordinate, index), position, window, span, *_angles(rotation, window + span, D)
    _see(count, *heads, *k, *v, *inputs, *store, weights.numpy()[:, 0], y.numpy()[:, 0])
    if stored is not None and stored.watch:
        stored.watch(weights)
    return y, carried if capacity else None


@lru_cache(maxsize=64)
def _angles(rotation: Rotation | None, length: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of lags 0 .. length - 1."""
    if rotation is None:
        return np.ones((length, dim // 2), F), np.zeros((length, dim // 2), F)
    with torch.inference_mode():
        return tuple(arrays(*rotation.table(torch.arange(length, device="cpu"), dim)))


__all__ = ["attend", "refusal"]
