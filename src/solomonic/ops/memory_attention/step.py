"""One row of a call, without gradients, as numba compiles it: a step of decoding on a CPU.

Nothing is turned but the query, once for each lag; the keys stay where they lie.
"""

from functools import lru_cache

import numpy as np
import torch
from numba import prange
from torch import Tensor

from ..jit import FAST, arrays, compiled, dot, exp, in_parts, numbers, require, threads
from ..place import Place
from ..rotary import Rotation
from ..selection.compiled import _ranked

F = np.float32
LEAST = 1 << 18  # products a part


@compiled()
def _choose(score, coordinate, position, real, end, block, index, carried):
    """The set that the row sees and the one after it, as `selection.select` has them: of a row, one is the other."""
    S, capacity = score.shape[1], index.shape[1]
    both, worth = np.empty(capacity + block, np.int64), np.empty(capacity + block, F)
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
        order = np.arange(count) if in_order else _ranked(worth[:count])
        for i in range(capacity):
            at = -1 if worth[order[i]] == -np.inf else both[order[i]]
            index[b, i] = at
            carried[b, i] = at if at >= 0 and coordinate[b, at] >= real[b] - end[b] else -1


@compiled(**FAST)
def _turn(q, cos, sin, out):
    half = len(cos)
    for d in range(half):
        out[d] = q[d] * cos[d] - q[half + d] * sin[d]
    for d in range(half):
        out[half + d] = q[half + d] * cos[d] + q[d] * sin[d]


@compiled(**FAST)
def _add(weight, v, out):
    for d in range(len(out)):
        out[d] += weight * v[d]


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
    y,
):
    B, H, D = y.shape
    R, scale, capacity = H // v_far.shape[2], F(1 / np.sqrt(D)), index.shape[1]
    for part in prange(parts):
        turned, logit = np.empty(D, F), np.empty(window + span + capacity, F)
        for lane in range(B * H * part // parts, B * H * (part + 1) // parts):
            b, h = lane // H, lane % H
            g, before = h // R, position[b % len(position), 0]
            near, far = min(window, before + 1), min(window + span, before + 1)
            for lag in range(near):
                _turn(q[b, h], cos[lag], sin[lag], turned)
                logit[lag] = dot(turned, k[b, k.shape[1] - 1 - lag, g]) * scale
            for lag in range(window, far):
                _turn(q_far[b, h], cos[lag], sin[lag], turned)
                logit[lag] = dot(turned, k_far[b, k_far.shape[1] - 1 - lag, g]) * scale
            most = F(-np.inf)
            for i in range(capacity):
                at, n = index[b, i], window + span + i
                logit[n] = F(-np.inf)
                if at >= 0 and -before <= coordinate[b, at] <= -window:
                    logit[n] = dot(q_kept[b, h], k_kept[b, at, g]) * scale + bias[b, at]
                most = max(most, logit[n])
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
            for d in range(D):
                out[d] /= total


def refusal(v: Tensor, stored=None, differentiable: bool = False) -> str | None:
    """Why it cannot serve values like v (B, T, G, D), or None where it can."""
    if not v.is_cpu or v.dtype != torch.float32:
        return f"expected float32 on a CPU, got {v.dtype} on {v.device}"
    if v.shape[1] != 1:
        return f"expected one row, got {v.shape[1]}"
    if differentiable:
        return "it has no gradients"
    return None if stored is None else "it does not attend to a store"


def attend(
    queries,
    keys,
    values,
    score,
    coordinate,
    bias,
    place: Place,
    window,
    span,
    block,
    capacity,
    stored=None,
    rotation: Rotation | None = None,
):
    """See `memory_attention.BACKENDS`. ValueError for what `refusal` names."""
    q = queries[0]
    last = values[0][:, -1:]
    given = [x for x in (*queries, *keys, *values, score, bias) if x is not None]
    reason = refusal(last, stored, torch.is_grad_enabled() and any(x.requires_grad for x in given))
    if reason is None and q.shape[1] != 1:
        reason = f"expected one row, got {q.shape[1]}"
    if reason:
        raise ValueError(f"backend 'step': {reason}; backend 'blocked' serves every call")
    B, _, H, D = q.shape
    require(H % last.shape[2] == 0, "heads a multiple of those of keys", *(x for x in given if x.dim() == 4))
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
    position = place.position.contiguous().numpy()
    if capacity:
        real = place.last()[:, 0]
        given = arrays(score, coordinate), (position, *arrays(real, place.end)), block, arrays(index, carried)
        _choose(*given[0], *given[1], given[2], *given[3])
    else:
        coordinate = index
    bias = numbers(B, coordinate.shape[1]).zero_() if bias is None else bias
    y = numbers(B, 1, H, D)
    work = y.numel() * (window + span + capacity)
    count = max(1, min(threads(), B * H, work // LEAST))
    heads = [x[:, 0] for x in q]
    rest = *arrays(bias, coordinate, index), position, window, span, *_angles(rotation, window + span, D)
    _see(count, *heads, *k, *v, *rest, y.numpy()[:, 0])
    return y, carried if capacity else None


@lru_cache(maxsize=64)
def _angles(rotation: Rotation | None, length: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of lags 0 .. length - 1."""
    if rotation is None:
        return np.ones((length, dim // 2), F), np.zeros((length, dim // 2), F)
    with torch.inference_mode():
        return tuple(arrays(*rotation.table(torch.arange(length, device="cpu"), dim)))


__all__ = ["attend", "refusal"]
